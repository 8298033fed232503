"""Provenance: what a builder signs fits into a KMS, says what the manifest says, and is caught where it does not."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey
from tests.properties import examples

from ai_infra.events.generated import DatasetRef
from ai_infra.manifest.dsse import MAX_SIGNED_BYTES, Envelope, sign_envelope, signed_size
from ai_infra.manifest.exceptions import BadEnvelopeSignature, BadStatement, StatementTooLarge
from ai_infra.manifest.provenance import Provenance, Run, disagreements, open_provenance, provenance_statement
from ai_infra.manifest.training import LogRef, TrainingManifest

KEY = SigningKey(b"\1" * 32)
PUBLIC = bytes(KEY.verify_key)
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 1, 2, 345_000, UTC)
RUN = Run(builder_id="urn:ai-infra:trainer", started_on=START, finished_on=END, manifest_uri="s3://models/manifest")
JOB = "01234567-89ab-7def-8123-456789abcdef"


def sign(message: bytes) -> bytes:
    return KEY.sign(message).signature


def manifest(**change: Any) -> TrainingManifest:
    fields = {
        "model": "digits",
        "template": "urn:ai-infra:template:python:v1",
        "code_ref": "git+https://example.com/models@" + "1" * 40 + "#digits",
        "container_digest": "sha256:" + "d" * 64,
        "dataset_refs": [dataset(0)],
        "hyperparams": {"C": 0.5},
        "seed": 7,
        "training_cmd": ["python", "train.py"],
        "environment": {},
        "metrics": {"accuracy": 0.97},
        "logs": [LogRef("stdout", "s3://models/log", "e" * 64)],
        "artifact_uri": "s3://models/a.tar",
        "artifact_sha256": "c" * 64,
        "artifact_bytes": 12_345,
        "training_job_id": JOB,
        "parent_artifacts": ["0" * 8 + "-0000-5000-8000-" + "0" * 12],
        "created_at": END,
    }
    return TrainingManifest.of(**(fields | change))


def dataset(number: int) -> DatasetRef:
    return DatasetRef(id=f"set-{number}", checksum="sha256:" + f"{number:064x}", version="1", uri=f"s3://data/{number}")


def opened(about: TrainingManifest) -> Provenance:
    envelope = provenance_statement(about, RUN).sign(sign, "trainer-1", public_key=PUBLIC)
    return open_provenance(Envelope.parse(envelope.to_text()), PUBLIC)


def test_provenance_says_who_built_what_from_which_manifest() -> None:
    known = manifest()
    found = opened(known)
    assert found.builder_id == RUN.builder_id
    assert found.build_type == known.template
    assert found.artifact_sha256 == known.artifact_sha256
    assert found.manifest_sha256 == known.sha256
    assert (found.invocation_id, found.started_on, found.finished_on) == (JOB, START, END)
    assert disagreements(found, known, known.sha256) == ()


def test_the_statement_is_slsa_provenance_as_the_table_says() -> None:
    value = json.loads(provenance_statement(manifest(), RUN).to_bytes())
    assert value["_type"] == "https://in-toto.io/Statement/v1"
    assert value["predicateType"] == "https://slsa.dev/provenance/v1"
    assert value["subject"] == [{"name": "digits", "digest": {"sha256": "c" * 64}}]
    definition = value["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {
        "hyperparams": {"C": 0.5},
        "seed": 7,
        "trainingCmd": ["python", "train.py"],
    }
    dependencies = {item["name"]: item for item in definition["resolvedDependencies"]}
    assert dependencies["code"]["digest"] == {"gitCommit": "1" * 40}
    assert dependencies["container"]["digest"] == {"sha256": "d" * 64}
    assert dependencies["dataset"]["annotations"] == {"id": "set-0", "version": "1"}
    details = value["predicate"]["runDetails"]
    assert details["metadata"]["startedOn"] == "2026-01-01T00:00:00.000Z"
    assert [item["name"] for item in details["byproducts"]] == ["manifest", "metrics", "log:stdout"]


LONG = {
    "dataset_refs": [dataset(number) for number in range(64)],
    "logs": [LogRef(f"log-{number}", f"s3://models/{number}", "e" * 64) for number in range(64)],
    "parent_artifacts": [f"{number:08x}-0000-5000-8000-000000000000" for number in range(64)],
    "training_cmd": ["python", "train.py", *(f"--option-{number}=value" for number in range(200))],
    "hyperparams": {f"parameter-{number}": number / 7 for number in range(200)},
}


@settings(max_examples=examples(15))
@given(st.sets(st.sampled_from(sorted(LONG))))
def test_whatever_is_long_the_statement_can_be_signed_and_still_agrees(long: set[str]) -> None:
    known = manifest(**{name: LONG[name] for name in long})
    statement = provenance_statement(known, RUN)
    assert signed_size(statement.to_bytes()) <= MAX_SIGNED_BYTES
    assert disagreements(opened(known), known, known.sha256) == ()


def test_what_does_not_fit_even_by_digest_is_refused_with_advice() -> None:
    with pytest.raises(StatementTooLarge, match="shorten"):
        provenance_statement(manifest(), dataclasses.replace(RUN, manifest_uri="s3://models/" + "x" * 4096))


@pytest.mark.parametrize("long", [{}, LONG], ids=["short", "by digest"])
@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({"artifact_sha256": "a" * 64}, ["provenance_artifact", "provenance_manifest"]),
        ({"template": "urn:other"}, ["provenance_manifest", "provenance_template"]),
        ({"training_job_id": JOB[:-1] + "0"}, ["provenance_manifest", "provenance_job"]),
        ({"hyperparams": {"C": 0.6}}, ["provenance_manifest", "provenance_hyperparams"]),
        ({"training_cmd": ["sh"]}, ["provenance_manifest", "provenance_trainingcmd"]),
        ({"seed": 8}, ["provenance_manifest", "provenance_seed"]),
        ({"code_ref": "sha256:" + "1" * 64}, ["provenance_manifest", "provenance_code"]),
        ({"container_digest": None}, ["provenance_manifest", "provenance_container"]),
        ({"dataset_refs": [dataset(1)]}, ["provenance_manifest", "provenance_dataset"]),
        ({"dataset_refs": []}, ["provenance_manifest", "provenance_dataset"]),
        ({"parent_artifacts": []}, ["provenance_manifest", "provenance_parent"]),
        ({"metrics": {"accuracy": 0.98}}, ["provenance_manifest", "provenance_metrics"]),
    ],
)
def test_each_difference_from_the_manifest_is_named(
    long: dict[str, Any], change: dict[str, Any], codes: list[str]
) -> None:
    other = manifest(**(long | change))
    found = disagreements(opened(manifest(**long)), other, other.sha256)
    assert [reason.code for reason in found] == codes
    assert all(len(reason.detail) < 1000 for reason in found)


def test_a_manifest_swapped_for_one_that_says_the_same_is_still_found() -> None:
    found = disagreements(opened(manifest()), manifest(), "0" * 64)
    assert [reason.code for reason in found] == ["provenance_manifest"]


def test_provenance_by_another_key_is_refused() -> None:
    envelope = provenance_statement(manifest(), RUN).sign(sign, "trainer-1")
    with pytest.raises(BadEnvelopeSignature):
        open_provenance(envelope, bytes(SigningKey(b"\2" * 32).verify_key))


def spoiled(change: Any) -> Envelope:
    value = json.loads(provenance_statement(manifest(), RUN).to_bytes())
    change(value)
    return sign_envelope(json.dumps(value).encode(), sign, "trainer-1")


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("predicate"),
        lambda value: value.update(predicate=7),
        lambda value: value["subject"].append(value["subject"][0]),
        lambda value: value["predicate"].pop("buildDefinition"),
        lambda value: value["predicate"].update(buildDefinition=[]),
        lambda value: value["predicate"].pop("runDetails"),
        lambda value: value["predicate"]["runDetails"].pop("builder"),
        lambda value: value["predicate"]["runDetails"]["builder"].update(id=1),
        lambda value: value["predicate"]["runDetails"].pop("byproducts"),
        lambda value: value["predicate"]["runDetails"].update(byproducts=["manifest"]),
        lambda value: value["predicate"]["runDetails"].update(byproducts=[]),
        lambda value: value["predicate"]["runDetails"]["byproducts"].append({"name": "manifest"}),
        lambda value: value["predicate"]["runDetails"]["byproducts"][0].update(digest={"sha256": "x"}),
        lambda value: value["predicate"]["runDetails"]["metadata"].update(startedOn="yesterday"),
    ],
)
def test_signed_bytes_that_are_no_provenance_are_refused(change: Any) -> None:
    with pytest.raises(BadStatement):
        open_provenance(spoiled(change), PUBLIC)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["predicate"]["buildDefinition"].update(externalParameters=7),
        lambda value: value["predicate"]["buildDefinition"].update(externalParameters={"hyperparams": 2**60}),
        lambda value: value["predicate"]["buildDefinition"].update(resolvedDependencies={}),
    ],
)
def test_an_outside_builders_odd_statement_disagrees_and_breaks_nothing(change: Any) -> None:
    assert disagreements(open_provenance(spoiled(change), PUBLIC), manifest(), manifest().sha256)


def test_an_outside_builder_may_say_more_than_we_ask() -> None:
    def more(value: Any) -> None:
        value["predicate"]["runDetails"]["builder"]["version"] = {"worker": "9"}
        value["predicate"]["buildDefinition"]["internalParameters"] = {"pool": "gpu"}
        value["predicate"]["buildDefinition"]["resolvedDependencies"].append({"name": "base", "uri": "oci://x"})
        value["predicate"]["runDetails"]["metadata"]["startedOn"] = "2026-01-01T00:00:00Z"

    found = open_provenance(spoiled(more), PUBLIC)
    assert found.started_on == START
    assert disagreements(found, manifest(), manifest().sha256) == ()
