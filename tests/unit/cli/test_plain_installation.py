"""What an orchestrator installs has no extras: the SDK and the commands that need none must work there."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

_PROGRAM = """
import importlib, json, sys, traceback

import ai_infra.client

EXTRAS = {"boto3", "botocore", "psycopg", "psutil", "numpy", "onnx", "sklearn"}
loaded = sorted(EXTRAS & set(sys.modules))

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
failed = {}
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
    except Exception:
        failed[module] = traceback.format_exc()
print(json.dumps({"loaded": loaded, "failed": failed}))
"""
COMMANDS = (
    *(f"ai_infra.cli.{name}" for name in ("status", "vitals", "doctor", "lag")),
    *(f"ai_infra.cli.{name}" for name in ("events", "reading", "causality", "event_text")),
    *(f"ai_infra.cli.{name}" for name in ("job", "promote", "keys", "topics", "dev")),
)


@pytest.fixture(scope="module")
def said() -> Any:
    """By a process that loads the SDK, and then the commands where every extra is missing."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *COMMANDS], capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout)


def test_the_sdk_loads_no_extra(said: Any) -> None:
    assert said["loaded"] == []  # so it needs none either


def test_the_commands_of_who_has_no_extras_need_none(said: Any) -> None:
    assert said["failed"] == {}
