"""What an orchestrator installs: the SDK runs without a database driver, an object store's client or numpy."""

from __future__ import annotations

import subprocess
import sys


def test_the_sdk_loads_neither_boto3_nor_psycopg_nor_numpy() -> None:
    code = (
        "import sys, ai_infra.client; print([m for m in ('boto3', 'botocore', 'psycopg', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
