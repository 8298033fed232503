"""What lies in the archive beside the lanes, so that an auditor needs nothing else: schemas, roots, signers.

Everything is put once, under the name of its content or of the key that it is about.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from ai_infra.events.fingerprint import schema_text
from ai_infra.events.schemas import KNOWN
from ai_infra.objects.exceptions import Conflict
from ai_infra.objects.model import Lock, Put
from ai_infra.objects.store import ObjectStore
from ai_infra.objects.uri import join
from ai_infra.settings import Settings

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 10.0  # a rotated chain key brings a new certificate; a look is two listings


def archive_schema(store: ObjectStore, uri: str, settings: Settings, sha256: str, text: str) -> None:
    """Put a schema that was learned from a schema registry, before any entry that it describes can be archived."""
    # In the form that its name is the hash of, whatever spaces the registry has put into it.
    store.put_many([_schema(uri, settings, sha256, schema_text(json.loads(text)))])


def archive_companions(store: ObjectStore, uri: str, settings: Settings) -> None:
    """Put what is not there yet. Cheap where all is there: one request for each object."""
    lock = _lock(settings)
    puts = [_schema(uri, settings, sha256, text) for sha256, text in KNOWN.items()]
    directory = settings.keys.dir
    names = ("*.certificate.json", "signers.json", "roots.json")
    for path in [path for name in names for path in sorted(directory.glob(name))] if directory is not None else ():
        puts.append(Put(join(uri, f"trust/{path.name}"), path.read_bytes(), content_type="application/json", lock=lock))
    there = {item.uri for prefix in ("schemas/", "trust/") for item in store.list(join(uri, prefix))}
    try:
        store.put_many([put for put in puts if put.uri not in there])
    except Conflict as error:
        # A signers file that grew after a rotation: the keyring in the log is what counts.
        log.info("companion differs from the archived one", why=str(error))


def _schema(uri: str, settings: Settings, sha256: str, text: str) -> Put:
    path = join(uri, f"schemas/{sha256}.avsc")
    return Put(path, text.encode(), content_type="application/json", lock=_lock(settings))


def _lock(settings: Settings) -> Lock:
    return Lock.compliance(datetime.now(UTC) + timedelta(days=settings.objects.retention_days))
