"""What was measured on: processor, versions, and how busy others kept the machine."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import confluent_kafka
import psycopg
from nacl.bindings import sodium_init

from ai_infra.settings import Settings


def describe(settings: Settings) -> dict[str, Any]:
    """Facts about this machine and the running stack."""
    sodium_init()
    with psycopg.connect(settings.database.url) as connection:
        row = connection.execute("SHOW server_version").fetchone()
        fsync = connection.execute("SHOW fsync").fetchone()
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "confluent_kafka": version("confluent-kafka"),
        "librdkafka": confluent_kafka.libversion()[0],
        "pynacl": version("pynacl"),
        "postgres": row[0] if row else "",
        "postgres_fsync": fsync[0] if fsync else "",
        "lanes": settings.log.lanes,
        "load_average": load(),
    }


def load() -> list[float]:
    """Runnable processes over the last 1, 5 and 15 minutes: more than there are cores, and figures suffer."""
    return [round(x, 1) for x in os.getloadavg()]


def in_words(facts: dict[str, Any]) -> str:
    return (
        f"{facts['cores']} cores ({facts['cpu']}), {facts['system']}, Python {facts['python']}, "
        f"confluent-kafka {facts['confluent_kafka']}, librdkafka {facts['librdkafka']}, PyNaCl {facts['pynacl']}, "
        f"Postgres {facts['postgres']} (fsync {facts['postgres_fsync']}), {facts['lanes']} lanes, "
        f"load average {facts['load_average'][0]} at the start"
    )


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or "unknown"
