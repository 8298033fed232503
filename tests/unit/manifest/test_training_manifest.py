"""The training manifest: one spelling, ids that follow from it, and nothing that two readers could read differently."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import examples

from ai_infra.events.generated import DatasetRef
from ai_infra.manifest.code_ref import CodeRef
from ai_infra.manifest.exceptions import BadManifest
from ai_infra.manifest.identity import artifact_id, input_checksum
from ai_infra.manifest.training import MAX_MANIFEST_BYTES, LogRef, TrainingManifest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DATASET = DatasetRef(id="digits", checksum="sha256:" + "b" * 64, version="1", uri="s3://data/digits.npz")


def manifest(**change: Any) -> TrainingManifest:
    fields = {
        "model": "digits",
        "template": "urn:ai-infra:template:python:v1",
        "code_ref": f"git+https://example.com/models@{COMMIT}#digits",
        "container_digest": "sha256:" + "d" * 64,
        "dataset_refs": [DATASET],
        "hyperparams": {"C": 0.5, "layers": [64, 32], "name": "é"},
        "seed": 7,
        "training_cmd": ["python", "train.py"],
        "environment": {"interpreter": "CPython 3.11.7", "threads": 1},
        "metrics": {"accuracy": 0.9722222222222222},
        "logs": [LogRef("stdout", "s3://models/log", "e" * 64)],
        "artifact_uri": "s3://models/a.tar",
        "artifact_sha256": "c" * 64,
        "artifact_bytes": 12_345,
        "training_job_id": "01234567-89ab-7def-8123-456789abcdef",
        "parent_artifacts": [],
        "created_at": datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC),
    }
    return TrainingManifest.of(**(fields | change))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcé", max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=examples(50))
@given(st.dictionaries(st.text("abcé", max_size=6), JSON, max_size=6), st.integers(0, 2**53 - 1))
def test_every_manifest_reads_back_and_keeps_its_bytes(hyperparams: dict[str, Any], seed: int) -> None:
    written = manifest(hyperparams=hyperparams, metrics=hyperparams, seed=seed)
    read = TrainingManifest.from_bytes(written.to_bytes())
    assert read == written
    assert read.to_bytes() == written.to_bytes()
    assert not read.problems()


@pytest.mark.parametrize("number", [1e17, 2.0**53, -1e20, 1e21, 5e-324, -0.0, 1.0])
def test_a_number_survives_whatever_its_size(number: float) -> None:
    written = manifest(hyperparams={"number": number})
    assert TrainingManifest.from_bytes(written.to_bytes()).to_bytes() == written.to_bytes()
    assert TrainingManifest.from_bytes(written.to_bytes()).hyperparams["number"] == number


def test_the_same_bytes_for_the_same_model_are_the_same_artifact() -> None:
    assert manifest(seed=1).artifact_id == manifest(seed=2).artifact_id
    assert manifest(model="other").artifact_id != manifest().artifact_id
    assert manifest(artifact_sha256="a" * 64).artifact_id != manifest().artifact_id
    with pytest.raises(BadManifest):
        artifact_id("digits", "C" * 64)


def test_any_changed_input_changes_the_input_checksum_and_nothing_else_does() -> None:
    base = manifest().input_checksum
    for change in (
        {"seed": 8},
        {"container_digest": None},
        {"hyperparams": {}},
        {"dataset_refs": []},
        {"code_ref": "sha256:" + "a" * 64},
    ):
        assert manifest(**change).input_checksum != base
    assert manifest(metrics={}, environment={}, artifact_uri="s3://models/b", logs=[]).input_checksum == base


def test_an_outside_worker_computes_the_input_checksum_with_printf_and_sha256sum() -> None:
    known = manifest()
    lines = [
        known.code_ref,
        known.container_digest or "",
        rfc8785.dumps(dict(known.hyperparams)).decode(),
        rfc8785.dumps([{"id": "digits", "checksum": DATASET.checksum, "version": "1", "uri": DATASET.uri}]).decode(),
        "7",
    ]
    said = subprocess.run(
        ["sh", "-c", "printf '%s\\n' \"$@\" | sha256sum", "sh", *lines], capture_output=True, check=True
    )
    assert said.stdout.decode().split()[0] == known.input_checksum


def test_an_input_checksum_has_no_two_readings() -> None:
    with pytest.raises(BadManifest):
        input_checksum(code_ref="a\nb", container_digest=None, hyperparams={}, dataset_refs=[], seed=0)


def document(**change: Any) -> bytes:
    return rfc8785.dumps(manifest().to_json() | change)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        manifest().to_bytes() + b"\n",
        json.dumps(manifest().to_json()).encode(),
        manifest().to_bytes().replace(b'"seed":7', b'"seed":7.0'),
        manifest().to_bytes().replace(b'"seed":7', b'"seed":7,"seed":7'),
        manifest().to_bytes().replace(b'"seed":7', b'"seed":NaN'),
        manifest().to_bytes().replace("é".encode(), b"\\u00e9"),
        manifest().to_bytes().replace("é".encode(), b"\\u0000"),
        manifest().to_bytes().replace("é".encode(), b"\\ud800"),
        manifest().to_bytes().replace("é".encode(), b"\xed\xa0\x80"),
        b"[" * 100_000,
        manifest().to_bytes().replace(b'"seed":7', b'"seed":9007199254740993'),
        manifest().to_bytes().replace(b'"seed":7', b'"seed":1' + b"0" * 400),
        manifest().to_bytes().replace(b'"seed":7', b'"seed":1' + b"0" * 5000),
        manifest().to_bytes().replace(b'"seed":7', b'"seed":1e999'),
        document(manifestVersion=2),
        document(surprise=1),
        document(hyperParams={}),
        rfc8785.dumps({k: v for k, v in manifest().to_json().items() if k != "seed"}),
        document(seed=-1),
        document(seed=True),
        document(seed="7"),
        document(artifactBytes=-1),
        document(model="../digits"),
        document(model="digits\n"),
        document(codeRef="git+https://example.com/models@main"),
        document(codeRef=f"git+https://user:secret@example.com/models@{COMMIT}"),
        document(codeRef=f"git+https://example.com/models@{COMMIT}#../../etc"),
        document(codeRef=f"git+ssh://example.com/models@{COMMIT}"),
        document(containerDigest="python:3.11"),
        document(containerDigest=""),
        document(artifactSha256="C" * 64),
        document(artifactId="digits"),
        document(datasetRefs=[{"id": "digits"}]),
        document(datasetRefs=[{"id": "d", "checksum": "b" * 64, "version": "1", "uri": "u"}]),
        document(datasetRefs=[{"id": "d", "checksum": "sha256:" + "b" * 64, "version": "1", "uri": "u", "x": 1}]),
        document(datasetRefs=[manifest().to_json()["datasetRefs"][0]] * 65),
        document(trainingCmd=[1]),
        document(trainingCmd="python train.py"),
        document(environment=[]),
        document(createdAt="2026-01-02"),
        document(createdAt="2026-01-02T03:04:05+01:00"),
        document(createdAt="2026-13-02T03:04:05Z"),
        b" " * (MAX_MANIFEST_BYTES + 1),
    ],
)
def test_what_is_not_a_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(BadManifest):
        TrainingManifest.from_bytes(data)


def test_a_manifest_that_contradicts_itself_says_every_contradiction() -> None:
    lying = TrainingManifest.from_bytes(document(artifactId="0" * 8 + "-0000-5000-8000-" + "0" * 12, seed=8))
    assert [reason.code for reason in lying.problems()] == ["manifest_artifact_id", "manifest_input_checksum"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, "\ud800", b"bytes", object()])
def test_what_has_no_canonical_form_is_never_written(value: Any) -> None:
    with pytest.raises(BadManifest):
        manifest(metrics={"value": value})


def test_a_code_reference_names_repository_commit_and_path_or_an_image() -> None:
    code = CodeRef.parse(f"git+file:///srv/models@{COMMIT}#digits/small")
    assert (code.url, code.commit, code.path) == ("file:///srv/models", COMMIT, "digits/small")
    assert CodeRef.parse(f"git+https://example.com/models@{COMMIT}").path == ""
    assert CodeRef.parse("sha256:" + "a" * 64).image_digest == "sha256:" + "a" * 64
