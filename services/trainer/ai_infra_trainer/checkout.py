"""The code of a job: the tree of one exact commit of an allowed repository, and nothing of the repository around it.

Never runs anything that comes with the repository (hooks, filters, submodules, external transports), and never asks for
or sends a credential of this machine.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

from ai_infra.manifest.code_ref import CodeRef
from ai_infra.manifest.exceptions import BadManifest
from ai_infra_trainer.disk import on_disk
from ai_infra_trainer.exceptions import Cancelled, CodeMismatch, RunnerUnavailable

_PLAIN_URL: Final = re.compile(r"^(?:https://[A-Za-z0-9.-]+(?::[0-9]+)?|file://)(?:/[A-Za-z0-9._~+-]+)+/?$")
_PLAIN_PATH: Final = re.compile(r"^[A-Za-z0-9._@+-]+(?:/[A-Za-z0-9._@+-]+)*$")

FETCH_TIMEOUT_SECONDS: Final = 600.0
MAX_CODE_BYTES: Final = 8 << 30
"""History and files of the commit together: a few kilobytes can name trees with billions of files."""
MAX_GIT_MEMORY_BYTES: Final = 4 << 30
_UNREACHABLE: Final = re.compile(
    r"could not resolve|unable to access|timed out|connection|early eof|remote end hung up|returned error: 5\d\d", re.I
)


def parse_code_ref(text: str) -> CodeRef:
    """Parse `git+https://host/repo@<commit>#<path>`, `git+file:///repo@<commit>#<path>` or `sha256:<64 hex>`.

    Raises CodeMismatch, saying what is wrong, for short commits, branch names, credentials, `..` and anything else.
    """
    try:
        ref = CodeRef.parse(text)
    except BadManifest as error:
        raise CodeMismatch(str(error), code="bad_code_ref") from error
    if ref.url is not None and (not _PLAIN_URL.match(ref.url) or ".." in ref.url.split("/")):
        raise CodeMismatch(
            f"repository {ref.url[:200]!r}: a plain address, without user, query or '..'", code="bad_code_ref"
        )
    if ref.path and (not _PLAIN_PATH.match(ref.path) or ".git" in ref.path.split("/")):
        raise CodeMismatch(f"path {ref.path[:200]!r} is no plain path in a repository", code="bad_code_ref")
    return ref


def allowed(url: str, repositories: tuple[str, ...]) -> bool:
    """Whether a repository URL is on the allow-list: an entry names one repository, or (as a path prefix) all below it.

    `git+` and a trailing `/`, `/*` or `.git` make no difference. An empty list allows nothing.
    """
    wanted = _plain(url)
    return any(wanted == entry or wanted.startswith(entry + "/") for entry in map(_plain, repositories) if entry)


def _plain(url: str) -> str:
    return url.strip().removeprefix("git+").removesuffix("*").rstrip("/").removesuffix(".git").rstrip("/")


def checkout(
    ref: CodeRef, into: Path, *, repositories: tuple[str, ...], scratch: Path, cancelled: threading.Event
) -> Path:
    """Put the tree of `ref.commit` into the directory `into` (made here); returns the directory that `#path` names.

    `scratch` is an empty directory for git's own use. Raises CodeMismatch (final), RunnerUnavailable (worth another
    try) or Cancelled.
    """
    if ref.url is None or ref.commit is None:
        into.mkdir()
        return into
    url = _local_truth(ref.url, repositories)
    git = _Git(scratch, into, cancelled)
    git.run("init", "--quiet", "--bare", f"--object-format={'sha256' if len(ref.commit) == 64 else 'sha1'}", "repo")
    fetched = git.run("fetch", "--quiet", "--depth=1", "--no-tags", url, ref.commit, check=False)
    if fetched.returncode != 0:
        # Some servers give out only what a branch or tag reaches: then take those, and look for the commit in them.
        fetched = git.run(
            "fetch", "--quiet", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", check=False
        )
        if fetched.returncode != 0:
            raise _fetch_error(ref.url, fetched.stderr)
    found = git.run("rev-parse", "--verify", "--quiet", f"{ref.commit}^{{commit}}", check=False).stdout.strip()
    if found != ref.commit:
        raise CodeMismatch(f"commit {ref.commit} is not in {ref.url}; push it, or name one that is there")
    into.mkdir()
    git.run(f"--work-tree={into}", "checkout", "--quiet", "--force", ref.commit, "--", ".")
    shutil.rmtree(scratch / "repo")
    directory = into / ref.path
    if not directory.is_dir() or directory.is_symlink() or into.resolve() not in (p := directory.resolve(), *p.parents):
        raise CodeMismatch(f"{ref.url} at {ref.commit} has no directory {ref.path!r}")
    return directory


def _local_truth(url: str, repositories: tuple[str, ...]) -> str:
    """The URL to fetch from; a local one by its real path, which must be allowed too (a link could lead elsewhere)."""
    if not url.startswith("file://"):
        return url
    real = "file://" + os.path.realpath(url.removeprefix("file://"))
    real_entries = tuple(
        "file://" + os.path.realpath(_plain(entry).removeprefix("file://"))
        for entry in repositories
        if _plain(entry).startswith("file://")
    )
    if not allowed(real, (*repositories, *real_entries)):
        raise CodeMismatch(f"{url} leads to {real}, which is not an allowed repository", code="repository_not_allowed")
    return real


def _fetch_error(url: str, stderr: str) -> Exception:
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "no message")[:300]
    if _UNREACHABLE.search(stderr):
        return RunnerUnavailable(f"{url} does not answer: {last}", code="code_unavailable")
    return CodeMismatch(f"{url} cannot be read: {last}")


class _Git:
    """git with nothing of this machine's configuration, credentials or hooks."""

    def __init__(self, scratch: Path, into: Path, cancelled: threading.Event) -> None:
        self._scratch = scratch
        self._into = into
        self._cancelled = cancelled
        config = scratch / "gitconfig"
        # `safe.directory`: an allowed local repository may belong to another user than this process.
        config.write_text(
            "[safe]\n\tdirectory = *\n[core]\n\thooksPath = /dev/null\n\tautocrlf = false\n\tsymlinks = true\n"
            '[protocol]\n\tallow = never\n[protocol "https"]\n\tallow = always\n[protocol "file"]\n\tallow = always\n'
            "[protocol]\n\tversion = 2\n[http]\n\tfollowRedirects = false\n[init]\n\tdefaultBranch = main\n"
            "[advice]\n\tdetachedHead = false\n[gc]\n\tauto = 0\n",
            encoding="utf-8",
        )
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(scratch),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(config),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_HTTP_LOW_SPEED_LIMIT": "1000",
            "GIT_HTTP_LOW_SPEED_TIME": "30",
        }

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run git to its end, or until the work is cancelled or takes too long."""
        where = [] if arguments[0] == "init" else [f"--git-dir={self._scratch / 'repo'}"]
        process = subprocess.Popen(
            ["git", *where, *arguments],
            cwd=self._scratch,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (MAX_GIT_MEMORY_BYTES, MAX_GIT_MEMORY_BYTES))
        begin = time.monotonic()
        look = begin
        while True:
            try:
                out, err = process.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                now = time.monotonic()
                too_large = False
                if now >= look:
                    too_large = on_disk(self._scratch) + on_disk(self._into) > MAX_CODE_BYTES
                    look = now + 10 * (
                        time.monotonic() - now
                    )  # to look costs a small share of the time, not most of it
                if too_large or self._cancelled.is_set() or now - begin > FETCH_TIMEOUT_SECONDS:
                    os.killpg(process.pid, 9)
                    process.communicate()
                    if self._cancelled.is_set():
                        raise Cancelled("the job was cancelled while its code was fetched") from None
                    if too_large:
                        raise CodeMismatch(
                            f"the code takes more than {MAX_CODE_BYTES} bytes (4096 for each file among it); put data"
                            " into a dataset",
                            code="code_too_large",
                        ) from None
                    raise RunnerUnavailable(
                        f"git {arguments[0]} took more than {FETCH_TIMEOUT_SECONDS:.0f} s", code="code_unavailable"
                    ) from None
        if check and process.returncode != 0:
            raise CodeMismatch(f"git {arguments[0]} failed: {err.strip()[-300:]}")
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)
