"""`python -m ai_infra_promoter` is `ai-infra run promoter`."""

from __future__ import annotations

import sys

from ai_infra.cli.run import run_one

if __name__ == "__main__":
    sys.exit(run_one("promoter"))
