"""How long properties are tried: shortly and on the same examples in `make test`, long and anew in `make soak`.

`make test` judges the change, not the day: what a search finds becomes an `@example` or a test of its own.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import settings

SOAK: Final = os.environ.get("SOAK") == "1"


def register() -> None:
    """Load the profile of this run; before test modules are imported, because `@settings` copies it."""
    settings.register_profile("repeatable", deadline=None, derandomize=True)
    settings.register_profile("search", deadline=None, print_blob=True, max_examples=examples(100))
    settings.load_profile("search" if SOAK else "repeatable")


def examples(number: int) -> int:
    """`number` examples in `make test`, 20 times as many in `make soak`."""
    return 20 * number if SOAK else number
