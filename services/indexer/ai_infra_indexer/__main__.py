"""`python -m ai_infra_indexer` is `ai-infra run indexer`."""

from __future__ import annotations

import signal
import sys
import threading

from ai_infra.settings import load_settings
from ai_infra_indexer.service import main


def run() -> int:
    """Run until a signal comes; the handler only sets a flag."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return main(load_settings(), stop)


if __name__ == "__main__":
    sys.exit(run())
