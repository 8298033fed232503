"""Settings: which value counts, what is refused, and that no secret shows."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ai_infra.errors import ConfigurationError
from ai_infra.settings import Settings, load_settings
from ai_infra.settings.layers import DEV_ENV
from ai_infra.settings.load import Settings as SettingsClass
from ai_infra.settings.variables import bound_fields

SECRET = "hunter2-and-more"


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def load_here(overrides: dict[str, Any] | None = None, **environ: str) -> Settings:
        return load_settings(environ=environ, directory=tmp_path, **(overrides or {}))

    return load_here


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_each_layer_counts_before_the_next(load: Any, tmp_path: Path) -> None:
    assert load().log.hot_days == 90
    write(tmp_path / DEV_ENV, "AI_INFRA_HOT_DAYS=1\n")
    assert load().log.hot_days == 1
    write(tmp_path / ".env", "AI_INFRA_HOT_DAYS=2\n")
    assert load().log.hot_days == 2
    assert load(AI_INFRA_HOT_DAYS="3").log.hot_days == 3
    assert load({"AI_INFRA_HOT_DAYS": 4}, AI_INFRA_HOT_DAYS="3").log.hot_days == 4
    assert load({"log": {"hot_days": 5}}, AI_INFRA_HOT_DAYS="3").log.hot_days == 5


def test_our_name_counts_before_the_others_of_a_setting(load: Any) -> None:
    ours = {"AI_INFRA_DATABASE_URL": "postgres://ours", "DATABASE_URL": "postgres://theirs"}
    assert load(**ours).database.url == "postgres://ours"
    assert load(DATABASE_URL="postgres://theirs").database.url == "postgres://theirs"
    assert load(MODEL_REGISTRY_DATABASE_URL="a", DATABASE_URL="b").database.url == "a"


def test_another_name_in_the_environment_counts_before_ours_in_a_file(load: Any, tmp_path: Path) -> None:
    write(tmp_path / ".env", "AI_INFRA_DATABASE_URL=file\n")
    assert load(DATABASE_URL="environment").database.url == "environment"


def test_an_empty_value_counts_as_not_set(load: Any, tmp_path: Path) -> None:
    write(tmp_path / ".env", "AI_INFRA_HOT_DAYS=2\n")
    assert load(AI_INFRA_HOT_DAYS="").log.hot_days == 2


@pytest.mark.parametrize("place", ["environment", ".env", "dev.env", "command line"])
def test_an_unknown_name_of_ours_is_an_error_that_names_the_nearest(load: Any, tmp_path: Path, place: str) -> None:
    overrides, environ = {}, {}
    if place == "environment":
        environ = {"AI_INFRA_LANE": SECRET}
    elif place == "command line":
        overrides = {"AI_INFRA_LANE": SECRET}
    else:
        write(tmp_path / (DEV_ENV if place == "dev.env" else ".env"), f"AI_INFRA_LANE={SECRET}\n")
    with pytest.raises(
        ConfigurationError, match=r"Unknown setting AI_INFRA_LANE in .*Did you mean AI_INFRA_LANES\?"
    ) as e:
        load(overrides, **environ)
    assert SECRET not in str(e.value)


def test_a_name_that_a_key_points_to_is_known(load: Any) -> None:
    settings = load(AI_INFRA_SERVICE_KEY="env:AI_INFRA_MY_OWN_KEY", AI_INFRA_MY_OWN_KEY=SECRET)
    assert settings.variable("AI_INFRA_MY_OWN_KEY").get_secret_value() == SECRET


def test_names_of_the_gateway_are_known_already(load: Any) -> None:
    load(AI_INFRA_ADDR=":8061", AI_INFRA_ALLOW_DEBUG_TOKEN="true", AI_INFRA_DEBUG_TOKEN="dev")


def test_names_of_other_programs_are_none_of_ours(load: Any) -> None:
    load(AI_INFRASTRUCTURE="x", PATH="/bin", AIRFLOW_HOME="/")


def test_kafka_settings_pass_by_librdkafka_s_names(load: Any) -> None:
    config = load(
        KAFKA_BOOTSTRAP_SERVERS="a:1,b:2",
        KAFKA_SASL_MECHANISM="PLAIN",
        KAFKA_SASL_PASSWORD=SECRET,
        KAFKA_ENABLE_SSL_CERTIFICATE_VERIFICATION="true",
        KAFKA_SASL_OAUTHBEARER_CLIENT_ID="me",
    ).kafka.client_config()
    assert config == {
        "bootstrap.servers": "a:1,b:2",
        "sasl.mechanism": "PLAIN",
        "sasl.password": SECRET,
        "enable.ssl.certificate.verification": "true",
        "sasl.oauthbearer.client.id": "me",
    }


def test_what_kafka_s_scripts_and_kubernetes_set_is_passed_over(load: Any) -> None:
    settings = load(
        KAFKA_BOOTSTRAP_SERVERS="a:1",
        KAFKA_HOME="/opt/kafka",
        KAFKA_HEAP_OPTS="-Xmx1g",
        KAFKA_SERVICE_HOST="10.0.0.1",
        KAFKA_SERVICE_PORT="9092",
        KAFKA_PORT="tcp://10.0.0.1:9092",
        KAFKA_PORT_9092_TCP_ADDR="10.0.0.1",
    )
    assert settings.kafka.client_config() == {"bootstrap.servers": "a:1"}


def test_a_librdkafka_that_reads_these_names_takes_them(load: Any) -> None:
    from confluent_kafka import Producer

    config = load(
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9",
        KAFKA_SECURITY_PROTOCOL="SASL_SSL",
        KAFKA_SASL_MECHANISM="SCRAM-SHA-512",
        KAFKA_SASL_USERNAME="u",
        KAFKA_SASL_PASSWORD="p",
        KAFKA_ENABLE_SSL_CERTIFICATE_VERIFICATION="false",
        KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM="none",
    ).kafka.client_config()
    Producer({**config, "log_level": 0})


def test_without_a_broker_or_database_the_error_says_what_to_do(load: Any) -> None:
    settings = load()
    assert not settings.kafka.configured
    for ask in (settings.kafka.client_config, lambda: settings.database.url, lambda: settings.keys.roots):
        with pytest.raises(ConfigurationError, match="ai-infra"):
            ask()


SECRETS = {
    "AI_INFRA_SIGNER_KEY_B64": SECRET,
    "AI_INFRA_DATABASE_URL": f"postgres://u:{SECRET}@h/db",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": SECRET,
    "KMS_BEARER_TOKEN": SECRET,
    "KAFKA_SASL_PASSWORD": SECRET,
    "KAFKA_SSL_KEY_PASSWORD": SECRET,
    "SCHEMA_REGISTRY_URL": f"https://u:{SECRET}@registry",
}


def test_no_secret_shows_in_any_form_of_the_settings(load: Any) -> None:
    settings = load(**SECRETS)
    shown = [repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())]
    assert not [text for text in shown if SECRET in text]


def test_no_secret_shows_in_an_error(load: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(**SECRETS, AI_INFRA_LANES=SECRET, KMS_TIMEOUT_MS=SECRET, AI_INFRA_MIN_PROMO_SCORE=SECRET)
    text = repr(caught.value) + str(caught.value) + str(caught.value.__cause__)
    assert SECRET not in text
    assert "AI_INFRA_LANES" in text
    assert "KMS_TIMEOUT_MS" in text


@pytest.mark.parametrize(
    ("environ", "name", "production"),
    [
        ({}, "dev", False),
        ({"NODE_ENV": "production"}, "prod", True),
        ({"AI_INFRA_ENV": "prod"}, "prod", True),
        ({"NODE_ENV": "development"}, "dev", False),
        ({"NODE_ENV": "production", "AI_INFRA_ENV": "staging"}, "staging", True),
        ({"NODE_ENV": "production", "ENV": "staging"}, "staging", True),
        ({"ENV": "/etc/profile"}, "dev", False),
    ],
)
def test_the_environment_is_named_and_guarded(load: Any, environ: dict[str, str], name: str, production: bool) -> None:
    settings = load(**environ, AI_INFRA_LOG_ORIGIN="example.org/log")
    assert (settings.environment, settings.guards.production) == (name, production)
    assert settings.objects.models_bucket == f"illuvrse-models-{name}"
    assert settings.objects.archive_bucket == f"illuvrse-audit-archive-{name}"


def test_env_is_filled_into_a_bucket_s_name_that_is_set(load: Any, tmp_path: Path) -> None:
    write(tmp_path / ".env", "MODEL_REGISTRY_S3_BUCKET=ai-infra-${ENV}-artifacts\nENV=staging\n")
    assert load().objects.models_bucket == "ai-infra-staging-artifacts"


@pytest.mark.parametrize("value", ["prodution", "live"])
def test_an_environment_that_nobody_knows_is_an_error(load: Any, value: str) -> None:
    with pytest.raises(ConfigurationError, match="production"):
        load(NODE_ENV=value)


def test_in_production_the_dev_stack_is_not_seen(load: Any, tmp_path: Path) -> None:
    write(tmp_path / DEV_ENV, "AI_INFRA_LOG_ORIGIN=dev/log\nKAFKA_BOOTSTRAP_SERVERS=dev:1\n")
    assert load().kafka.configured
    assert not load(NODE_ENV="production", AI_INFRA_LOG_ORIGIN="example.org/log").kafka.configured


def test_the_dev_stack_s_object_store_comes_with_its_own_credentials(load: Any, tmp_path: Path) -> None:
    write(
        tmp_path / DEV_ENV,
        "AWS_ENDPOINT_URL_S3=http://127.0.0.1:7070\nAWS_ACCESS_KEY_ID=dev\nAWS_SECRET_ACCESS_KEY=dev\nAWS_REGION=dev\n",
    )
    arguments = load(AWS_ACCESS_KEY_ID="mine", AWS_SESSION_TOKEN="mine").objects.client_arguments()
    assert arguments == {
        "endpoint_url": "http://127.0.0.1:7070",
        "region_name": "dev",
        "aws_access_key_id": "dev",
        "aws_secret_access_key": "dev",
    }
    own = load(AWS_ENDPOINT_URL_S3="http://elsewhere", AWS_ACCESS_KEY_ID="mine").objects.client_arguments()
    assert own["aws_access_key_id"] == "mine"


@pytest.mark.parametrize(
    ("environ", "what"),
    [
        ({"NODE_ENV": "production", "DEV_ALLOW_EPHEMERAL": "true"}, "DEV_ALLOW_EPHEMERAL"),
        ({"AI_INFRA_ENV": "prod", "DEV_ALLOW_EPHEMERAL": "1"}, "DEV_ALLOW_EPHEMERAL"),
        ({"NODE_ENV": "production"}, "AI_INFRA_LOG_ORIGIN"),
        ({"REQUIRE_KMS": "true", "AI_INFRA_SIGNER_KEY_B64": SECRET}, "AI_INFRA_SIGNER_KEY_B64"),
        ({"REQUIRE_KMS": "true", "AI_INFRA_SERVICE_KEY": "file:/k"}, "AI_INFRA_SERVICE_KEY"),
        ({"REQUIRE_KMS": "true", "MANIFEST_SIGNING_KMS_KEY_ID": "env:K"}, "MANIFEST_SIGNING_KMS_KEY_ID"),
        ({"REQUIRE_MTLS": "true", "SENTINELNET_URL": "http://s"}, "not https"),
        ({"REQUIRE_MTLS": "true", "SENTINELNET_URL": "https://s"}, "client certificate"),
        ({"REQUIRE_MTLS": "true", "AI_INFRA_KMS_ENDPOINT": "https://s"}, "client certificate"),
        ({"REQUIRE_MTLS": "true", "KERNEL_API_URL": "http://s"}, "not https"),
        ({"REQUIRE_MTLS": "true", "AI_INFRA_SERVICE_KEY": "http+sign://s"}, "not https"),
        ({"KMS_MTLS_CERT_PATH": "/c.pem"}, "go together"),
    ],
)  # fmt: skip
def test_what_must_not_start_is_refused(load: Any, environ: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what) as caught:
        load(**environ)
    assert SECRET not in str(caught.value)


def test_mtls_with_everything_it_needs_starts(load: Any) -> None:
    load(
        REQUIRE_MTLS="true",
        SENTINELNET_URL="https://s",
        KMS_ENDPOINT="https://k",
        KMS_MTLS_CERT_PATH="/c.pem",
        KMS_MTLS_KEY_PATH="/k.pem",
    )


def test_a_score_is_exact(load: Any) -> None:
    policy = load(AI_INFRA_MIN_PROMO_SCORE="0.285001").policy
    assert (policy.min_promo_score, policy.min_promo_score_e6) == (Decimal("0.285001"), 285001)
    with pytest.raises(ConfigurationError):
        load(AI_INFRA_MIN_PROMO_SCORE="1.1")


def test_settings_do_not_change(load: Any) -> None:
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.log.lanes = 3


def test_every_variable_is_explained_and_has_one_meaning() -> None:
    bound = list(bound_fields(SettingsClass))
    names = [name for field in bound for name in field.names]
    assert len(names) == len(set(names))
    for field in bound:
        assert field.info.description, field
        assert re.search(r"[.)\w]$", field.info.description)
