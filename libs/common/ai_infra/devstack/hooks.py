"""What a stack needs beyond running servers: keys, topics, keyring, buckets, tables.

Each step belongs to another room and may be repeated. It is called by its public name, looked up when it is needed: the
stack is no place that services could depend on, nor the other way round. Nothing here knows how a step is done.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from ai_infra.devstack.progress import Progress
from ai_infra.settings import Settings, load_settings


def initialise_keys(keys: Path, progress: Progress) -> None:
    """Make keys, certificates and keyring v1, unless they are there."""
    if not (keys / "roots.json").exists():
        _step("making keys and keyring", "ai_infra.trust.init", "init_keys", progress, keys)


def furnish(settings: Settings, progress: Progress) -> None:
    """Create topics, publish the keyring, create buckets and tables, for the running stack that `settings` name."""
    _step("creating topics", "ai_infra.bus.topics", "create_topics", progress, settings)
    _step("publishing the keyring", "ai_infra.bus.announce", "publish_keyring", progress, settings)
    _step("creating buckets", "ai_infra.objects.buckets", "ensure_buckets", progress, settings)
    _step("creating tables", "ai_infra_indexer.migrations", "migrate", progress, settings.database.url)


def settings_for(env: Mapping[str, str], directory: Path) -> Settings:
    """Settings that hold for the stack that `env` describes, whatever the caller's own environment says."""
    return load_settings(environ=env, directory=directory)


def _step(what: str, module: str, function: str, progress: Progress, argument: object) -> None:
    try:
        call = getattr(importlib.import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as error:
        progress(f"{what}: left out, {module}.{function} is not there ({error})")
        return
    progress(f"{what} …")
    call(argument)
