"""`ai-infra keys`: make keys, say who may say what, rotate, revoke, and look.

A command that changes the keyring writes a new signed version into the keys directory and publishes it; what a version
has said is never rewritten. Private keys go into files that only their owner can read, and never onto the screen,
except where `keys new --stdout` is asked for exactly that.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ai_infra.cli.keyring_changes import commit, key_material, keys_directory, pairs, publish_keyrings, with_directory
from ai_infra.cli.output import Json, cell_text, note, progress, rows, show
from ai_infra.errors import AiInfraError, ConfigurationError
from ai_infra.settings import ENVIRONMENTS, load_settings
from ai_infra.trust import changes
from ai_infra.trust.certificate import certify_chain_key
from ai_infra.trust.ed25519 import encode, new_seed, read_public_key
from ai_infra.trust.init import init_keys, init_production_keys
from ai_infra.trust.keyring import (
    CHAIN,
    EVENTS,
    KINDS,
    SERVICE,
    USES,
    Grant,
    Key,
    Keyring,
    Principal,
    now_ms,
)
from ai_infra.trust.keyring_files import load_keyrings, private_key_path, wrapped_key_path
from ai_infra.trust.open import key_uri, open_audit_signer
from ai_infra.trust.signers import open_signer
from ai_infra.trust.signers_file import signers_file
from ai_infra.trust.trial import try_key, try_keys

app = typer.Typer(help="Keys, people, roles: make, grant, rotate, revoke.", no_args_is_help=True)

DEFAULT_DIRECTORY: Final = Path(".ai-infra") / "keys"

Dir = Annotated[Path | None, typer.Option("--dir", help="Keys directory; AI_INFRA_KEYS_DIR where not given.")]
Root = Annotated[
    list[str] | None, typer.Option("--root", help="A root key to sign with, ID=URI; else those in the directory.")
]
NoPublish = Annotated[bool, typer.Option("--no-publish", help="Write the new keyring, but do not publish it.")]
Public = Annotated[str | None, typer.Option("--public", help="Public key, base64: the private one stays elsewhere.")]
Uri = Annotated[str | None, typer.Option("--key", help="URI of the key in a KMS: the private one stays there.")]
Wrap = Annotated[bool, typer.Option("--wrap", help="Keep it so that only the audit key's KMS opens it.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for people.")]


@app.command()
def init(
    directory: Dir = None,
    production: Annotated[
        bool, typer.Option("--production", help="Root keys only; all others stay in a KMS and are named by --key.")
    ] = False,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="ID=URI of a key in a KMS (with --production).")
    ] = None,
    public: Annotated[list[str] | None, typer.Option("--public", help="ID=BASE64 of a public key.")] = None,
    json: Json = False,
) -> None:
    """Make the first keys and keyring version 1.

    Without --production: every key of a stack on one machine, an orchestrator and five approvers among them. Refused
    in production, where private keys belong into a KMS.
    """
    settings = load_settings()
    where = directory or settings.keys.dir or DEFAULT_DIRECTORY
    if not production:
        if settings.guards.production:
            raise ConfigurationError(
                "`keys init` writes everybody's private keys and this is production. Use `keys init --production` with "
                "--key ID=URI for each key in the KMS."
            )
        made = init_keys(where)
    else:
        signers = {
            key_id: open_signer(key_uri(uri, settings), key_id=key_id, settings=settings)
            for key_id, uri in pairs(key, "--key").items()
        }
        keys = {key_id: signer.public_key for key_id, signer in signers.items()}
        keys |= {key_id: read_public_key(text, key_id) for key_id, text in pairs(public, "--public").items()}
        if "audit-1" not in signers:
            raise ConfigurationError("Give --key audit-1=URI: the audit key certifies the chain key here and now.")
        made = init_production_keys(where, keys, signers["audit-1"])
    show(
        {
            "directory": where,
            "keyring_version": made.keyring.version,
            "keyring_sha256": made.keyring.sha256,
            "private_keys": made.private_keys,
        },
        json=json,
        table=lambda: (
            f"Made {len(made.private_keys)} private keys and keyring version 1 in {where}.\n"
            f"  export AI_INFRA_KEYS_DIR={where.resolve()}\n"
            "Publish the keyring with `ai-infra keys publish` once the topics are there."
        ),
    )
    if production:
        note(f"Move {where / 'private'} (the root keys) offline now; bring them only to change the keyring.")
        if (wrapped := wrapped_key_path(where, "chain-1")).is_file():
            note(f"The chain key was made, wrapped by the audit key: AI_INFRA_CHAIN_KEY=wrapped:{wrapped.resolve()}")


@app.command()
def new(
    key_id: Annotated[str | None, typer.Argument(help="Id of the key; not needed with --stdout.")] = None,
    principal: Annotated[str | None, typer.Option(help="Whose key it is: adds it to the keyring.")] = None,
    kind: Annotated[str | None, typer.Option(help=f"What a new principal is: {', '.join(KINDS)}.")] = None,
    role: Annotated[list[str] | None, typer.Option(help="A role for a new principal.")] = None,
    use: Annotated[str, typer.Option(help=f"What it signs: {', '.join(USES)}.")] = EVENTS,
    public: Public = None,
    uri: Uri = None,
    wrap: Wrap = False,
    stdout: Annotated[bool, typer.Option("--stdout", help="Print the private key (base64), and no more.")] = False,
    directory: Dir = None,
    root: Root = None,
    no_publish: NoPublish = False,
    reason: Reason = "a new key",
    json: Json = False,
) -> None:
    """Make a key; with --principal (or another --use) bring it into the keyring.

    `export AI_INFRA_SIGNER_KEY_B64=$(ai-infra keys new --stdout)` makes one for an environment variable.
    """
    if stdout:
        print(encode(new_seed()))
        return
    if key_id is None:
        raise ConfigurationError("Name the key: `ai-infra keys new KEY_ID`.")
    settings = load_settings()
    joins = principal is not None or use != EVENTS
    where = keys_directory(settings, directory) if joins else directory or settings.keys.dir or DEFAULT_DIRECTORY
    if not joins:
        public_key = key_material(settings, where, key_id, public, uri, wrap=wrap)()
        file = wrapped_key_path(where, key_id) if wrap else private_key_path(where, key_id)
        show(
            {"key_id": key_id, "public_key": encode(public_key), "file": file},
            json=json,
            table=f"{key_id}  {encode(public_key)}\nIts private half is in {file}.",
        )
        return
    if use not in USES or (kind is not None and kind not in KINDS):
        raise ConfigurationError(f"--use is one of {', '.join(USES)}; --kind one of {', '.join(KINDS)}.")
    before = load_keyrings(where).latest
    who = None
    if principal is not None and principal not in before.principals:
        if kind is None:
            raise ConfigurationError(f"The keyring does not know {principal!r}. Say what they are with --kind.")
        who = Principal(principal, kind, tuple(Grant(name) for name in role or ()), counted=kind == SERVICE)
    elif role:
        raise ConfigurationError(f"{principal} is in the keyring already. Give roles with `ai-infra keys grant`.")
    make = key_material(settings, where, key_id, public, uri, wrap=wrap)

    def change() -> Keyring:
        added = Key(id=key_id, public_key=make(), principal=principal or "", use=use, deployed_at=now_ms())
        return changes.with_key(before, added, who)

    commit(settings, where, before, change, root=root, publish=not no_publish, reason=reason, json=json)


@app.command()
def grant(
    principal: Annotated[str, typer.Argument(help="Who.")],
    role: Annotated[str, typer.Argument(help="Which role.")],
    model: Annotated[list[str] | None, typer.Option(help="Only for models of this pattern, e.g. 'fraud-*'.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="Only in this environment.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the role away.")] = False,
    directory: Dir = None,
    root: Root = None,
    no_publish: NoPublish = False,
    reason: Reason = "a role",
    json: Json = False,
) -> None:
    """Give somebody a role, or take it away."""
    settings = load_settings()
    if unknown := set(env or ()) - set(ENVIRONMENTS):
        raise ConfigurationError(f"There is no environment {', '.join(unknown)}; there are {', '.join(ENVIRONMENTS)}.")
    where = keys_directory(settings, directory)
    before = load_keyrings(where).latest

    def change() -> Keyring:
        if remove:
            return changes.without_grant(before, principal, role, now=now_ms())
        wanted = Grant(role, tuple(model or ("*",)), tuple(env or ()))
        return changes.with_grant(before, principal, wanted, now=now_ms())

    commit(settings, where, before, change, root=root, publish=not no_publish, reason=reason, json=json)


@app.command()
def rotate(
    key_id: Annotated[str, typer.Argument(help="The key that gets a successor.")],
    new_id: Annotated[str | None, typer.Option(help="Id of the successor; the next number where not given.")] = None,
    public: Public = None,
    uri: Uri = None,
    wrap: Wrap = False,
    overlap: Annotated[float, typer.Option(help="How long the old key still counts, hours.")] = 48.0,
    directory: Dir = None,
    root: Root = None,
    no_publish: NoPublish = False,
    reason: Reason = "rotation",
    json: Json = False,
) -> None:
    """Give a key a successor. The old one still counts for a while, and what it signed stays valid."""
    settings = load_settings()
    where = keys_directory(settings, directory)
    before = load_keyrings(where).latest
    successor = new_id or changes.successor_id(before, key_id)
    make = key_material(settings, where, successor, public, uri, wrap=wrap)
    certificate: list[str] = []

    def change() -> Keyring:
        now, public_key = now_ms(), make()
        if key_id in before.roots.keys:
            return changes.with_root_rotation(before, key_id, successor, public_key, now=now)
        until = now + int(overlap * 3_600_000)
        after = changes.with_rotation(before, key_id, successor, public_key, now=now, until=until)
        if after.keys[successor].use == CHAIN:
            audit = open_audit_signer(settings, before)
            certificate.append(certify_chain_key(audit, successor, public_key, issued_at=now))
        return after

    commit(settings, where, before, change, root=root, publish=not no_publish, reason=reason, json=json)
    if certificate:
        (where / f"{successor}.certificate.json").write_text(certificate[0] + "\n")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; everybody will read it.")],
    since: Annotated[
        list[str] | None,
        typer.Option("--since", help="LANE=INDEX: entries of that lane from this log index on are void too."),
    ] = None,
    directory: Dir = None,
    root: Root = None,
    no_publish: NoPublish = False,
    json: Json = False,
) -> None:
    """End a key at once. It takes effect in each lane where the new keyring is entered there."""
    settings = load_settings()
    where = keys_directory(settings, directory)
    before = load_keyrings(where).latest
    positions = {}
    for lane, index in pairs(since, "--since").items():
        if not (lane.isdigit() and index.isdigit() and int(lane) < settings.log.lanes):
            raise ConfigurationError(f"--since takes LANE=INDEX with a lane below {settings.log.lanes}.")
        positions[int(lane)] = int(index)

    def change() -> Keyring:
        return changes.with_revocation(before, key_id, reason, positions, now=now_ms())

    commit(settings, where, before, change, root=root, publish=not no_publish, reason=reason, json=json)


@app.command("list")
def list_keys(directory: Dir = None, json: Json = False) -> None:
    """Every key: whose it is, what it may sign, and whether it still counts."""
    settings = load_settings()
    keyring = load_keyrings(keys_directory(settings, directory)).latest
    now = now_ms()
    keys: list[dict[str, Any]] = [
        {
            "key_id": key.id,
            "use": key.use,
            "principal": key.principal or None,
            "roles": [_grant_text(grant) for grant in _grants(keyring, key)],
            "state": _state(keyring, key, now),
            "deployed_at": datetime.fromtimestamp(key.deployed_at / 1000, UTC),
            "public_key": encode(key.public_key),
        }
        for key in keyring.keys.values()
    ]
    roots: list[dict[str, Any]] = [
        {"key_id": key_id, "use": "root", "principal": None, "roles": [], "state": "counts", "public_key": encode(key)}
        for key_id, key in keyring.roots.keys.items()
    ]
    show(
        {"version": keyring.version, "threshold": keyring.roots.threshold, "keys": [*roots, *keys]},
        json=json,
        table=lambda: rows(
            ["key", "use", "principal", "roles", "state"],
            [[k["key_id"], k["use"], k["principal"], k["roles"], k["state"]] for k in [*roots, *keys]],
            title=f"Keyring version {keyring.version} ({keyring.roots.threshold} root keys must sign the next)",
        ),
    )


@app.command("test")
def try_configured(
    key_ids: Annotated[
        list[str] | None, typer.Argument(help="Private keys at hand; all that is configured if none.")
    ] = None,
    service: Annotated[list[str] | None, typer.Option(help="A service whose key to try too.")] = None,
    json: Json = False,
) -> None:
    """Have each configured key sign once, and verify the signature. Fails where one does not."""
    settings = load_settings()
    directory = settings.keys.dir
    keyring = (
        load_keyrings(directory).latest if directory is not None and (directory / "roots.json").is_file() else None
    )
    with progress("asking each key for a signature"):
        if key_ids:
            trials = [try_key(settings, key_id, keyring) for key_id in key_ids]
        else:
            trials = try_keys(settings, keyring, tuple(service or ()))
    failed = [trial for trial in trials if trial.error is not None]
    show(
        trials,
        json=json,
        table=lambda: rows(
            ["for", "key", "signs", "ms"],
            [[t.purpose, t.key_id, "yes" if t.error is None else t.error, t.milliseconds] for t in trials],
        ),
    )
    if failed:
        raise AiInfraError(
            f"{len(failed)} of {len(trials)} keys did not sign: {', '.join(t.purpose for t in failed)}.",
            code="key_failed",
        )


@app.command("export-signers")
def export_signers(
    out: Annotated[Path | None, typer.Option("--out", help="File to write; standard output where not given.")] = None,
    directory: Dir = None,
    json: Json = False,
) -> None:
    """Write the signers file of the Kernel's verifiers: public keys by signer id. Always JSON."""
    settings = load_settings()
    text = signers_file(load_keyrings(keys_directory(settings, directory)).latest)
    if out is None:
        print(text, end="")
    else:
        out.write_text(text)
        note(f"Wrote {out}.")


@app.command()
def publish(reason: Reason = "keyring published", directory: Dir = None, json: Json = False) -> None:
    """Publish every keyring version of the directory that is not published yet."""
    settings = with_directory(load_settings(), directory)
    version = publish_keyrings(settings, None, reason)
    show({"published": version}, json=json, table=f"Keyring version {version} is published.")


def _grants(keyring: Keyring, key: Key) -> tuple[Grant, ...]:
    principal = keyring.principals.get(key.principal) if key.use == EVENTS else None
    return principal.grants if principal is not None else ()


def _grant_text(grant: Grant) -> str:
    models = "" if grant.wide else f" of {'|'.join(grant.models)}"
    return grant.role + models + (f" in {'|'.join(grant.environments)}" if grant.environments else "")


def _state(keyring: Keyring, key: Key, now: int) -> str:
    if (revocation := keyring.revocations.get(key.id)) is not None:
        return f"revoked: {revocation.reason}"
    if key.not_after is not None:
        day = cell_text(datetime.fromtimestamp(key.not_after / 1000, UTC))
        return f"retires {day}" if key.not_after > now else f"retired {day}"
    return "counts"
