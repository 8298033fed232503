"""Makes `.venv` for this repository: pinned packages with hashes, then the repository itself. Standard library alone.

Does nothing when that was done already for the same pins, the same pyproject.toml and the same Python. It touches
nothing outside `.venv`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PINS = ROOT / "requirements" / "dev.txt"
STAMP = VENV / ".set-up"
LEAST = (3, 11)
SAY_AGAIN_SECONDS = 5.0
STARTED = time.monotonic()


def main() -> int:
    if sys.version_info[:2] < LEAST:
        print(f"Python {sys.version.split()[0]} is too old: this needs 3.11 or newer", file=sys.stderr)
        return 1
    wanted = fingerprint()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return 0
    pins = len(re.findall(r"^[a-z0-9].*==", PINS.read_text(), re.MULTILINE))
    say("set-up of .venv, once (one or two minutes; again only when the pinned packages change)")
    try:
        if not runs(PYTHON):
            say("making a virtual environment …")
            shutil.rmtree(VENV, ignore_errors=True)
            venv.create(VENV, with_pip=True, symlinks=True)
        STAMP.unlink(missing_ok=True)
        say(f"installing {pins} pinned packages …")
        pip("--require-hashes", "-r", str(PINS), counted=pins)
        say("installing this repository …")
        pip("--no-deps", "--no-build-isolation", "-e", str(ROOT))
    except subprocess.CalledProcessError as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        if isinstance(error.cmd, list) and "ensurepip" in error.cmd:
            print(
                "this Python makes no virtual environments: install its venv package (Debian: python3-venv)",
                file=sys.stderr,
            )
        return 1
    STAMP.write_text(wanted)
    say("set-up done")
    return 0


def fingerprint() -> str:
    """Changes whenever the set-up has to be done again."""
    parts = [PINS.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), sys.version.encode(), os.fsencode(ROOT)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest() + "\n"


def runs(python: Path) -> bool:
    """Whether this virtual environment works and is of the Python that runs us."""
    if not python.exists():
        return False
    answer = subprocess.run(
        [python, "-c", "import pip, sys; print(sys.version)"], capture_output=True, text=True, check=False
    )
    return answer.returncode == 0 and answer.stdout.strip() == sys.version


def pip(*arguments: str, counted: int = 0) -> None:
    """`pip install`, saying now and then how far it is; everything that it said, when it fails."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", *arguments]
    said: list[str] = []
    collected, last = 0, time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        for line in process.stdout:
            said.append(line)
            collected += line.startswith(("Collecting ", "Requirement already satisfied: "))
            if line.startswith("Installing collected packages"):
                if counted:
                    say("  all fetched; unpacking them …")
                counted = 0  # what follows are lines about what is there
            elif counted and time.monotonic() - last > SAY_AGAIN_SECONDS:
                last = time.monotonic()
                say(f"  {collected} of {counted}")
    if process.returncode != 0:
        sys.stderr.write("".join(said[-40:]))
        raise subprocess.CalledProcessError(process.returncode, "pip install")


def say(line: str) -> None:
    print(f"{time.monotonic() - STARTED:5.0f} s  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
