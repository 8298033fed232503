"""The settings of this system, one class a section: every variable, its meaning, its default.

Secrets are `SecretStr`, so that a section can be printed or logged as it is. Sections hold values and answer questions
about them; they never open a file, a socket or a key (`ai_infra.trust.open` does that).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ai_infra.errors import ConfigurationError
from ai_infra.settings.variables import CommaSeparated, Variables

ENVIRONMENTS = ("dev", "staging", "prod")
DEFAULT_ORIGIN = "ai-infra.localhost/log"


class Section(BaseModel):
    """A group of settings. Immutable: a process is configured once."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False)


class Guards(Section):
    """Where this process runs, and what it therefore refuses."""

    environment: Literal["dev", "staging", "prod"] = Field(
        default="dev",
        description="Environment of this installation: fills `${ENV}` in bucket names and decides defaults.",
    )
    production: bool = Field(
        default=False, description="True as soon as any of the names of the environment says production."
    )
    require_kms: Annotated[bool, Variables("AI_INFRA_REQUIRE_KMS", "REQUIRE_KMS")] = Field(
        default=False,
        description="Refuse to start with a private key that is not in a KMS, or while the KMS does not answer.",
    )
    require_mtls: Annotated[bool, Variables("AI_INFRA_REQUIRE_MTLS", "REQUIRE_MTLS")] = Field(
        default=False,
        description="Refuse connections to signing, policy and Kernel services without TLS and a client certificate.",
    )
    dev_allow_ephemeral: Annotated[bool, Variables("AI_INFRA_DEV_ALLOW_EPHEMERAL", "DEV_ALLOW_EPHEMERAL")] = Field(
        default=False,
        description="Allow a key made at start and forgotten at the end. In production it refuses to start.",
    )


class Kafka(Section):
    """The broker. Everything else of its client passes through as `KAFKA_<LIBRDKAFKA_NAME>`."""

    bootstrap_servers: Annotated[str, Variables("KAFKA_BOOTSTRAP_SERVERS")] = Field(
        default="", description="Brokers to begin with, `host:port,host:port`."
    )
    schema_registry_url: Annotated[SecretStr | None, Variables("SCHEMA_REGISTRY_URL")] = Field(
        default=None,
        description="Schema registry (Confluent's API), an https address with user and password where it asks for "
        "them; where set, bodies are framed by its schema ids.",
    )
    schema_registry_ca: Annotated[Path | None, Variables("AI_INFRA_SCHEMA_REGISTRY_CA")] = Field(
        default=None,
        description="Authority that the schema registry's certificate must come from, PEM; the system's where not set.",
    )
    replication_factor: Annotated[int, Variables("AI_INFRA_REPLICATION_FACTOR")] = Field(
        default=0,
        ge=0,
        le=9,
        description="Replicas of each topic; 0: 1 in dev, 3 elsewhere (then 2 must be in sync).",
    )
    # What librdkafka is told, by its own names. All secret: which of them are is librdkafka's business.
    client: Mapping[str, SecretStr] = Field(default_factory=dict, description="Any other setting of the client.")

    @property
    def configured(self) -> bool:
        return bool(self.bootstrap_servers)

    def client_config(self) -> dict[str, str]:
        """Settings for a confluent-kafka client. Holds passwords: never log it.

        Raises ConfigurationError where no broker is named.
        """
        if not self.configured:
            raise ConfigurationError(
                "No Kafka broker is configured. Start one with `ai-infra dev up`, or set KAFKA_BOOTSTRAP_SERVERS."
            )
        config = {name: value.get_secret_value() for name, value in self.client.items()}
        config["bootstrap.servers"] = self.bootstrap_servers
        return config


class Database(Section):
    """Postgres, which holds the projection."""

    dsn: Annotated[
        SecretStr | None, Variables("AI_INFRA_DATABASE_URL", "MODEL_REGISTRY_DATABASE_URL", "DATABASE_URL")
    ] = Field(default=None, description="Postgres connection string.")
    migration_timeout_s: Annotated[int, Variables("AI_INFRA_MIGRATION_TIMEOUT_S")] = Field(
        default=60, ge=1, description="Longest wait for the lock of a migration, seconds."
    )

    @property
    def configured(self) -> bool:
        return self.dsn is not None

    @property
    def url(self) -> str:
        """The connection string, password included. Raises ConfigurationError where none is set."""
        if self.dsn is None:
            raise ConfigurationError(
                "No database is configured. Start one with `ai-infra dev up`, or set AI_INFRA_DATABASE_URL."
            )
        return self.dsn.get_secret_value()


class Objects(Section):
    """Object store. What is not set here is found by boto3 as it always does (profile, instance role)."""

    models_bucket: Annotated[str, Variables("AI_INFRA_MODELS_BUCKET", "MODEL_REGISTRY_S3_BUCKET", "MODEL_BUCKET")] = (
        Field(default="illuvrse-models-${ENV}", description="Bucket of artifacts, manifests and job logs.")
    )
    archive_bucket: Annotated[str, Variables("AI_INFRA_ARCHIVE_BUCKET")] = Field(
        default="illuvrse-audit-archive-${ENV}", description="Locked bucket of the log."
    )
    drift_bucket: Annotated[str, Variables("AI_INFRA_DRIFT_BUCKET", "DRIFT_S3_BUCKET")] = Field(
        default="illuvrse-drift-${ENV}", description="Bucket of drift reports."
    )
    retention_days: Annotated[int, Variables("AI_INFRA_RETENTION_DAYS")] = Field(
        default=400, ge=400, description="How long what is locked in the archive stays locked, days; 400 at least."
    )
    endpoint_url: Annotated[str | None, Variables("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")] = Field(
        default=None, description="Object store that is not AWS."
    )
    region: Annotated[str | None, Variables("AWS_REGION", "AWS_DEFAULT_REGION")] = Field(
        default=None, description="Region of the buckets and of keys in AWS KMS."
    )
    access_key_id: Annotated[str | None, Variables("AWS_ACCESS_KEY_ID")] = Field(
        default=None, description="Access key of the object store."
    )
    secret_access_key: Annotated[SecretStr | None, Variables("AWS_SECRET_ACCESS_KEY")] = Field(
        default=None, description="Its secret."
    )
    session_token: Annotated[SecretStr | None, Variables("AWS_SESSION_TOKEN")] = Field(
        default=None, description="Session token of temporary credentials."
    )

    def client_arguments(self) -> dict[str, str]:
        """Arguments for `boto3.client("s3", ...)`. Holds a secret: never log it."""
        arguments = {
            "endpoint_url": self.endpoint_url,
            "region_name": self.region,
            "aws_access_key_id": self.access_key_id,
            "aws_secret_access_key": self.secret_access_key and self.secret_access_key.get_secret_value(),
            "aws_session_token": self.session_token and self.session_token.get_secret_value(),
        }
        return {name: value for name, value in arguments.items() if value}


class Log(Section):
    """The log."""

    origin: Annotated[str, Variables("AI_INFRA_LOG_ORIGIN")] = Field(
        default=DEFAULT_ORIGIN,
        pattern=r"^[^\s+]+$",
        description="Name of the log in checkpoints; a lane's origin is `<origin>/lanes/<p>`. Production must set it.",
    )
    lanes: Annotated[int, Variables("AI_INFRA_LANES")] = Field(
        default=8, ge=1, le=1024, description="Partitions of every lane topic. Fixed when the log is created."
    )
    hot_days: Annotated[int, Variables("AI_INFRA_HOT_DAYS")] = Field(
        default=90,
        ge=0,
        description="Age at which rows of the log leave Postgres and are in the archive alone, days; 0: they stay.",
    )
    checkpoint_interval_ms: Annotated[int, Variables("AI_INFRA_CHECKPOINT_INTERVAL_MS")] = Field(
        default=1000, ge=10, le=600_000, description="How often a lane that has grown gets a checkpoint, milliseconds."
    )
    witnesses: Annotated[CommaSeparated, Variables("AI_INFRA_WITNESSES")] = Field(
        default=(), description="Verifier keys (`name+id+key`, type 0x04) of outside witnesses, comma-separated."
    )
    witness_quorum: Annotated[int, Variables("AI_INFRA_WITNESS_QUORUM")] = Field(
        default=0, ge=0, description="How many of them must have cosigned a lane for `audit verify` to be content."
    )


class Keys(Section):
    """Keys of this process. A key is a URI: `env:`, `file:`, `https+sign:`, `kernel-kms:`, `awskms:`, or an ARN."""

    dir: Annotated[Path | None, Variables("AI_INFRA_KEYS_DIR")] = Field(
        default=None, description="Directory that `ai-infra keys init` wrote. Its private keys are never read in prod."
    )
    trust_roots: Annotated[Path | None, Variables("AI_INFRA_TRUST_ROOTS")] = Field(
        default=None, description="File of the pinned root keys; `roots.json` of the keys directory where not set."
    )
    signer_key_b64: Annotated[SecretStr | None, Variables("AI_INFRA_SIGNER_KEY_B64")] = Field(
        default=None,
        description="Local Ed25519 private key: base64 of the 32-byte seed, or of seed and public key (64 bytes). "
        "Refused with REQUIRE_KMS.",
    )
    signer_id: Annotated[str | None, Variables("AI_INFRA_SIGNER_ID")] = Field(
        default=None, description="Id of that key in the keyring."
    )
    service_key: Annotated[str | None, Variables("AI_INFRA_SERVICE_KEY")] = Field(
        default=None, description="Key that signs this service's delegations."
    )
    service_key_id: Annotated[str | None, Variables("AI_INFRA_SERVICE_KEY_ID")] = Field(
        default=None, description="Its id in the keyring; where not set, found by its public key."
    )
    audit: Annotated[str | None, Variables("AI_INFRA_AUDIT_KEY", "AUDIT_SIGNING_KMS_KEY_ID")] = Field(
        default=None, description="Audit key: signs checkpoints and the chain key's certificate."
    )
    audit_id: Annotated[str | None, Variables("AI_INFRA_AUDIT_KEY_ID", "AUDIT_SIGNER_KID")] = Field(
        default=None, description="Its id in the keyring; where not set, found by its public key."
    )
    manifest: Annotated[str | None, Variables("AI_INFRA_MANIFEST_KEY", "MANIFEST_SIGNING_KMS_KEY_ID")] = Field(
        default=None, description="Manifest key: the registry's signature over a manifest."
    )
    manifest_id: Annotated[str | None, Variables("AI_INFRA_MANIFEST_KEY_ID", "MANIFEST_SIGNER_KID")] = Field(
        default=None, description="Its id in the keyring; where not set, found by its public key."
    )
    promotion: Annotated[str | None, Variables("AI_INFRA_PROMOTION_KEY")] = Field(
        default=None, description="Promotion key: signs promotion decisions."
    )
    promotion_id: Annotated[str | None, Variables("AI_INFRA_PROMOTION_KEY_ID")] = Field(
        default=None, description="Its id in the keyring; where not set, found by its public key."
    )
    chain: Annotated[str | None, Variables("AI_INFRA_CHAIN_KEY")] = Field(
        default=None, description="Chain key: signs the rows of the Kernel's chain; certified by the audit key."
    )
    chain_id: Annotated[str | None, Variables("AI_INFRA_CHAIN_KEY_ID")] = Field(
        default=None, description="Its id in the keyring; where not set, found by its public key."
    )
    delegation_hours: Annotated[int, Variables("AI_INFRA_DELEGATION_HOURS")] = Field(
        default=24, ge=1, le=168, description="Life of a delegation, hours; renewed at half of it."
    )

    @property
    def roots(self) -> Path:
        """File of the pinned root keys. Raises ConfigurationError where none is named."""
        if self.trust_roots is not None:
            return self.trust_roots
        if self.dir is not None:
            return self.dir / "roots.json"
        raise ConfigurationError(
            "No root keys are pinned. Set AI_INFRA_TRUST_ROOTS to the roots.json of your installation, "
            "or make keys with `ai-infra keys init` and set AI_INFRA_KEYS_DIR."
        )


class Kms(Section):
    """Signing services."""

    adapter_endpoint: Annotated[str | None, Variables("AI_INFRA_KMS_ENDPOINT")] = Field(
        default=None, description="HTTP signing adapter: `POST <endpoint>/sign`."
    )
    endpoint: Annotated[str | None, Variables("KMS_ENDPOINT")] = Field(
        default=None, description="The Kernel's KMS: `POST <endpoint>/signData`, `/publicKey`."
    )
    mtls_cert_path: Annotated[Path | None, Variables("KMS_MTLS_CERT_PATH")] = Field(
        default=None, description="Client certificate for both of them, PEM."
    )
    mtls_key_path: Annotated[Path | None, Variables("KMS_MTLS_KEY_PATH")] = Field(
        default=None, description="Its private key, PEM."
    )
    mtls_ca_path: Annotated[Path | None, Variables("KMS_MTLS_CA_PATH")] = Field(
        default=None, description="Authority that their certificates must come from, PEM; the system's where not set."
    )
    bearer_token: Annotated[SecretStr | None, Variables("KMS_BEARER_TOKEN")] = Field(
        default=None, description="Bearer token for both of them."
    )
    timeout_ms: Annotated[int, Variables("AI_INFRA_KMS_TIMEOUT_MS", "KMS_TIMEOUT_MS")] = Field(
        default=5000, ge=10, le=120_000, description="Longest wait for one answer, milliseconds; three attempts."
    )


class Policy(Section):
    """Who decides about promotions."""

    sentinel_url: Annotated[str | None, Variables("AI_INFRA_SENTINEL_URL", "SENTINELNET_URL")] = Field(
        default=None,
        description="Policy service. The promoter asks none yet, and refuses to start where one is named: unset it, "
        "and `AI_INFRA_MIN_PROMO_SCORE` decides.",
    )
    min_promo_score: Annotated[Decimal, Variables("AI_INFRA_MIN_PROMO_SCORE")] = Field(
        default=Decimal("0.85"), ge=0, le=1, decimal_places=6, description="Static threshold of a promotion, 0..1."
    )
    kernel_api_url: Annotated[str | None, Variables("KERNEL_API_URL")] = Field(
        default=None, description="Kernel's multisig and upgrades (later)."
    )

    @property
    def min_promo_score_e6(self) -> int:
        """The threshold in millionths, as events carry it."""
        return int(self.min_promo_score * 1_000_000)


class Runner(Section):
    """What runs trainings."""

    enabled: Annotated[bool, Variables("AI_INFRA_RUNNER")] = Field(
        default=False,
        description="Whether this trainer process runs trainings; without it, it takes no lane and stands by.",
    )
    allowed_repositories: Annotated[CommaSeparated, Variables("AI_INFRA_ALLOWED_REPOSITORIES")] = Field(
        default=(),
        description="Repositories whose code may be run: comma-separated patterns of the part of code_ref before "
        "`@`, e.g. `git+https://example.org/ml/*`. None by default.",
    )
    allowed_datasets: Annotated[CommaSeparated, Variables("AI_INFRA_ALLOWED_DATASETS")] = Field(
        default=("https://", "python-package://", "s3://"),
        description="Where a job's datasets may come from: comma-separated beginnings of their URIs, e.g. "
        "`s3://datasets/public,file:///srv/datasets`. A runner reads with its own rights, often root's, and gives the "
        "training what it read: so no file of its machine unless its directory is named here.",
    )
    container_digest: Annotated[str | None, Variables("AI_INFRA_RUNNER_CONTAINER_DIGEST")] = Field(
        default=None,
        pattern=r"^sha256:[0-9a-f]{64}$",
        description="Digest of the image that this runner runs in; jobs that name another are refused.",
    )
    user: Annotated[str | None, Variables("AI_INFRA_RUNNER_USER")] = Field(
        default=None,
        description="User that foreign code runs as, when the trainer is started as root, one training at a time; a "
        "user id of its own for each training where not set.",
    )
    work_dir: Annotated[Path | None, Variables("AI_INFRA_RUNNER_DIR")] = Field(
        default=None, description="Where trainings work; a temporary directory where not set."
    )
    disk_mib: Annotated[int, Variables("AI_INFRA_RUNNER_DISK_MIB")] = Field(
        default=16_384,
        ge=64,
        description="Most that the files of one training may take of the disk, MiB. Its code and datasets before it, "
        "and its packed artifact after it, come on top.",
    )
    slots: Annotated[int, Variables("AI_INFRA_RUNNER_SLOTS")] = Field(
        default=2, ge=1, le=256, description="Trainings at a time in one process."
    )


class ServiceSettings(Section):
    """One process of a service."""

    http_host: Annotated[str, Variables("AI_INFRA_HTTP_HOST")] = Field(
        default="127.0.0.1", description="Address that /metrics and health listen on."
    )
    http_port: Annotated[int, Variables("AI_INFRA_HTTP_PORT")] = Field(
        default=0, ge=0, le=65535, description="Port of /metrics, /health, /healthz, /readyz; 0: any free one."
    )
    http_tls_cert: Annotated[Path | None, Variables("AI_INFRA_HTTP_TLS_CERT")] = Field(
        default=None, description="Certificate of that port, PEM; TLS where it and its key are set."
    )
    http_tls_key: Annotated[Path | None, Variables("AI_INFRA_HTTP_TLS_KEY")] = Field(
        default=None, description="Its private key, PEM."
    )
    http_tls_client_ca: Annotated[Path | None, Variables("AI_INFRA_HTTP_TLS_CLIENT_CA")] = Field(
        default=None, description="Authority whose client certificates are asked for on that port; none where not set."
    )
    replica: Annotated[int, Variables("AI_INFRA_REPLICA")] = Field(
        default=0, ge=0, description="Number of this replica, for logs and metrics."
    )
    urls: Annotated[CommaSeparated, Variables("AI_INFRA_SERVICE_URLS")] = Field(
        default=(),
        description="Where `ai-infra status` finds running replicas, comma-separated `<service>=<url>`; those of the "
        "stack on this machine are known without it.",
    )


class Telemetry(Section):
    """What a process tells about itself."""

    otel_collector_url: Annotated[str | None, Variables("OTEL_COLLECTOR_URL")] = Field(
        default=None, description="Where traces go (OTLP over HTTP); none where not set."
    )
    prom_endpoint: Annotated[str | None, Variables("PROM_ENDPOINT")] = Field(
        default=None, description="Prometheus that is queried (later)."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Variables("AI_INFRA_LOG_LEVEL")] = Field(
        default="info", description="Least severe log line that is written."
    )
    log_format: Annotated[Literal["auto", "json", "text"], Variables("AI_INFRA_LOG_FORMAT")] = Field(
        default="auto", description="Form of a log line; auto: text on a terminal, JSON elsewhere."
    )


class Serving(Section):
    """Serving (later)."""

    cache_max_items: Annotated[int, Variables("CACHE_MAX_ITEMS")] = Field(
        default=16, ge=1, description="Models kept in memory (later)."
    )
