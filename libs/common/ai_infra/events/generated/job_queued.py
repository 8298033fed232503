"""A training that somebody asks for.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer, write_record
from ai_infra.events.body import Body
from ai_infra.events.generated.shared import DatasetRef
from ai_infra.events.values import value


@value(kw_only=True)
class Resources:
    """What a training may use."""

    cpu_millis: int
    """Processor share, in thousandths of a core."""
    memory_mib: int
    """Memory limit of the training process, in MiB."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.int32(self.cpu_millis)
        out.int32(self.memory_mib)

    @classmethod
    def read(cls, data: Reader) -> Resources:
        """Reads one datum written with this very schema."""
        return cls(
            cpu_millis=data.int32(),
            memory_mib=data.int32(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "cpu_millis": self.cpu_millis,
            "memory_mib": self.memory_mib,
        }


@value(kw_only=True)
class JobQueued(Body):
    """A training that somebody asks for."""

    TOPIC: ClassVar[str] = "job.queued"
    SCHEMA_SHA256: ClassVar[str] = "952cb63fd19799b97b22a4848a9c551b652a8210a32291632a6cbe10e78a22b4"
    CRC64: ClassVar[bytes] = bytes.fromhex("9578b224f3fd6768")

    job_id: str
    """UUID of the job, chosen by who asked for it."""
    model: str
    """Name of the model; equals the record's key."""
    template: str
    """What kind of build it is: a documented URI (SLSA buildType)."""
    code_ref: str
    """Code: git+https://host/repo@<commit>#<path>, git+file://<path>@<commit>#<path>, or an image digest sha256:<hex>."""
    container_digest: str | None = None
    """Image that it runs in, sha256:<hex>; null: the runner's own environment."""
    dataset_refs: tuple[DatasetRef, ...]
    """Datasets that it reads, at most 64."""
    hyperparams_json: str
    """Hyperparameters as canonical JSON (RFC 8785) of an object."""
    seed: int
    """Seed of all random generators, 0..2^53-1."""
    training_cmd: tuple[str, ...]
    """Command and arguments, run in the checked-out path; 'python' means the runner's interpreter."""
    resources: Resources
    """Limits."""
    time_limit_s: int
    """Wall-clock limit, seconds."""
    requested_by: str
    """Principal who asked; equals the signer's principal."""
    parent_artifacts: tuple[str, ...]
    """Artifact ids that this training starts from."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.job_id)
        out.text(self.model)
        out.text(self.template)
        out.text(self.code_ref)
        out.optional(self.container_digest, Writer.text)
        out.array(self.dataset_refs, write_record)
        out.text(self.hyperparams_json)
        out.int64(self.seed)
        out.array(self.training_cmd, Writer.text)
        self.resources.write(out)
        out.int32(self.time_limit_s)
        out.text(self.requested_by)
        out.array(self.parent_artifacts, Writer.text)

    @classmethod
    def read(cls, data: Reader) -> JobQueued:
        """Reads one datum written with this very schema."""
        return cls(
            job_id=data.text(),
            model=data.text(),
            template=data.text(),
            code_ref=data.text(),
            container_digest=data.optional(Reader.text),
            dataset_refs=data.array(DatasetRef.read),
            hyperparams_json=data.text(),
            seed=data.int64(),
            training_cmd=data.array(Reader.text),
            resources=Resources.read(data),
            time_limit_s=data.int32(),
            requested_by=data.text(),
            parent_artifacts=data.array(Reader.text),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "job_id": self.job_id,
            "model": self.model,
            "template": self.template,
            "code_ref": self.code_ref,
            "container_digest": self.container_digest,
            "dataset_refs": [x.to_dict() for x in self.dataset_refs],
            "hyperparams_json": self.hyperparams_json,
            "seed": self.seed,
            "training_cmd": list(self.training_cmd),
            "resources": self.resources.to_dict(),
            "time_limit_s": self.time_limit_s,
            "requested_by": self.requested_by,
            "parent_artifacts": list(self.parent_artifacts),
        }
