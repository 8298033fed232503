"""Whose signatures a lane's notes must carry: its newest keyring, by Postgres where that is at hand, else by a search.

Postgres only says where to look: what is believed is the archive's entries, and of those what the roots have signed.
"""

from __future__ import annotations

from collections.abc import Sequence

from ai_infra.readmodel.connection import connect
from ai_infra.readmodel.exceptions import DatabaseUnavailable
from ai_infra.settings import Settings
from ai_infra.trust.keyring import Keyring, Roots
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.proofs.making import NotProvable, find_keyrings, keyrings_in_postgres, keyrings_of


def judge_by_newest(read: Sequence[tuple[ArchivedLane, Keyring]]) -> Keyring | None:
    """The newest keyring of these lanes, by which every lane's checkpoint must be signed: a lane that was kept from
    hearing of a revocation goes on believing the revoked key. Raises a TlogError."""
    newest = max((keyring for _, keyring in read), key=lambda keyring: keyring.version, default=None)
    for archived, keyring in read:
        if newest is not None and keyring.version < newest.version:
            # Read again: a live log signs its lanes' checkpoints anew one after the other.
            archived.checkpoint(archived.note() or b"", newest, standing=True)
    return newest


def lane_keyring(
    settings: Settings, archived: ArchivedLane, pinned: Roots, *, database: bool
) -> tuple[int, Keyring, list[int]]:
    """The size that the lane's newest checkpoint claims, its newest keyring, and where its keyrings were entered.

    Raises NotProvable where the lane has no checkpoint or no keyring that verifies.
    """
    raw = archived.note()
    if raw is None:
        raise NotProvable(f"lane {archived.lane} has no checkpoint yet; is the indexer running? (`ai-infra status`)")
    size = archived.claimed_size(raw)
    positions: list[int] = []
    if database and settings.database.configured:
        try:
            with connect(settings.database.url, application="ai-infra audit", autocommit=True) as connection:
                positions = keyrings_in_postgres(connection, archived.lane)
        except DatabaseUnavailable:
            positions = []  # the archive has all of it, and takes longer
    positions = [at for at in positions or find_keyrings(archived, size) if at < size]
    keyrings = keyrings_of(archived, positions, size, pinned, settings.log.lanes)
    if keyrings.latest_version == 0:
        raise NotProvable(
            f"no keyring was entered into the first {size} entries of lane {archived.lane}: nothing says whose its "
            "signatures must be"
        )
    return size, keyrings.latest, positions
