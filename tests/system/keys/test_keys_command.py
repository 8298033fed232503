"""`ai-infra keys`, without a broker: what each command makes, shows and refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ai_infra.cli.main import main
from ai_infra.trust import changes
from ai_infra.trust.certificate import verify_chain_certificate
from ai_infra.trust.ed25519 import encode, public_of
from ai_infra.trust.exceptions import KeyringConflict
from ai_infra.trust.init import key_plan
from ai_infra.trust.keyring import Grant
from ai_infra.trust.keyring_files import load_keyrings, private_key_path
from ai_infra.trust.signers import LocalSigner, read_private_key_file

from .signing_services import SigningService, serve

Keys = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Keys:
    """Runs `ai-infra keys ...` in an empty directory; returns (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AI_INFRA_KEYS_DIR", str(tmp_path / "keys"))

    def command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["keys", *arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return command


@pytest.fixture
def keys(run: Keys) -> Keys:
    """The same with keys made, asked for JSON, and expected to succeed."""
    assert run("init")[0] == 0

    def command(*arguments: str) -> Any:
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return command


def directory() -> Path:
    return Path("keys")


def test_init_makes_keys_and_says_where(run: Keys, tmp_path: Path) -> None:
    code, out, _ = run("init")
    assert code == 0
    assert f"export AI_INFRA_KEYS_DIR={tmp_path / 'keys'}" in out
    assert load_keyrings(directory()).latest_version == 1
    code, _, err = run("init")
    assert code == 1
    assert err.startswith("error: ")
    assert "not empty" in err


def test_init_refuses_to_write_everybody_s_keys_in_production(run: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_ENV", "production")
    monkeypatch.setenv("AI_INFRA_LOG_ORIGIN", "example.org/log")
    code, _, err = run("init")
    assert (code, "--production" in err) == (1, True)
    assert not directory().exists()


def test_init_for_production_takes_all_but_the_root_keys_from_a_kms(run: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    kms = {key_id: LocalSigner.fresh(key_id) for key_id in key_plan(people=False)}
    with serve(SigningService(dict(kms))) as service:
        monkeypatch.setenv("KMS_ENDPOINT", service.url)
        options = [f"--key={key_id}=kernel-kms:{key_id}" for key_id in kms]
        assert run("init", "--production", *options[1:])[0] == 1
        without_chain = [option for option in options if "chain-1" not in option]
        code, out, err = run("init", "--production", *without_chain, "--json")
    assert code == 0, err
    assert f"AI_INFRA_CHAIN_KEY=wrapped:{directory().resolve()}" in err
    assert json.loads(out)["private_keys"] == ["root-1", "root-2", "root-3"]
    assert "offline" in err
    keyring = load_keyrings(directory()).latest
    verify_chain_certificate((directory() / "chain-1.certificate.json").read_text(), keyring)
    assert keyring.keys["audit-1"].public_key == kms["audit-1"].public_key


def test_a_person_gets_a_key_and_a_role(keys: Keys) -> None:
    assert keys("new", "alice-1", "--principal", "alice", "--kind", "person", "--role", "approver")["version"] == 2
    keyring = load_keyrings(directory()).latest
    assert "alice" in keyring.holders("approver")
    assert private_key_path(directory(), "alice-1").is_file()
    assert not keyring.principals["alice"].counted


def test_a_key_that_is_elsewhere_comes_by_its_public_half(keys: Keys) -> None:
    public_key = LocalSigner.fresh("ci-1").public_key
    keys("new", "ci-1", "--principal", "ci", "--kind", "orchestrator", "--public", encode(public_key))
    assert load_keyrings(directory()).latest.keys["ci-1"].public_key == public_key
    assert not private_key_path(directory(), "ci-1").exists()


def test_a_new_service_numbers_its_events(keys: Keys) -> None:
    keys("new", "trainer-eu-1", "--principal", "trainer-eu", "--kind", "service", "--role", "trainer")
    assert load_keyrings(directory()).latest.principals["trainer-eu"].counted


def test_a_key_for_a_variable_is_printed_alone(run: Keys) -> None:
    code, out, err = run("new", "--stdout")
    assert (code, err) == (0, "")
    assert len(base64.b64decode(out)) == 32
    assert not directory().exists()


def test_a_key_without_an_owner_is_only_made(run: Keys) -> None:
    code, out, _ = run("new", "spare-1", "--json")
    made = json.loads(out)
    seed = base64.b64decode(Path(made["file"]).read_text())
    assert code == 0
    assert made["public_key"] == encode(public_of(seed))
    assert encode(seed) not in out


def test_a_role_is_granted_narrowly_and_taken_away(keys: Keys, run: Keys) -> None:
    keys("grant", "orchestrator", "operator", "--model", "fraud-*", "--model", "risk-*", "--env", "dev")
    listed = {key["key_id"]: key for key in keys("list")["keys"]}
    assert listed["orchestrator-1"]["roles"] == ["orchestrator", "operator of fraud-*|risk-* in dev"]
    keys("grant", "orchestrator", "operator", "--remove")
    assert "orchestrator" not in load_keyrings(directory()).latest.holders("operator")
    for wrong in (("nobody", "operator"), ("operator", "king"), ("operator", "trainer", "--env", "x")):
        code, _, err = run("grant", *wrong)
        assert (code, err.startswith("error: ")) == (1, True)
    assert load_keyrings(directory()).latest_version == 3


def test_a_rotated_key_has_a_successor_and_a_while_left(keys: Keys) -> None:
    keys("rotate", "trainer-1", "--overlap", "1")
    states = {key["key_id"]: key["state"] for key in keys("list")["keys"]}
    assert states["trainer-1"].startswith("retires ")
    assert states["trainer-2"] == "counts"
    assert [trial["key_id"] for trial in keys("test", "--service", "trainer")][-1] == "trainer-2"


def test_a_rotated_chain_key_is_certified(keys: Keys) -> None:
    keys("rotate", "chain-1")
    keyring = load_keyrings(directory()).latest
    text = (directory() / "chain-2.certificate.json").read_text()
    assert verify_chain_certificate(text, keyring).public_key == keyring.keys["chain-2"].public_key
    assert [s["signerId"] for s in json.loads((directory() / "signers.json").read_text())["signers"]][:2] == [
        "chain-1",
        "chain-2",
    ]


def test_a_chain_key_can_be_wrapped_by_the_audit_key(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    keys("rotate", "chain-1", "--wrap")
    assert not private_key_path(directory(), "chain-2").exists()
    monkeypatch.setenv("AI_INFRA_CHAIN_KEY", f"wrapped:{directory()}/wrapped/chain-2.json")
    trial = next(trial for trial in keys("test") if trial["purpose"] == "chain")
    assert (trial["key_id"], trial["error"]) == ("chain-2", None)


def test_root_keys_are_rotated_by_their_own(keys: Keys) -> None:
    keys("rotate", "root-1")
    keys("rotate", "root-2")
    assert set(load_keyrings(directory()).latest.roots.keys) == {"root-3", "root-4", "root-5"}
    keys("grant", "operator", "approver")


def test_without_enough_root_keys_nothing_is_made(keys: Keys, run: Keys, tmp_path: Path) -> None:
    away = tmp_path / "stick"
    away.mkdir(mode=0o700)
    for key_id in ("root-1", "root-2"):
        private_key_path(directory(), key_id).rename(away / key_id)
    code, _, err = run("new", "bob-1", "--principal", "bob", "--kind", "person")
    assert (code, "--root" in err) == (1, True)
    assert not private_key_path(directory(), "bob-1").exists()
    keys("new", "bob-1", "--principal", "bob", "--kind", "person", "--root", f"root-1=file:{away / 'root-1'}")


def test_a_revoked_key_says_why_and_from_where(keys: Keys, run: Keys) -> None:
    keys("revoke", "approver-3", "--reason", "lost laptop", "--since", "2=40")
    revocation = load_keyrings(directory()).latest.revocations["approver-3"]
    assert (revocation.reason, dict(revocation.positions)) == ("lost laptop", {2: 40})
    keys("revoke", "approver-3", "--reason", "earlier", "--since", "2=30")
    assert dict(load_keyrings(directory()).latest.revocations["approver-3"].positions) == {2: 30}
    for wrong in (
        ("revoke", "approver-3", "--reason", "again"),
        ("revoke", "root-1", "--reason", "x"),
        ("revoke", "nobody-1", "--reason", "x"),
        ("revoke", "approver-1", "--reason", "x", "--since", "99=1"),
        ("revoke", "approver-1", "--reason", "x", "--since", "one"),
        ("rotate", "approver-3"),
    ):
        assert run(*wrong)[0] == 1, wrong


def test_keys_that_do_not_sign_fail_the_test(keys: Keys, run: Keys) -> None:
    assert all(trial["error"] is None for trial in keys("test"))
    private_key_path(directory(), "manifest-1").unlink()
    code, out, err = run("test", "--json")
    assert code == 1
    assert [trial["purpose"] for trial in json.loads(out) if trial["error"]] == ["manifest"]
    assert "manifest" in err


def test_one_key_can_be_tried_by_name(keys: Keys) -> None:
    assert keys("test", "approver-1")[0]["key_id"] == "approver-1"


def test_the_signers_file_is_exported(keys: Keys, run: Keys) -> None:
    code, out, _ = run("export-signers")
    assert (code, json.loads(out)["signers"][0]["signerId"]) == (0, "chain-1")
    assert run("export-signers", "--out", "s.json")[0] == 0
    assert Path("s.json").read_text() == out


def test_no_private_key_is_ever_shown(run: Keys) -> None:
    shown = [run("init")]
    for arguments in (
        ("list",), ("test",), ("new", "a-1", "--principal", "a", "--kind", "person"), ("rotate", "audit-1"),
        ("revoke", "a-1", "--reason", "r"), ("export-signers",), ("publish",),
    ):  # fmt: skip
        shown += [run(*arguments), run(*arguments, "--json")]
    text = "".join(out + err for _, out, err in shown)
    for path in (directory() / "private").iterdir():
        assert path.read_text().strip() not in text


def test_two_changes_at_once_do_not_overwrite_each_other(keys: Keys) -> None:
    before = load_keyrings(directory()).latest
    roots = [LocalSigner(k, read_private_key_file(private_key_path(directory(), k))) for k in ("root-1", "root-2")]
    keys("grant", "operator", "approver")
    ours = (directory() / "keyring.v2.json").read_bytes()
    rival = changes.with_grant(before, "operator", Grant("trainer"), now=1)
    with pytest.raises(KeyringConflict, match="somebody else"):
        changes.publish_next(directory(), before, rival, roots)
    assert (directory() / "keyring.v2.json").read_bytes() == ours
