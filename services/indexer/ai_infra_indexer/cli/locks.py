"""`ai-infra audit hold` and `ai-infra audit retention`: how the archive's objects are locked, and for how long.

Each change is an operator's act: said in the lanes that it is about, before it is made. An act that was interrupted is
done again; what is as wanted already is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from ai_infra.cli.output import Json, Reason, fail, progress, rows, show, stack
from ai_infra.objects.model import LockMode
from ai_infra.objects.reader import BucketReader
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings, load_settings
from ai_infra_indexer import locks
from ai_infra_indexer.cli.options import Lane
from ai_infra_indexer.locks import Kept, Locked, LockSummary

HOLD: Final = "archive.hold"
RELEASE: Final = "archive.release"
RETENTION: Final = "archive.retention"
_LONGEST: Final = timedelta(days=100 * 366)
_MANY: Final = 1_000_000  # artifacts of a model

hold = typer.Typer(help="Legal holds: what is held stays, whatever its retention.", no_args_is_help=True)
retention = typer.Typer(help="How long the archive's objects stay locked; it only ever grows.", no_args_is_help=True)

All = Annotated[bool, typer.Option("--all", help="All lanes, and what lies beside them.")]
Model = Annotated[
    str | None, typer.Option("--model", help="A model's artifacts and manifests, and the lane that tells of it.")
]


@hold.command("show")
def show_holds(lane: Lane = None, model: Model = None, as_json: Json = False) -> None:
    """Show what is held, and how long what is where stays locked."""
    _show(lane, model, as_json)


@retention.command("show")
def show_retention(lane: Lane = None, model: Model = None, as_json: Json = False) -> None:
    """Show how long what is where stays locked, and what is held."""
    _show(lane, model, as_json)


@hold.command("set")
def set_hold(reason: Reason, lane: Lane = None, every: All = False, model: Model = None, as_json: Json = False) -> None:
    """Put all that there is now under a legal hold. What is archived later is not held: repeat it then."""
    settings = load_settings()
    chosen = _Scope.of(settings, lane, every, model)
    with _at_work(settings, chosen) as work:
        todo = locks.to_hold(work.found, True)
        work.change(HOLD, todo, {}, reason, lambda told: locks.hold(work.store, todo, True, told), as_json)


@hold.command("release")
def release(reason: Reason, lane: Lane = None, every: All = False, model: Model = None, as_json: Json = False) -> None:
    """End a legal hold: of a lane, of all, or of a model's artifacts and manifests (its lane stays held)."""
    settings = load_settings()
    chosen = _Scope.of(settings, lane, every, model)
    with _at_work(settings, chosen, releasing=True) as work:
        todo = locks.to_hold(work.found, False)
        work.change(RELEASE, todo, {}, reason, lambda told: locks.hold(work.store, todo, False, told), as_json)


@retention.command("extend")
def extend(
    reason: Reason,
    until: Annotated[
        str | None, typer.Option("--until", help="A day, such as 2033-01-31: locked to its end (UTC).")
    ] = None,
    days: Annotated[int | None, typer.Option("--days", min=1, help="So many days from today on.")] = None,
    lane: Lane = None,
    every: All = False,
    model: Model = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Lock what is kept for good until a later day. Nobody can take that back; what is locked for longer stays so."""
    settings = load_settings()
    chosen, end = _Scope.of(settings, lane, every, model), _end(until, days)
    with _at_work(settings, chosen) as work:
        todo = [
            item
            for mode, mine in ((LockMode.COMPLIANCE, False), (LockMode.GOVERNANCE, True))
            for item in locks.to_extend((f for f in work.found if (f.kept.of == chosen.artifacts) is mine), end, mode)
        ]
        if todo and not yes:
            typer.confirm(f"Nobody can unlock {len(todo)} objects before {end:%Y-%m-%d}. Go on?", abort=True)
        said = {"until": end.isoformat()}
        objects = [kept for kept, _ in todo]
        work.change(RETENTION, objects, said, reason, lambda told: locks.extend(work.store, todo, told), as_json)


def _end(until: str | None, days: int | None) -> datetime:
    """The end of a day, so that the same command on the same day asks for the same."""
    now = datetime.now(UTC)
    if (until is None) == (days is None):
        return fail("say until when: --until DAY or --days N", code="usage")
    try:
        day = datetime.fromisoformat(until) if until is not None else now + timedelta(days=days or 0)
    except ValueError:
        return fail(f"expected a day like 2033-01-31, got {until!r}", code="usage")
    end = day.replace(hour=23, minute=59, second=59, microsecond=0, tzinfo=UTC)
    if not now < end < now + _LONGEST:
        return fail(f"{end:%Y-%m-%d} is past, or more than a hundred years away", code="usage")
    return end


@dataclass(frozen=True, slots=True)
class _Scope:
    """What is meant: lanes, `every` one, or a model's artifacts and its lane."""

    lanes: tuple[int, ...]
    every: bool = False
    model: str | None = None

    @classmethod
    def of(cls, settings: Settings, lane: int | None, every: bool, model: str | None) -> _Scope:
        from ai_infra.events.lanes import check_model, lane_of

        if (lane is not None) + every + (model is not None) != 1:
            return fail("say of what: one of --lane N, --all, --model NAME", code="usage")
        if model is not None:
            check_model(model)
            return cls((lane_of(model, settings.log.lanes),), model=model)
        if lane is not None and lane >= settings.log.lanes:
            return fail(f"there are lanes 0 to {settings.log.lanes - 1}, not {lane}", code="usage")
        return cls(tuple(range(settings.log.lanes)), every=True) if lane is None else cls((lane,))

    @property
    def artifacts(self) -> str | None:
        """How a model's objects are called."""
        return f"model {self.model}" if self.model is not None else None


@contextmanager
def _at_work(settings: Settings, scope: _Scope, *, releasing: bool = False) -> Any:
    """The objects that are meant, as they are locked now. A release leaves what others may hold too: what lies beside
    the lanes unless all are meant, and the lane of a model."""
    with ObjectStore(settings) as store, progress("looking at the locks") as say:
        reader = BucketReader(store, f"s3://{settings.objects.archive_bucket}")
        objects: list[Kept] = []
        if not (releasing and scope.model is not None):
            for lane in scope.lanes:
                say(f"listing lane {lane}")
                objects += locks.kept_of_lane(reader, settings.log.origin, lane, past=releasing)
        if not releasing or scope.every:
            objects += locks.kept_beside(reader)
        if scope.model is not None:
            objects += _of_model(settings, scope)
        found = locks.look(store, objects, lambda done: say(f"{done} of {len(objects)} objects looked at"))
        yield _Work(settings, scope, store, found, say)


@dataclass(frozen=True, slots=True)
class _Work:
    settings: Settings
    scope: _Scope
    store: ObjectStore
    found: list[Locked]
    say: Callable[[str], None]

    def change(
        self,
        action: str,
        todo: Sequence[Kept],
        arguments: dict[str, Any],
        reason: str,
        change: Callable[[locks.Progress], list[str]],
        as_json: bool,
    ) -> None:
        """Says it, does it, shows what came of it."""
        failed: list[str] = []
        if todo:
            self._say_so(action, todo, arguments, reason)
            failed = change(lambda done: self.say(f"{done} of {len(todo)} objects changed"))
        objects = [item.kept for item in self.found]
        after = _summaries(locks.look(self.store, objects))
        data = {"changed": len(todo) - len(failed), "as_wanted": len(objects) - len(todo), "state": after}
        done = f"{data['changed']} objects changed, {data['as_wanted']} were as wanted."
        show({**data, "failed": failed}, json=as_json, table=lambda: stack(_table(after), done))
        if failed:
            fail(f"{len(failed)} objects could not be changed; the first: {failed[0]}. Then repeat the command")

    def _say_so(self, action: str, todo: Sequence[Kept], arguments: dict[str, Any], reason: str) -> None:
        """One act for each lane that it is about, or for the model; all are in the log, or none."""
        from ai_infra.cli.acting import Operator

        said = {**arguments, "objects": len(todo), "of": sorted({kept.of for kept in todo})}
        with Operator(self.settings) as operator:
            if (model := self.scope.model) is None:
                operator.act_in_lanes(action, "lanes", dict.fromkeys(self.scope.lanes, said), reason)
                return
            about = f"models/{model}"
            operator.append(operator.action(action, target=about, key=model, arguments=said, reason=reason))


def _of_model(settings: Settings, scope: _Scope) -> list[Kept]:
    """A model's artifacts and manifests, where they lie in an object store."""
    from ai_infra.readmodel import ReadModel

    with ReadModel(settings.database.url) as model:
        artifacts = model.artifacts(model=scope.model, limit=_MANY)
    uris = {uri for a in artifacts for uri in (a.artifact_uri, a.manifest_uri) if uri and uri.startswith("s3://")}
    return [Kept(scope.artifacts or "", uri, None) for uri in sorted(uris)]


def _show(lane: int | None, model: str | None, as_json: bool) -> None:
    settings = load_settings()
    scope = _Scope.of(settings, lane, lane is None and model is None, model)
    with _at_work(settings, scope) as work:
        found = _summaries(work.found)
    show(found, json=as_json, table=lambda: _table(found))


def _summaries(found: Sequence[Locked]) -> list[LockSummary]:
    by: dict[str, list[Locked]] = {}
    for item in found:
        by.setdefault(item.kept.of, []).append(item)
    return [locks.summary(of, items) for of, items in by.items()]


def _table(found: Sequence[LockSummary]) -> Any:
    heading = ("of", "objects", "held", "not locked", "first lock ends", "last lock ends")
    content = [(s.of, s.objects, s.held, s.unlocked or None, s.first, s.last) for s in found]
    return rows(heading, content)
