"""`ai-infra policy`: the policy in force, and setting a new one. A plug-in of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ai_infra.cli.output import Json, Reason, fail, note, progress, rows, show, stack

if TYPE_CHECKING:
    from ai_infra.bus.decision import PolicyView

app = typer.Typer(help="The policy in force.", no_args_is_help=True)
commands: Final = {"policy": app}

File = Annotated[Path, typer.Argument(help="Policy document (JSON); - reads standard input.")]


@app.command("show")
def show_(as_json: Json = False) -> None:
    """The policy in force, and the thresholds that follow from it."""
    from ai_infra.cli.asking import score
    from ai_infra_promoter.policy import ENVIRONMENTS, threshold_of

    policy, default = _in_force()
    thresholds, cells = {}, []
    for env in ENVIRONMENTS:
        found = threshold_of(policy.document, env)
        least, origin = (default, "AI_INFRA_MIN_PROMO_SCORE") if found is None else (found, "policy")
        thresholds[env.value] = {"min_score_e6": least, "from": origin}
        cells.append((env.value, score(least), origin))
    head = f"Policy version {policy.version}" + (" (built in: nobody has set one)" if policy.version == 0 else "")
    data = {
        "version": policy.version,
        "sha256": policy.sha256,
        "document": policy.document,
        "thresholds": thresholds,
    }
    table = rows(("environment", "least score", "set by"), cells)
    document = [_text(policy.document)] if policy.document else []
    show(data, json=as_json, table=lambda: stack(f"{head}, SHA-256 {policy.sha256}", *document, table))


@app.command()
def check(file: File, as_json: Json = False) -> None:
    """Whether a document could be set."""
    document = _read(file)
    found = _problems(document)
    show({"problems": found}, json=as_json, table="\n".join(found) if found else "It can be set.")
    if found:
        raise typer.Exit(1)


@app.command()
def diff(file: File, as_json: Json = False) -> None:
    """What a document would change."""
    old, new = _flat(_in_force()[0].document), _flat(_read(file))
    changes = [
        {"setting": name, "now": old.get(name), "then": new.get(name)}
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    cells = [(c["setting"], c["now"], c["then"]) for c in changes]
    show(changes, json=as_json, table=lambda: rows(("setting", "now", "then"), cells) if cells else "Nothing changes.")


@app.command("set")
def set_(file: File, reason: Reason, as_json: Json = False) -> None:
    """Publish a document as the new policy; it holds from when each service has read it (a second)."""
    import orjson

    from ai_infra.bus.announce import publish_policy
    from ai_infra.settings import load_settings

    document = _read(file)
    if found := _problems(document):
        fail("the policy is not set: " + "; ".join(found), code="bad_policy")
    with progress("publishing the policy"):
        version = publish_policy(load_settings(), orjson.dumps(document).decode(), reason)
    show({"version": version}, json=as_json, table=f"policy version {version} is published")
    if not as_json:
        note("see it: ai-infra policy show")


def _in_force() -> tuple[PolicyView, int]:
    """The newest published policy, and the threshold of this process's settings."""
    from ai_infra.client.gate import Gate
    from ai_infra.settings import load_settings

    settings = load_settings()
    with progress("reading the policy"):
        gate = Gate(settings)
        policy = gate.policy
        gate.close()
    return policy, settings.policy.min_promo_score_e6


def _read(file: Path) -> Mapping[str, Any]:
    import sys

    from ai_infra.cli.asking import json_object

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", code="no_file")
    return json_object(text, "the policy")


def _problems(document: Mapping[str, Any]) -> tuple[str, ...]:
    from ai_infra.events.canonical import canonical_json_numbers
    from ai_infra.events.exceptions import CanonicalError
    from ai_infra_promoter.policy import problems

    try:
        canonical_json_numbers(dict(document))
    except CanonicalError as error:
        return (str(error),)
    return problems(document)


def _text(document: Mapping[str, Any]) -> str:
    import json

    return json.dumps(document, indent=2, ensure_ascii=False)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{name}.{key}" if name else str(key))
    return found
