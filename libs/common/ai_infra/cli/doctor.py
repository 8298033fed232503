"""`ai-infra doctor`: is this machine sound, is this configuration sound, does what it points to answer?

It changes nothing. Each finding that is not well says what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from ai_infra.cli.output import Json, note, rows, show, styled
from ai_infra.devstack import Stack
from ai_infra.devstack.diagnosis import Finding, examine_machine
from ai_infra.errors import AiInfraError
from ai_infra.settings import Settings, load_settings

app = typer.Typer(help="Is this machine and this configuration sound?")
TIMEOUT_SECONDS = 5
COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


@app.command()
def doctor(json: Json = False) -> None:
    """Look at tools, disk, ports, settings, keys, and at what the settings point to. Exits with 1 on a problem."""
    findings = [*examine_machine(Path.cwd()), *examine_configuration()]
    problems = [finding for finding in findings if finding.state == "problem"]
    show(findings, json=json, table=lambda: rows(("", "what", "found"), map(_row, findings)))
    note(f"\n{len(problems)} problem{'' if len(problems) == 1 else 's'}." if problems else "\nAll is well.")
    if problems:
        raise typer.Exit(1)


def examine_configuration() -> list[Finding]:
    """The settings of this directory and environment, and everything that they name."""
    try:
        settings = load_settings()
    except AiInfraError as error:
        return [Finding("settings", "problem", str(error), "docs/configuration.md lists every name")]
    findings = [Finding("settings", "ok", f"environment {settings.environment}, {settings.log.lanes} lanes")]
    if not settings.kafka.configured:
        advice = "`ai-infra dev up` starts a stack, or set KAFKA_BOOTSTRAP_SERVERS"
        return [*findings, Finding("Kafka", "note", "no broker is configured", advice)]
    for name, check in {
        "keys": _keys,
        "Kafka": _kafka,
        "database": _database,
        "object store": _object_store,
    }.items():
        findings.append(_finding(name, check, settings))
    return findings


def _finding(name: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding(name, "ok", check(settings))
    except Exception as error:  # noqa: BLE001 - whatever is wrong with what the settings name is a finding
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        stack = Stack()
        down = stack.directory.exists() and not stack.running()
        return Finding(name, "problem", text, "the stack is down: `ai-infra dev up`" if down else "")


def _keys(settings: Settings) -> str:
    roots = settings.keys.roots
    if not roots.is_file():
        raise FileNotFoundError(f"no root keys at {roots}: `ai-infra keys init` makes them")
    return f"root keys at {roots}"


def _kafka(settings: Settings) -> str:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    from ai_infra.bus.kafka.config import unavailable

    admin = AdminClient({**settings.kafka.client_config(), "log_level": 0, "socket.timeout.ms": TIMEOUT_SECONDS * 1000})
    try:
        cluster = admin.list_topics(timeout=TIMEOUT_SECONDS)
    except KafkaException as error:
        raise unavailable(f"asking {settings.kafka.bootstrap_servers} for its topics", error) from None
    brokers = f"{len(cluster.brokers)} broker{'' if len(cluster.brokers) == 1 else 's'}"
    return f"{brokers}, {len(cluster.topics)} topics at {settings.kafka.bootstrap_servers}"


def _database(settings: Settings) -> str:
    import psycopg

    with psycopg.connect(settings.database.url, connect_timeout=TIMEOUT_SECONDS) as connection:
        version = connection.info.server_version // 10000
        return f"Postgres {version} at {connection.info.host}:{connection.info.port}/{connection.info.dbname}"


def _object_store(settings: Settings) -> str:
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=TIMEOUT_SECONDS, read_timeout=TIMEOUT_SECONDS, retries={"total_max_attempts": 1})
    client = boto3.client("s3", config=config, **settings.objects.client_arguments())
    buckets = (settings.objects.models_bucket, settings.objects.archive_bucket, settings.objects.drift_bucket)
    for bucket in buckets:
        client.head_bucket(Bucket=bucket)
    return f"buckets {', '.join(buckets)} at {settings.objects.endpoint_url or 'AWS'}"


def _row(finding: Finding) -> tuple[object, str, str]:
    said = finding.found + (f"\n→ {finding.advice}" if finding.advice else "")
    return styled(finding.state, COLOURS[finding.state]), finding.name, said
