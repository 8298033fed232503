"""Three ways to tamper, each on a copy or taken back at once, and how each is found.

A byte of an archived entry (in a copy of the archive), a row in Postgres (in the rebuilt database), an artifact in the
bucket (a new version over it, which a lock does not forbid; it is removed again).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import psycopg
from examples.demo.narration import DemoError, run, say

from ai_infra.devstack.stack import Stack
from ai_infra.events.lanes import lane_of
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings

MODEL = "digits"


def tamper(stack: Stack, settings: Settings, copy_url: str, artifact_uri: str) -> None:
    """Shows the three; raises `DemoError` where one of them is not found."""
    lane = lane_of(MODEL, settings.log.lanes)
    with tempfile.TemporaryDirectory(prefix="ai-infra-demo-") as folder:
        say("One byte of an archived entry, in a copy of the archive:")
        changed = copy_and_flip(settings, f"s3://{stack.env()['AI_INFRA_ARCHIVE_BUCKET']}", Path(folder), lane)
        say(f"  changed a byte of {changed}")
        found(run(["audit", "verify", "--archive", folder, "--lane", str(lane)], expect_failure=True), "changed_entry")

    say("One row in Postgres, in the rebuilt database:")
    with psycopg.connect(copy_url) as connection:
        row = connection.execute(
            "UPDATE audit_events SET payload = jsonb_set(payload::jsonb, '{actor}', '\"somebody else\"')::json "
            "WHERE lane = %s AND position = (SELECT max(position) / 2 FROM audit_events WHERE lane = %s) "
            "RETURNING position",
            (lane, lane),
        ).fetchone()
    say(f"  changed who did it, at position {row[0] if row else '?'} of lane {lane}")
    arguments = ["audit", "verify", "--from", "postgres", "--lane", str(lane)]
    found(run(arguments, expect_failure=True, AI_INFRA_DATABASE_URL=copy_url), "changed_row")

    say("One artifact in the bucket:")
    with ObjectStore(settings) as store:
        bucket, _, key = artifact_uri.removeprefix("s3://").partition("/")
        put = store.client.put_object(Bucket=bucket, Key=key, Body=b"another model")
        say("  put another object over it")
        try:
            arguments = ["audit", "verify", "--from", "archive", "--artifacts", "--lane", str(lane)]
            found(run(arguments, expect_failure=True), "artifact")
        finally:
            store.delete(artifact_uri, version_id=put["VersionId"], bypass_governance=True)
    say("  and removed that version again: the locked one beneath was never touched")
    run(["audit", "verify", "--from", "archive", "--artifacts", "--lane", str(lane)])


def copy_and_flip(settings: Settings, archive: str, folder: Path, lane: int) -> str:
    """Copies a lane's log to a folder and flips a byte in its first entry bundle; returns which."""
    victim: Path | None = None
    with ObjectStore(settings) as store:
        for listed in store.list(f"{archive}/"):
            name = listed.uri.removeprefix(f"{archive}/")
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.get(listed.uri))
            # The newest partial bundle has every entry of a log of less than 256.
            if name.startswith(f"lanes/{lane}/tile/entries/000") and (
                victim is None or path.stat().st_size > victim.stat().st_size
            ):
                victim = path
    if victim is None:
        raise DemoError(f"lane {lane} has no entry bundle in {archive}")
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    return str(victim.relative_to(folder))


def found(output: str, word: str) -> None:
    if word not in output.lower():
        raise DemoError(f"the tampering was refused, but nothing about {word!r} was named")
