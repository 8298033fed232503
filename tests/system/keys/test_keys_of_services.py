"""Services whose keys are in a KMS, on a machine with nothing but the pinned roots: the published keyring counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.system.bus_bench import Replica, until
from tests.system.keys.signing_services import SigningService, serve

import ai_infra_promoter.service
import ai_infra_registry.service
import ai_infra_trainer.service
from ai_infra.bus.run import run_service
from ai_infra.bus.service import Service
from ai_infra.devstack import Stack
from ai_infra.settings import Settings, load_settings
from ai_infra.trust.exceptions import SigningUnavailable
from ai_infra.trust.held_key import HeldKey
from ai_infra.trust.keyring_files import load_keyrings, private_key_path
from ai_infra.trust.open import open_promotion_signer
from ai_infra.trust.signers import LocalSigner, read_private_key_file

Build = Callable[[Settings], Service]
OWN = {"registry": ("manifest-1", "MANIFEST_SIGNING_KMS_KEY_ID"), "promoter": ("promotion-1", "AI_INFRA_PROMOTION_KEY")}
BUILD: dict[str, Build] = {
    "trainer": ai_infra_trainer.service.build,
    "registry": ai_infra_registry.service.build,
    "promoter": ai_infra_promoter.service.build,
}


class Machine:
    """Signing adapters for the keys of one service, and the settings of a machine that knows those and the roots."""

    def __init__(self, stack: Stack, open_: ExitStack, directory: Path) -> None:
        self._environment = {n: v for n, v in stack.env().items() if not n.startswith("AI_INFRA_SIGNER_")}
        self.keys = Path(self._environment.pop("AI_INFRA_KEYS_DIR"))
        self._environment["AI_INFRA_TRUST_ROOTS"] = str(self.keys / "roots.json")
        self._open = open_
        self._directory = directory
        self.adapters: dict[str, SigningService] = {}

    def adapter(self, key_id: str) -> str:
        """The URI of a key behind an HTTP signing adapter of its own."""
        key = LocalSigner(key_id, read_private_key_file(private_key_path(self.keys, key_id)))
        self.adapters[key_id] = self._open.enter_context(serve(SigningService({key_id: key})))
        return self.adapters[key_id].url.replace("http:", "http+sign:")

    def settings(self, name: str, **more: str) -> Settings:
        environment = self._environment | {"AI_INFRA_SERVICE_KEY": self.adapter(f"{name}-1")} | more
        if name in OWN:
            key_id, variable = OWN[name]
            environment[variable] = self.adapter(key_id)
        return load_settings(environ=environment, directory=self._directory)


@pytest.fixture
def machine(stack: Stack, tmp_path: Path) -> Iterator[Machine]:
    with ExitStack() as opened:
        yield Machine(stack, opened, tmp_path)


@pytest.mark.parametrize("name", BUILD)
def test_a_service_starts_with_the_pinned_roots_and_keys_behind_a_signing_adapter(machine: Machine, name: str) -> None:
    settings = machine.settings(name, REQUIRE_KMS="true")
    replica = Replica(settings, BUILD[name](settings))
    assert all(adapter.seen for adapter in machine.adapters.values()), "every key has signed before the first event"
    replica.start()
    until(lambda: replica.lanes, "it works lanes")
    replica.stop()
    assert replica.error is None


@pytest.mark.parametrize("name", BUILD)
def test_with_require_kms_a_service_does_not_start_while_one_of_its_keys_does_not_sign(
    machine: Machine, name: str
) -> None:
    settings = machine.settings(name, REQUIRE_KMS="true")
    last = list(machine.adapters.values())[-1]
    last.failures = [503] * 1_000
    with pytest.raises(SigningUnavailable, match=f"{name} does not start, since REQUIRE_KMS=true"):
        run_service(BUILD[name](settings), settings, threading.Event())


def test_without_require_kms_a_key_whose_kms_is_away_is_opened_by_the_first_who_needs_it(machine: Machine) -> None:
    kms = "http://127.0.0.1:9"
    settings = machine.settings("promoter", KMS_ENDPOINT=kms)
    settings = settings.model_copy(
        update={"keys": settings.keys.model_copy(update={"promotion": "kernel-kms:promotion-1"})}
    )
    key = HeldKey(settings, open_promotion_signer)
    key.learn(load_keyrings(machine.keys))
    with pytest.raises(SigningUnavailable):
        key.signer()
