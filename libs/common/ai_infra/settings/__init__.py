"""Typed settings: every name of the environment that this system reads, in one place."""

from ai_infra.settings.load import Settings, known_names, load_settings
from ai_infra.settings.sections import ENVIRONMENTS

__all__ = ["ENVIRONMENTS", "Settings", "known_names", "load_settings"]
