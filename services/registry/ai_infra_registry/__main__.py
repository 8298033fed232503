"""`python -m ai_infra_registry` is `ai-infra run registry`."""

from __future__ import annotations

import sys

from ai_infra.cli.run import run_one

if __name__ == "__main__":
    sys.exit(run_one("registry"))
