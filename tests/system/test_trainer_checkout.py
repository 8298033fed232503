"""Code comes from one exact commit of an allowed repository, and nothing that comes with it is run."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
from tests.repositories import git, make_repository

from ai_infra_trainer.checkout import allowed, checkout, parse_code_ref
from ai_infra_trainer.exceptions import Cancelled, CodeMismatch

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    (root / "job").mkdir(parents=True)
    (root / "job" / "train.py").write_text("print('one')\n")
    make_repository(root)
    return root


def take(repository: Path, tmp_path: Path, commit: str, path: str = "job", *, allow: str | None = None) -> Path:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    ref = parse_code_ref(f"git+file://{repository}@{commit}#{path}")
    entries = (allow or f"git+file://{repository}",)
    return checkout(ref, tmp_path / "code", repositories=entries, scratch=scratch, cancelled=threading.Event())


def test_the_tree_is_that_of_the_commit_and_not_of_the_branch(repository: Path, tmp_path: Path) -> None:
    first = git(repository, "rev-parse", "HEAD")
    (repository / "job" / "train.py").write_text("print('two')\n")
    git(repository, "commit", "-q", "-a", "-m", "two")
    directory = take(repository, tmp_path, first)
    assert (directory / "train.py").read_text() == "print('one')\n"
    assert not (tmp_path / "code" / ".git").exists()


def test_uncommitted_changes_never_reach_a_training(repository: Path, tmp_path: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "job" / "train.py").write_text("print('not committed')\n")
    assert (take(repository, tmp_path, commit) / "train.py").read_text() == "print('one')\n"


def test_a_commit_that_is_not_there_is_named(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(CodeMismatch, match=f"commit {COMMIT} is not in"):
        take(repository, tmp_path, COMMIT)


def test_a_path_that_is_not_there_is_named(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(CodeMismatch, match="no directory 'other'"):
        take(repository, tmp_path, git(repository, "rev-parse", "HEAD"), "other")


def test_a_path_that_leads_out_by_a_link_is_refused(repository: Path, tmp_path: Path) -> None:
    (repository / "out").symlink_to("/etc")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "link")
    with pytest.raises(CodeMismatch, match="no directory 'out'"):
        take(repository, tmp_path, git(repository, "rev-parse", "HEAD"), "out")


def test_a_link_to_a_repository_that_is_not_allowed_is_followed_and_refused(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "link").symlink_to(repository)
    commit = git(repository, "rev-parse", "HEAD")
    with pytest.raises(CodeMismatch) as refused:
        take(tmp_path / "allowed" / "link", tmp_path, commit, allow=f"git+file://{tmp_path}/allowed/*")
    assert refused.value.code == "repository_not_allowed"


def test_a_filter_of_the_repository_is_not_run(repository: Path, tmp_path: Path) -> None:
    (repository / ".gitattributes").write_text("* filter=evil\n")
    git(repository, "config", "filter.evil.smudge", f"touch {tmp_path}/ran; cat")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "filter")
    (tmp_path / "ran").unlink(missing_ok=True)
    take(repository, tmp_path, git(repository, "rev-parse", "HEAD"))
    assert not (tmp_path / "ran").exists()


def test_a_few_kilobytes_that_unpack_to_millions_of_files_are_refused(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashed(lines: str, *command: str) -> str:
        done = subprocess.run(
            ["git", *command], cwd=repository, input=lines, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    tree = hashed(
        "".join(f"100644 blob {hashed('x', 'hash-object', '-w', '--stdin')}\tf{i}\n" for i in "123"), "mktree"
    )
    for _ in range(10):
        tree = hashed("".join(f"040000 tree {tree}\td{i}\n" for i in "123"), "mktree")
    commit = git(repository, "commit-tree", tree, "-m", "bomb")
    git(repository, "update-ref", "refs/heads/bomb", commit)
    monkeypatch.setattr("ai_infra_trainer.checkout.MAX_CODE_BYTES", 4 << 20)
    with pytest.raises(CodeMismatch) as refused:
        take(repository, tmp_path, commit, "d1")
    assert refused.value.code == "code_too_large"


def test_a_cancelled_checkout_ends(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (binaries / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}:/usr/bin:/bin")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    cancelled = threading.Event()
    cancelled.set()
    ref = parse_code_ref(f"git+file://{repository}@{COMMIT}")
    with pytest.raises(Cancelled):
        checkout(ref, tmp_path / "code", repositories=(f"file://{repository}",), scratch=scratch, cancelled=cancelled)


@pytest.mark.parametrize(
    "text",
    [
        "git+https://host/repo@main",
        "git+https://host/repo@0123abc",
        f"git+ssh://git@host/repo@{COMMIT}",
        f"git+https://user:password@host/repo@{COMMIT}",
        f"git+https://host/a/../repo@{COMMIT}",
        f"git+file://relative/repo@{COMMIT}",
        f"git+https://host/repo@{COMMIT}#../up",
        f"git+https://host/repo@{COMMIT}#.git/hooks",
        f"ext::sh -c evil@{COMMIT}",
        "sha256:0123",
        "",
    ],
)
def test_what_does_not_pin_code_is_refused(text: str) -> None:
    with pytest.raises(CodeMismatch):
        parse_code_ref(text)


def test_an_image_digest_is_code_without_a_repository() -> None:
    ref = parse_code_ref("sha256:" + "a" * 64)
    assert ref.url is None
    assert ref.image_digest == "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("url", "entry", "expected"),
    [
        ("https://host/ml/one", "git+https://host/ml/*", True),
        ("https://host/ml/one", "git+https://host/ml", True),
        ("https://host/ml/one.git", "https://host/ml/one", True),
        ("https://host/mlops/one", "git+https://host/ml", False),
        ("https://host/ml", "git+https://host/ml/one", False),
        ("https://host.evil/ml/one", "https://host", False),
        ("https://host/ml/one", "", False),
    ],
)
def test_the_allow_list_ends_at_path_boundaries(url: str, entry: str, expected: bool) -> None:
    assert allowed(url, (entry,)) is expected
