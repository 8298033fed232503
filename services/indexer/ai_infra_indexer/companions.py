"""What lies in the archive beside the lanes, so that an auditor needs nothing else: schemas, roots, signers.

Everything is put once, under the name of its content or of the key that it is about.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import structlog

from ai_infra.events.schemas import KNOWN
from ai_infra.objects.exceptions import Conflict
from ai_infra.objects.model import Lock, Put
from ai_infra.objects.store import ObjectStore
from ai_infra.objects.uri import join
from ai_infra.settings import Settings

log = structlog.get_logger(__name__)


def archive_companions(store: ObjectStore, uri: str, settings: Settings) -> None:
    """Put what is not there yet. Cheap where all is there: one request for each object."""
    lock = Lock.compliance(datetime.now(UTC) + timedelta(days=settings.objects.retention_days))
    puts = [
        Put(join(uri, f"schemas/{sha256}.avsc"), text.encode(), content_type="application/json", lock=lock)
        for sha256, text in KNOWN.items()
    ]
    directory = settings.keys.dir
    names = ("chain-1.certificate.json", "signers.json", "roots.json")
    for name in names:
        path = (directory / name) if directory is not None else None
        if path is not None and path.is_file():
            puts.append(Put(join(uri, f"trust/{name}"), path.read_bytes(), content_type="application/json", lock=lock))
    there = {item.uri for prefix in ("schemas/", "trust/") for item in store.list(join(uri, prefix))}
    try:
        store.put_many([put for put in puts if put.uri not in there])
    except Conflict as error:
        # A signers file that grew after a rotation: the keyring in the log is what counts.
        log.info("companion differs from the archived one", why=str(error))
