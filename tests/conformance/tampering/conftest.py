"""The corpora of manipulations, and what our audit and the auditor's own verifier say of each. They need no stack.

The log that is tampered with is made by the same voices as in the indexer's unit tests.
"""

from __future__ import annotations

from tests.unit.indexer.conftest import keys, make_world

__all__ = ["keys", "make_world"]
