"""Downloads are made once, whoever asks, and half a download is never taken for a whole one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ai_infra.devstack.cache import cached
from ai_infra.devstack.progress import silent


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_several_set_ups_at_once_fetch_once() -> None:
    fetched: list[Path] = []
    everybody_asks = threading.Barrier(4)

    def fetch(into: Path) -> None:
        fetched.append(into)
        (into / "program").write_text("x")

    def ask(_: int) -> Path:
        everybody_asks.wait(20)
        return cached("tool-1", fetch, progress=silent)

    with ThreadPoolExecutor(4) as pool:
        places = set(pool.map(ask, range(4)))
    assert len(fetched) == 1
    assert [(place / "program").read_text() for place in places] == ["x"]


def test_a_download_that_fails_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    def breaks(into: Path) -> None:
        (into / "half").touch()
        raise ConnectionError

    with pytest.raises(ConnectionError):
        cached("tool-1", breaks, progress=silent)
    assert not [path for path in (tmp_path / "ai-infra").iterdir() if path.is_dir()]
    assert not list(cached("tool-1", lambda into: None, progress=silent).iterdir())
