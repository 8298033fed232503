"""What an orchestrator installs has no extras: the SDK and the commands that need none must work there."""

from __future__ import annotations

import subprocess
import sys

import pytest

_WITHOUT_EXTRAS = """
import importlib, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"boto3", "botocore", "psycopg", "psutil", "numpy", "onnx", "sklearn"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
for module in sys.argv[1:]:
    importlib.import_module(module)
"""


@pytest.mark.parametrize(
    "modules",
    [
        ("ai_infra.client",),
        ("ai_infra.cli.status", "ai_infra.cli.vitals", "ai_infra.cli.doctor", "ai_infra.cli.lag"),
        ("ai_infra.cli.events", "ai_infra.cli.reading", "ai_infra.cli.causality", "ai_infra.cli.event_text"),
        ("ai_infra.cli.job", "ai_infra.cli.promote", "ai_infra.cli.keys", "ai_infra.cli.topics", "ai_infra.cli.dev"),
    ],
)
def test_the_sdk_and_its_commands_need_no_extra(modules: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_EXTRAS, *modules], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
