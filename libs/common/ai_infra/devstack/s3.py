"""A real S3 server with versions and Object Lock: Versity's gateway on a plain directory."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Final

from ai_infra.devstack.cache import cache_directory, cached
from ai_infra.devstack.exceptions import ToolMissing
from ai_infra.devstack.part import Tool
from ai_infra.devstack.ports import HOST
from ai_infra.devstack.processes import Launch
from ai_infra.devstack.progress import Progress, run_with_progress

VERSION: Final = "v1.8.0"
MODULE: Final = "github.com/versity/versitygw/cmd/versitygw"
REGION: Final = "us-east-1"
HEALTH: Final = "/health"  # shadows a bucket of that name, which nobody has


class S3:
    """The object store. Port: `s3`. Its root key is made up for the stack."""

    name = "s3"
    listens: tuple[str, ...] = ("s3",)
    start_seconds = 30.0
    stop_signal: int = signal.SIGTERM
    stop_seconds = 10.0

    def __init__(self, directory: Path, access_key: str, secret_key: str) -> None:
        self.directory = directory / "s3"
        self.access_key = access_key
        self.secret_key = secret_key

    def tools(self) -> tuple[Tool, ...]:
        if self._program_directory().is_dir():
            return ()
        return (Tool("Go", shutil.which("go"), "install Go, 1.24 or newer: it builds the S3 server once"),)

    def prepare(self, progress: Progress) -> None:
        for tool in self.tools():
            if tool.missing:
                raise ToolMissing(f"S3 needs {tool.name}: {tool.advice}")

        def fetch(into: Path) -> None:
            run_with_progress(
                ["go", "install", f"{MODULE}@{VERSION}"],
                what=f"building the S3 server versitygw {VERSION} (a minute or two, once)",
                progress=progress,
                output=into / "fetch.log",
                cwd=into,
                env={"GOBIN": str(into / "bin")},
            )

        cached(self._program_directory().name, fetch, progress=progress)
        for part in ("objects", "versions", "metadata"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)

    def launch(self, ports: dict[str, int]) -> Launch:
        program = str(self._program_directory() / "bin" / "versitygw")
        server = [program, "--port", f"{HOST}:{ports['s3']}", "--region", REGION, "--health", HEALTH, "--quiet"]
        store = ["posix", "--versioning-dir", str(self.directory / "versions")]
        if not _has_attributes(self.directory / "metadata"):
            store += ["--sidecar", str(self.directory / "metadata")]
        secrets = {"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("VGW_", "ROOT_"))}
        return Launch([*server, *store, str(self.directory / "objects")], environment | secrets, self.directory)

    def ready(self, ports: dict[str, int]) -> bool:
        import httpx

        try:
            return httpx.get(f"http://{HOST}:{ports['s3']}{HEALTH}", timeout=2, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def data(self) -> tuple[Path, ...]:
        return (self.directory,)

    @staticmethod
    def _program_directory() -> Path:
        return cache_directory() / f"versitygw-{VERSION}"


def _has_attributes(directory: Path) -> bool:
    """Whether the file system keeps extended attributes, where the server writes what S3 knows of an object."""
    probe = directory / ".probe"
    try:
        probe.touch()
        os.setxattr(probe, "user.ai-infra", b"1")
    except (OSError, AttributeError):
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True
