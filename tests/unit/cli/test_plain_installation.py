"""What an orchestrator installs has no extras: the SDK and the commands that need none must work there."""

from __future__ import annotations

import subprocess
import sys

_WITHOUT_EXTRAS = """
import importlib, sys, traceback

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"boto3", "botocore", "psycopg", "psutil", "numpy", "onnx", "sklearn"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
    except Exception:
        traceback.print_exc()
"""
MODULES = (
    "ai_infra.client",
    *(f"ai_infra.cli.{name}" for name in ("status", "vitals", "doctor", "lag")),
    *(f"ai_infra.cli.{name}" for name in ("events", "reading", "causality", "event_text")),
    *(f"ai_infra.cli.{name}" for name in ("job", "promote", "keys", "topics", "dev")),
)


def test_the_sdk_and_its_commands_need_no_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_EXTRAS, *MODULES], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr == ""
