"""What can be said of the parts without starting them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from importlib import resources
from pathlib import Path

import pytest

from ai_infra.devstack import Stack, StackError, ToolMissing, kafka, stack
from ai_infra.devstack.accounts import may_enter
from ai_infra.devstack.environment import as_exports, service_environment
from ai_infra.devstack.ports import HIGHEST, LOWEST, free_port, is_free
from ai_infra.devstack.processes import Account

MAVEN = "{http://maven.apache.org/POM/4.0.0}"


def test_the_pom_names_the_version_that_the_cache_is_named_after() -> None:
    pom = ElementTree.fromstring(resources.files("ai_infra.devstack").joinpath("pom.xml").read_text())
    versions = {
        dependency.findtext(f"{MAVEN}artifactId"): dependency.findtext(f"{MAVEN}version")
        for dependency in pom.iter(f"{MAVEN}dependency")
    }
    assert versions["kafka_2.13"] == kafka.VERSION


def test_without_tools_and_without_docker_there_is_one_line_per_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    kafka.java_found.cache_clear()
    with pytest.raises(ToolMissing) as error:
        Stack("none", tmp_path).up()
    kafka.java_found.cache_clear()
    lines = str(error.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines][:2] == ["Java", "Maven"]
    assert all("install" in line for line in lines)


def test_a_docker_engine_takes_over_where_tools_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(stack, "engine_answers", lambda: True)
    (tmp_path / "compose.yaml").touch()
    kafka.java_found.cache_clear()
    machine = Stack("none", tmp_path)
    chosen = machine._backend(machine._parts(machine._state.read()))
    kafka.java_found.cache_clear()
    assert chosen.name == "containers"


@pytest.mark.parametrize("name", ["", "Dev", "a/b", "..", "-x", "a" * 32])
def test_a_name_that_would_not_do_as_a_directory_is_refused(name: str) -> None:
    with pytest.raises(StackError):
        Stack(name)


def test_other_ports_come_from_below_those_of_outgoing_connections() -> None:
    taken: set[int] = set()
    for _ in range(50):
        port = free_port(taken)
        assert LOWEST <= port <= HIGHEST
        assert port not in taken
        assert is_free(port)
        taken.add(port)


def test_a_service_gets_its_own_key_and_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_INFRA_SIGNER_KEY_B64", "orchestrator's")  # pragma: allowlist secret
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "elsewhere:9092")
    monkeypatch.setenv("AI_INFRA_MIN_PROMO_SCORE", "0.5")
    env = service_environment("trainer", tmp_path, {"AI_INFRA_LANES": "4"})
    assert "AI_INFRA_SIGNER_KEY_B64" not in env
    assert "KAFKA_BOOTSTRAP_SERVERS" not in env
    assert env["AI_INFRA_SERVICE_KEY"] == f"file:{tmp_path}/keys/private/trainer-1.key"
    assert env["AI_INFRA_MIN_PROMO_SCORE"] == "0.5"
    assert env["AI_INFRA_LANES"] == "4"


def test_export_lines_survive_any_value() -> None:
    assert as_exports({"A": "it's $HOME"}) == """export A='it'"'"'s $HOME'\n"""


def test_another_user_enters_only_where_every_directory_lets_him(tmp_path: Path) -> None:
    stranger = Account("stranger", 64000, 64000)
    inner = tmp_path / "open" / "inner"
    inner.mkdir(parents=True)
    assert may_enter(Path("/"), stranger)
    (tmp_path / "open").chmod(0o700)
    assert not may_enter(inner, stranger)


def test_the_broker_is_configured_for_one_node() -> None:
    settings = dict(line.split("=", 1) for line in kafka.CONFIGURATION.splitlines() if line and line[0] != "#")
    assert settings["auto.create.topics.enable"] == "false"
    assert settings["group.initial.rebalance.delay.ms"] == "0"
    assert {value for name, value in settings.items() if re.search(r"replication\.factor|min\.isr", name)} == {"1"}
