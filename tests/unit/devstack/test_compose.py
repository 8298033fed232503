"""compose.yaml describes the same stack as the programs do. Where Docker is, its own check of the file runs too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ai_infra.devstack import Stack, kafka, s3
from ai_infra.devstack.environment import BUCKETS, stack_environment
from ai_infra.devstack.services import installed_services
from ai_infra.devstack.state import StackState
from ai_infra.settings import load_settings

ROOT = Path(__file__).resolve().parents[3]
SERVERS = {"kafka", "postgres", "s3"}
BESIDE = {"furnish", "prometheus"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_it_has_the_servers_prometheus_and_every_installed_service(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == SERVERS | BESIDE | set(installed_services())


def test_the_servers_are_those_that_run_as_programs(compose: dict[str, Any]) -> None:
    assert compose["services"]["kafka"]["image"].endswith(f":{kafka.VERSION}")
    assert compose["services"]["s3"]["image"].endswith(f":{s3.VERSION}")


def test_the_broker_is_configured_alike(compose: dict[str, Any]) -> None:
    environment = {name: str(value) for name, value in compose["services"]["kafka"]["environment"].items()}
    for line in kafka.CONFIGURATION.splitlines():
        name, _, value = line.partition("=")
        if not line or line.startswith("#") or "{" in value or "listener" in name:
            continue
        assert environment[f"KAFKA_{name.upper().replace('.', '_')}"] == value, name


def test_every_image_has_a_version_and_every_port_is_for_this_machine_alone(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert re.search(r":(v?\d|local)", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_volumes_and_conditions_that_it_names_exist(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert set(service.get("depends_on", {})) <= set(compose["services"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).is_file()


def test_no_password_is_written_in_it(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|ACCESS_KEY", name):
                assert re.fullmatch(r"\$\{STACK_[A-Z0-9_]+:\?[^}]+\}", value), name


def test_the_services_are_told_the_same_as_beside_the_programs(compose: dict[str, Any], tmp_path: Path) -> None:
    told = compose["services"]["registry"]["environment"]
    env = stack_environment("dev", tmp_path, StackState(lanes=8))
    assert set(env) - set(told) == {"AI_INFRA_TRUST_ROOTS"}  # follows from the directory of the keys
    assert {name: told[name] for name in BUCKETS} == BUCKETS
    assert told["AI_INFRA_LOG_ORIGIN"] == env["AI_INFRA_LOG_ORIGIN"]
    for service in installed_services():
        environment = compose["services"][service]["environment"]
        load_settings(
            environ={name: value for name, value in environment.items() if value[:2] != "${"}, directory=tmp_path
        )


def test_status_knows_where_every_service_answers(compose: dict[str, Any]) -> None:
    told = compose["services"]["registry"]["environment"]
    assert told["AI_INFRA_SERVICE_URLS"].split(",") == [
        f"{name}=http://{name}:{told['AI_INFRA_HTTP_PORT']}"
        for name in compose["services"]
        if name in installed_services()
    ]


def test_prometheus_reads_every_service() -> None:
    configuration = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    (job,) = configuration["scrape_configs"]
    assert set(job["dns_sd_configs"][0]["names"]) == set(installed_services())


def test_the_stack_tells_compose_every_variable_that_it_asks_for(tmp_path: Path) -> None:
    asked = set(re.findall(r"\$\{(STACK_[A-Z0-9_]+)", (ROOT / "compose.yaml").read_text()))
    told = Stack("told", tmp_path).compose_variables()
    assert asked - set(told) == {"STACK_PROMETHEUS_PORT"}  # has a default


def test_the_dockerfile_copies_what_exists() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source


@pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0,
    reason="no docker compose on this machine",
)
def test_docker_compose_accepts_it(tmp_path: Path) -> None:
    answer = subprocess.run(
        ["docker", "compose", "--file", str(ROOT / "compose.yaml"), "--profile", "services", "config", "--quiet"],
        env={**os.environ, **Stack("told", tmp_path).compose_variables()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
