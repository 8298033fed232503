"""What a stack needs beyond running servers: keys, topics, keyring, buckets, tables.

Each step belongs to another room and may be repeated. Nothing here knows how a step is done.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ai_infra.bus.announce import publish_keyring
from ai_infra.bus.kafka.topics import create_topics
from ai_infra.devstack.progress import Progress
from ai_infra.settings import Settings, load_settings
from ai_infra.trust.init import init_keys

# The indexer owns the tables. It is a service, and what is common imports no service: so it is called by name.
MIGRATIONS: Final = "ai_infra_indexer.migrations"


def initialise_keys(keys: Path, progress: Progress) -> None:
    """Make keys, certificates and keyring v1, unless they are there."""
    if not (keys / "roots.json").exists():
        progress("making keys and keyring …")
        init_keys(keys)


def furnish(settings: Settings, progress: Progress) -> None:
    """Create topics, publish the keyring, create buckets and tables, for the running stack that `settings` name."""
    from ai_infra.objects.buckets import ensure_buckets  # boto3: an extra that a producer's installation doesn't have

    progress("creating topics …")
    create_topics(settings)
    progress("publishing the keyring …")
    publish_keyring(settings)
    progress("creating buckets …")
    ensure_buckets(settings)
    progress("creating tables …")
    importlib.import_module(MIGRATIONS).migrate(settings.database.url)


def settings_for(env: Mapping[str, str], directory: Path) -> Settings:
    """Settings that hold for the stack that `env` describes, whatever the caller's own environment says."""
    return load_settings(environ=env, directory=directory)
