"""Evaluates a registered artifact: downloads it, checks its SHA-256, and runs its ONNX on the images held out.

The split is the training's own (same seed, same share), so no image was seen in training. The artifact is opened as
what it is, a tar with ONNX inside; nothing of it is executed but the graph.
"""

from __future__ import annotations

import gzip
import importlib.util
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from examples.digits.train import evaluate
from sklearn.model_selection import train_test_split

from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings


def evaluate_artifact(settings: Settings, uri: str, sha256: str, *, seed: int = 7) -> dict[str, float]:
    """Metrics by name, accuracy in [0, 1] among them. Raises where the bytes are not those of `sha256`."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "artifact.tar"
        with ObjectStore(settings) as store:
            store.download(uri, archive, expected_sha256=sha256)
        model = Path(folder) / "model.onnx"
        # The one file that is wanted, and its bytes alone: what else a foreign tar has in it never meets the disk.
        with tarfile.open(archive) as tar:
            (member,) = (m for m in tar if m.isfile() and Path(m.name).name == model.name)
            content = tar.extractfile(member)
            assert content is not None
            model.write_bytes(content.read())
        images, labels = held_out(seed)
        return {name: value for name, value in evaluate(model, images, labels).items() if name != "test_images"}


def held_out(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The quarter of scikit-learn's digits that a training with this seed did not see."""
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    with gzip.open(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",")
    images, labels = table[:, :-1].astype(np.float32), table[:, -1].astype(np.int64)
    _, test_x, _, test_y = train_test_split(images, labels, test_size=0.25, random_state=seed, stratify=labels)
    return test_x, test_y
