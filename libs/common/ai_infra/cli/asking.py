"""What the commands about jobs, artifacts and promotions share: opening the SDK or the read model, and finding things.

Finding is by id; where an id is unknown, the indexer may simply be behind, and the error says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ai_infra.cli.output import fail, progress
from ai_infra.errors import ConfigurationError

if TYPE_CHECKING:
    from ai_infra.client import Client
    from ai_infra.events.generated import DatasetRef
    from ai_infra.readmodel import ReadModel
    from ai_infra.readmodel.rows import ArtifactRow, JobRow, PromotionRow

BEHIND = "if it is new, the indexer may be behind: see `ai-infra lag`"


@contextmanager
def reading() -> Iterator[ReadModel]:
    """The read model of the configured database."""
    from ai_infra.readmodel import ReadModel
    from ai_infra.settings import load_settings

    with ReadModel(load_settings().database.url) as model:
        yield model


@contextmanager
def speaking(event: str, key_id: str | None = None) -> Iterator[Client]:
    """A client with a key at hand that may say this event type, or with the key of that id."""
    from ai_infra.client import Client

    with progress("asking Kafka for the keyring"):
        client = Client.from_env(speaking=event, key_id=key_id)
    with client:
        yield client


def find_job(found: ReadModel, job_id: str) -> JobRow:
    """The job; ends the command where there is none."""
    job = found.job(job_id)
    if job is None:
        fail(f"there is no job {job_id}; `ai-infra job list` shows them; {BEHIND}", code="no_such_job")
    return job


def find_artifact(found: ReadModel, name: str) -> ArtifactRow:
    """The artifact, by its id, as `<model>@<version>`, or as `<model>@latest`; ends the command where there is none."""
    model, at, version = name.rpartition("@")
    if at and version == "latest":
        rows = [row for row in found.artifacts(model=model, status="registered", limit=1_000) if row.version]
        artifact = max(rows, key=lambda row: row.version or 0, default=None)
    elif at and version.isdigit():
        artifact = found.artifact_version(model, int(version))
    else:
        artifact = found.artifact(name)
    if artifact is None:
        fail(f"there is no artifact {name}; `ai-infra artifact list` shows them; {BEHIND}", code="no_such_artifact")
    return artifact


def find_promotion(found: ReadModel, promotion_id: str) -> PromotionRow:
    """The promotion; ends the command where there is none."""
    promotion = found.promotion(promotion_id)
    if promotion is None:
        fail(
            f"there is no promotion {promotion_id}; `ai-infra promote history` shows them; {BEHIND}",
            code="no_such_promotion",
        )
    return promotion


def dataset(text: str) -> DatasetRef:
    """A dataset from `id=…,version=…,checksum=sha256:…,uri=…`. Raises ConfigurationError."""
    from ai_infra.events.generated import DatasetRef

    fields = dict(part.partition("=")[::2] for part in text.split(","))
    expected = {"id", "version", "checksum", "uri"}
    if set(fields) != expected or not all(fields.values()):
        raise ConfigurationError(
            f"a dataset is id=NAME,version=V,checksum=sha256:HEX,uri=URI, with all four and nothing else; got {text!r}"
        )
    return DatasetRef(**fields)


def json_object(text: str, what: str) -> Mapping[str, Any]:
    """A JSON object from the command line. Raises ConfigurationError."""
    import orjson

    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{what} is a JSON object, not {text!r}")
    return value


def named(model: str, artifact_id: str | None, version: int | None) -> str:
    """An artifact as commands take it: by model and version, where it has one, else by its id."""
    return f"{model}@{version}" if version else f"{model}, {artifact_id or 'no artifact'}"


def facts(metadata: Mapping[str, Any] | None, name: str = "") -> dict[str, Any]:
    """An artifact's metadata as names and values; what is kept in millionths as the fraction that it is."""
    found: dict[str, Any] = {}
    for key, value in (metadata or {}).items():
        if isinstance(value, Mapping):
            found |= facts(value, f"{name}{key} ")
        elif key.endswith("_e6") and isinstance(value, int):
            found[f"{name}{key[:-3]}"] = score(value)
        else:
            found[f"{name}{key}"] = value
    return found


def score(millionths: int | None) -> str:
    """A score as people read it."""
    return "" if millionths is None else f"{millionths / 1_000_000:.6f}".rstrip("0").rstrip(".")


def sentences(reasons: Sequence[Mapping[str, str]] | None) -> str:
    """All reasons in one cell."""
    return "; ".join(": ".join(filter(None, (r.get("code"), r.get("detail")))) for r in reasons or ())
