"""`python -m ai_infra_canary` is `ai-infra run canary`."""

from __future__ import annotations

import sys

from ai_infra.cli.run import run_one

if __name__ == "__main__":
    sys.exit(run_one("canary"))
