"""All settings of a process, from where they are to where they are used.

`load_settings()` is what a program calls, once, at its start: it reads the layers, checks every name, applies the
guards, and either returns immutable settings or raises one ConfigurationError that says what to change. An error never
repeats a value that might be secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ai_infra.errors import ConfigurationError
from ai_infra.settings.guards import check_guards
from ai_infra.settings.layers import Layer, check_names, environment_of, kafka_client_settings, lookup, read_layers
from ai_infra.settings.sections import (
    Database,
    Guards,
    Kafka,
    Keys,
    Kms,
    Log,
    Objects,
    Policy,
    Runner,
    ServiceSettings,
    Serving,
    Telemetry,
)
from ai_infra.settings.variables import bound_fields

_layers: ContextVar[list[Layer] | None] = ContextVar("_layers", default=None)


class Settings(BaseSettings):
    """Settings of one process, by section. Make them with `load_settings`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    guards: Guards = Guards()
    kafka: Kafka = Kafka()
    database: Database = Database()
    objects: Objects = Objects()
    log: Log = Log()
    keys: Keys = Keys()
    kms: Kms = Kms()
    policy: Policy = Policy()
    runner: Runner = Runner()
    service: ServiceSettings = ServiceSettings()
    telemetry: Telemetry = Telemetry()
    serving: Serving = Serving()

    _variables: dict[str, SecretStr] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        layers = _layers.get()
        if layers is None:
            layers = read_layers({}, None, Path.cwd())
        return (init_settings, *(_LayerSource(settings_cls, layer) for layer in layers))

    def model_post_init(self, _context: object, /) -> None:
        for layer in reversed(_layers.get() or ()):
            self._variables.update({name: SecretStr(value) for name, value in layer.values.items()})

    def variable(self, name: str) -> SecretStr | None:
        """Value of any variable, by the same precedence: what an `env:NAME` key points to."""
        return self._variables.get(name)

    @property
    def environment(self) -> str:
        """`dev`, `staging` or `prod`."""
        return self.guards.environment


class _LayerSource(PydanticBaseSettingsSource):
    """One layer of variables as a source of pydantic-settings."""

    def __init__(self, settings_cls: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings_cls)
        self._layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False  # whole sections come from __call__

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        bound_names: set[str] = set()
        for bound in bound_fields(self.settings_cls):
            bound_names.update(bound.names)
            name = next((name for name in bound.names if name in self._layer.values), None)
            if name is not None:
                found.setdefault(bound.section, {})[bound.field] = self._layer.values[name]
        if client := kafka_client_settings(self._layer, bound_names):
            found.setdefault("kafka", {})["client"] = client
        return found


def known_names() -> set[str]:
    """Every name that a field of the settings is bound to."""
    return {name for bound in bound_fields(Settings) for name in bound.names}


def load_settings(
    *, environ: Mapping[str, str] | None = None, directory: Path | None = None, **overrides: Any
) -> Settings:
    """Settings by this precedence: overrides, the environment, `.env`, `.ai-infra/dev.env` (not in production),
    defaults. In each, `AI_INFRA_*` comes before the other names of a setting.

    `overrides` are variables by name (`AI_INFRA_LANES=3`) or sections (`log={"lanes": 3}`). `environ` and `directory`
    stand for the process's environment and working directory. Raises ConfigurationError.
    """
    variables = {name: str(value) for name, value in overrides.items() if name.isupper() and value is not None}
    sections: dict[str, Any] = {name: dict(value) for name, value in overrides.items() if not name.isupper()}
    layers = read_layers(variables, environ, directory or Path.cwd())
    check_names(layers, known_names())
    environment, production = environment_of(layers)
    sections["guards"] = {"environment": environment, "production": production, **sections.get("guards", {})}
    token = _layers.set(layers)
    try:
        settings = Settings(**sections)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, layers)) from None
    finally:
        _layers.reset(token)
    settings = _fill_buckets(settings, layers)
    check_guards(settings)
    return settings


def _fill_buckets(settings: Settings, layers: list[Layer]) -> Settings:
    objects = settings.objects
    filled = {
        name: getattr(objects, name).replace("${ENV}", settings.environment)
        for name in ("models_bucket", "archive_bucket", "drift_bucket")
    }
    copy = settings.model_copy(update={"objects": objects.model_copy(update=filled)})
    copy._variables.update(settings._variables)
    return copy


def _explain(error: ValidationError, layers: list[Layer]) -> str:
    names = {(bound.section, bound.field): bound.names for bound in bound_fields(Settings)}
    sentences = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        location = tuple(str(part) for part in problem["loc"])
        bound = names.get((location[0], location[1])) if len(location) > 1 else None
        name = next((n for n in bound or () if lookup(layers, n) is not None), None)
        sentences.append(f"{name or '.'.join(location)}: {problem['msg']}.")
    return "Settings are not valid. " + " ".join(sentences) + " docs/configuration.md says what is expected."
