"""What the trainer decides: pure. By the rules of today, and by each version that a log still names."""

from __future__ import annotations

from typing import Final

from ai_infra_trainer.rules import v1

RULES: Final = v1.RULES
rules = v1.rules

VERSIONS: Final = {v1.RULES: v1.rules}
"""Whoever decides again what was decided looks up the `rules` of the event here. A changed rule is a new module."""
