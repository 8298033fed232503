"""The commands for people and scripts about artifacts and promotions, as they are typed, with the real services."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.promoting import Registry, evaluate, outside_registry, promote

from ai_infra.cli.main import main
from ai_infra.client import Client
from ai_infra.devstack import Stack
from ai_infra.devstack.waiting import wait_until
from ai_infra.readmodel import ReadModel, connect
from ai_infra.settings import Settings

Run = Callable[..., Any]
SERVICES = ("promoter", "canary", "indexer")


@pytest.fixture(scope="module")
def registry(stack: Stack, settings: Settings) -> Iterator[Registry]:
    for service in SERVICES:
        stack.start_service(service)
    with outside_registry(stack, settings) as registry:
        yield registry
    for service in SERVICES:
        stack.stop_service(service)


@pytest.fixture(scope="module")
def model(registry: Registry, settings: Settings) -> str:
    """A model with two versions, of which the second serves in prod."""
    name = f"commands-{secrets.token_hex(4)}"
    with Client(settings) as client:
        promote(client, registry, name)
        second = promote(client, registry, name)
    indexed(settings, lambda found: found.what_ran(name, "prod"), second)
    return name


def indexed(settings: Settings, ask: Callable[[ReadModel], Any], artifact: str) -> None:
    """Until the indexer has projected that this artifact serves."""
    with ReadModel(settings.database.url) as found:
        assert wait_until(lambda: (ran := ask(found)) and ran.deployment.stable_artifact_id == artifact, 60)


@pytest.fixture
def ai_infra(stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; returns what it printed with --json, or raises what it said to be wrong."""
    for name, value in stack.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Any:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        streams = capsys.readouterr()
        if ended.value.code:
            raise RuntimeError(streams.err.strip().splitlines()[-1])
        return json.loads(streams.out) if "--json" in arguments else streams.out

    return run


def test_artifacts_are_listed_shown_found_and_compared(ai_infra: Run, model: str) -> None:
    listed = ai_infra("artifact", "list", "--model", model, "--json")
    assert [a["version"] for a in listed] == [2, 1]
    shown = ai_infra("artifact", "show", f"{model}@latest", "--json")
    assert shown["artifact"]["artifact_id"] == listed[0]["artifact_id"]
    assert [d["env"] for d in shown["serving"]] == ["prod"]
    found = ai_infra("artifact", "search", listed[1]["artifact_sha256"][:20].upper(), "--json")
    assert [a["artifact_id"] for a in found] == [listed[1]["artifact_id"]]
    assert ai_infra("artifact", "search", "100%_of\\it", "--model", model, "--json") == []
    different = ai_infra("artifact", "diff", f"{model}@1", f"{model}@2", "--json")["differences"]
    assert {"version", "artifact_sha256"} <= {d["what"] for d in different}
    for text in (ai_infra("artifact", "list"), ai_infra("artifact", "show", f"{model}@1")):
        assert model in text


def test_lineage_leads_from_data_to_deployment_and_is_exported_whole(ai_infra: Run, model: str, tmp_path: Path) -> None:
    up = ai_infra("artifact", "lineage", f"{model}@2", "--json")["edges"]
    assert {(e["relation"], e["parent_kind"]) for e in up} >= {("built_from", "code"), ("trained_on", "dataset")}
    down = ai_infra("artifact", "lineage", f"{model}@2", "--down", "--json")["edges"]
    assert {e["child_kind"] for e in down} >= {"promotion", "deployment", "evaluation"}
    assert "deployment" in ai_infra("artifact", "lineage", f"{model}@2", "--down")
    ai_infra("export-lineage", f"{model}@2", "--out", str(tmp_path / "lineage.json"))
    document = json.loads((tmp_path / "lineage.json").read_text())
    assert document["artifact"]["version"] == 2
    assert [p["promotion"]["status"] for p in document["promotions"]] == ["applied"]
    assert [d["revision"] for d in document["deployments"]] == [2]


def test_what_ran_answers_for_now_and_for_then(ai_infra: Run, model: str) -> None:
    now = ai_infra("what-ran", model, "--env", "production", "--json")
    assert (now["artifact"]["version"], now["until"]) == (2, None)
    history = ai_infra("promote", "history", model, "--json")
    first = history[-1]
    then = ai_infra("what-ran", model, "--at", first["applied_at"], "--json")
    assert then["artifact"]["version"] == 1
    assert then["until"] == now["deployment"]["changed_at"]
    with pytest.raises(RuntimeError, match="nothing served"):
        ai_infra("what-ran", model, "--at", "2000-01-01T00:00Z")
    with pytest.raises(RuntimeError, match="nothing served"):
        ai_infra("what-ran", model, "--env", "staging")


def test_what_ran_then_is_proven_by_a_file_to_whoever_has_the_root_keys(
    ai_infra: Run, model: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = ai_infra("what-ran", model, "--json")
    with ReadModel(settings.database.url) as found:
        deployment = now["deployment"]
        assert wait_until(lambda: found.lanes()[deployment["lane"]].checkpoint_size > deployment["position"], 120)
    first = ai_infra("promote", "history", model, "--json")[-1]
    file = tmp_path / "then.tlog-proof"
    told = ai_infra("what-ran", model, "--at", first["applied_at"], "--proof", str(file), "--json")
    assert (told["ran"]["revision"], told["ran"]["shown_by"]) == (1, "every_entry")
    change = "UPDATE deployments SET stable_artifact_id = %s WHERE model = %s AND env = 'prod' AND revision = 1"
    other = tmp_path / "other.tlog-proof"
    with connect(settings.database.url, autocommit=True) as connection:
        assert connection.execute(change, ("another", model)).rowcount == 1
        try:
            with pytest.raises(RuntimeError, match="is another in Postgres"):
                ai_infra("what-ran", model, "--at", first["applied_at"], "--proof", str(other), "--json")
        finally:
            connection.execute(change, (first["artifact_id"], model))
    assert not other.exists()
    monkeypatch.delenv("AI_INFRA_DATABASE_URL")
    monkeypatch.setenv("AI_INFRA_ARCHIVE_BUCKET", "no-such-bucket")
    checked = ai_infra("audit", "verify", "--proof", str(file), "--roots", str(settings.keys.roots), "--json")
    assert checked["ran"] == told["ran"]
    assert checked["ran"]["stable_artifact_id"] == told["deployment"]["stable_artifact_id"] == first["artifact_id"]
    text = ai_infra("audit", "verify", "--proof", str(file), "--roots", str(settings.keys.roots))
    assert "without a gap" in " ".join(text.split())


def test_a_promotion_is_asked_for_followed_and_taken_back(
    ai_infra: Run, registry: Registry, settings: Settings
) -> None:
    name = f"commands-{secrets.token_hex(4)}"
    with Client(settings) as client:
        first = promote(client, registry, name)
        second = registry.register(name)
        evaluate(client, name, second)
    indexed(settings, lambda found: found.what_ran(name, "prod"), first)
    with ReadModel(settings.database.url) as found:
        assert wait_until(lambda: found.artifact(second) is not None, 60)
    applied = ai_infra(
        "promote", "request", f"{name}@2", "--env", "prod", "--reason", "r", "--expect", first, "--wait", "60", "--json"
    )
    assert (applied["artifact_id"], applied["revision"]) == (second, 2)
    indexed(settings, lambda found: found.what_ran(name, "prod"), second)
    status = ai_infra("promote", "status", applied["promotion_id"], "--json")
    assert [s["status"] for s in status["steps"]][:2] == ["pending", "approved"]
    assert "static-threshold" in ai_infra("promote", "status", applied["promotion_id"])
    with pytest.raises(RuntimeError, match="is rejected: stale"):
        ai_infra("promote", "request", first, "--env", "prod", "--reason", "r", "--expect", first, "--wait", "60")
    back = ai_infra("promote", "rollback", name, "--env", "prod", "--reason", "worse", "--wait", "60", "--json")
    assert (back["artifact_id"], back["revision"]) == (first, 3)
    with pytest.raises(RuntimeError, match="no_approvals_wanted"):
        ai_infra("promote", "approve", applied["promotion_id"], "--reason", "late", "--as", "approver-3")
    assert ai_infra("artifact", "revoke", second, "--reason", "bad data", "--json")["revoked_by"] == "operator"
    with ReadModel(settings.database.url) as found:
        assert wait_until(lambda: (a := found.artifact(second)) is not None and a.status == "revoked", 60)
    with pytest.raises(RuntimeError, match="is revoked: bad data"):
        ai_infra("artifact", "download", second)


@pytest.mark.usefixtures("registry")
def test_a_job_is_asked_for_again_as_a_new_one_once_the_old_one_is_over(
    ai_infra: Run, stack: Stack, settings: Settings
) -> None:
    name = f"commands-{secrets.token_hex(4)}"
    nowhere = "git+https://host.invalid/repo@" + "a" * 40
    asked = ai_infra("job", "submit", "--code", nowhere, "--model", name, "--seed", "7", "--json", "--", "true")
    with ReadModel(settings.database.url) as found:
        assert wait_until(lambda: found.job(asked["job_id"]) is not None, 60)
        with pytest.raises(RuntimeError, match="is requested, and two of it would run"):
            ai_infra("job", "requeue", asked["job_id"])
        stack.start_service("trainer")
        try:
            with pytest.raises(RuntimeError, match="repository_not_allowed"):
                ai_infra("job", "status", asked["job_id"], "--model", name, "--wait", "60")
            again = ai_infra("job", "requeue", asked["job_id"], "--json")
        finally:
            stack.stop_service("trainer")
        assert again["job_id"] != asked["job_id"]
        assert wait_until(lambda: found.job(again["job_id"]) is not None, 60)
        old, new = found.job(asked["job_id"]), found.job(again["job_id"])
        assert old is not None
        assert new is not None
        assert (new.model, new.code_ref, new.seed) == (name, nowhere, 7) == (old.model, old.code_ref, old.seed)
        entry = found.event(again["event_id"])
        assert entry is not None
        assert [str(cause) for cause in entry.causes] == [asked["event_id"]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("artifact", "show", "no-such"), "there is no artifact no-such"),
        (("artifact", "show", "no-such@latest"), "there is no artifact"),
        (("job", "status", "no-such"), "there is no job no-such"),
        (("promote", "status", "no-such"), "there is no promotion no-such"),
        (("promote", "rollback", "m", "--env", "moon", "--reason", "r"), "an environment is dev, staging or prod"),
        (("job", "submit", "--code", "x", "--model", "m"), "a job needs training_cmd"),
        (("job", "submit", "--code", "x", "--model", "m", "--dataset", "id=a", "--", "a"), "a dataset is id=NAME"),
        (("job", "submit", "--code", "x", "--model", "m", "--hyperparams", "[]", "--", "a"), "is a JSON object"),
        (("job", "submit", "--code", "x", "--job", "/no/such.json"), "cannot be read"),
    ],
)
@pytest.mark.usefixtures("registry")
def test_a_failure_is_one_clear_line(ai_infra: Run, arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(RuntimeError, match=says):
        ai_infra(*arguments)
