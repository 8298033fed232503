"""A real Apache Kafka broker (KRaft, one node) from its Maven artifacts.

One node is all three: broker, controller and log of the cluster. So everything that is replicated elsewhere has one
replica here; apart from that it behaves as production does: transactions, the group protocol of KIP-848, no topic that
nobody created.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import uuid
from base64 import urlsafe_b64encode
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from ai_infra.devstack.cache import cache_directory, cached
from ai_infra.devstack.exceptions import PartFailed, ToolMissing
from ai_infra.devstack.part import Tool
from ai_infra.devstack.ports import HOST, answers
from ai_infra.devstack.processes import Launch
from ai_infra.devstack.progress import Progress, run_with_progress

VERSION: Final = "4.1.2"  # the same as in pom.xml; a test compares them
LEAST_JAVA: Final = 17
HEAP: Final = "512m"
SESSION_MS: Final = 10_000  # how long a silent member of a group keeps its lanes; at least 5,000

CONFIGURATION: Final = """\
# Written at each start of the stack: changes made here do not last.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
controller.listener.names=CONTROLLER
listeners=BROKER://{host}:{broker},CONTROLLER://{host}:{controller}
advertised.listeners=BROKER://{host}:{broker}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
log.dirs={data}

# One node: one replica of everything.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# A topic that nobody created is a typo.
auto.create.topics.enable=false
# A group that starts waits for nobody.
group.initial.rebalance.delay.ms=0
# A replica that was killed gives up its lanes after this, not after 45 s: on one machine nothing is that far away.
group.consumer.session.timeout.ms={session}
group.consumer.min.session.timeout.ms=5000
group.consumer.heartbeat.interval.ms=2000
group.consumer.min.heartbeat.interval.ms=1000
# Lost offsets stop a service (auto.offset.reset=error), so they outlive a stack that rests for a year.
offsets.retention.minutes=525600
# Small and quick to recover: a few partitions of the inner topics, small indexes.
offsets.topic.num.partitions=8
transaction.state.log.num.partitions=8
share.coordinator.state.topic.num.partitions=4
log.index.size.max.bytes=1048576
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=33554432
# After kill -9 a broker may register again once its old session is over (9 s by default).
broker.session.timeout.ms=6000
# Aborts of dead producers are looked for this often (10 s by default): their open transactions hold back all readers.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
"""


class Kafka:
    """The broker. Ports: `kafka` for clients, `kafka_controller` for the node itself."""

    name = "kafka"
    listens: tuple[str, ...] = ("kafka", "kafka_controller")
    start_seconds = 90.0
    stop_signal: int = signal.SIGTERM
    stop_seconds = 30.0

    def __init__(self, directory: Path, *, session_ms: int = SESSION_MS) -> None:
        self.directory = directory / "kafka"
        self._session_ms = session_ms

    def tools(self) -> tuple[Tool, ...]:
        java = Tool(
            "Java", java_found(), f"install a Java runtime, {LEAST_JAVA} or newer (Debian: openjdk-17-jre-headless)"
        )
        if self._libraries_directory().is_dir():
            return (java,)
        maven = Tool("Maven", shutil.which("mvn"), "install Apache Maven (Debian: maven): it fetches Kafka once")
        return (java, maven)

    def prepare(self, progress: Progress) -> None:
        for tool in self.tools():
            if tool.missing:
                raise ToolMissing(f"Kafka needs {tool.name}: {tool.advice}")

        def fetch(into: Path) -> None:
            (into / "pom.xml").write_text(resources.files("ai_infra.devstack").joinpath("pom.xml").read_text())
            run_with_progress(
                ["mvn", "--batch-mode", "--strict-checksums", "dependency:copy-dependencies", "-DoutputDirectory=libs"],
                what=f"fetching Apache Kafka {VERSION} (45 MB, once)",
                progress=progress,
                output=into / "fetch.log",
                cwd=into,
            )

        cached(self._libraries_directory().name, fetch, progress=progress)
        self.directory.mkdir(parents=True, exist_ok=True)

    def launch(self, ports: dict[str, int]) -> Launch:
        configuration = self.directory / "server.properties"
        configuration.write_text(
            CONFIGURATION.format(
                host=HOST,
                broker=ports["kafka"],
                controller=ports["kafka_controller"],
                data=self.directory / "data",
                session=self._session_ms,
            )
        )
        if not (self.directory / "data" / "meta.properties").exists():
            self._format(configuration)
        environment = {**os.environ, "KAFKA_DEBUG": ""}
        return Launch(self._java("kafka.Kafka", str(configuration)), environment, self.directory)

    def ready(self, ports: dict[str, int]) -> bool:
        if not answers(ports["kafka"]):
            return False
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        admin = AdminClient(
            {"bootstrap.servers": f"{HOST}:{ports['kafka']}", "log_level": 0, "socket.timeout.ms": 2000}
        )
        try:
            return bool(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def data(self) -> tuple[Path, ...]:
        return (self.directory,)

    def _format(self, configuration: Path) -> None:
        """Give the empty data directory its cluster id: KRaft starts on no other."""
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        answer = subprocess.run(
            self._java("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "--config", str(configuration)),
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode != 0:
            raise PartFailed(f"Kafka could not format its data directory: {answer.stderr.strip()[-800:]}")

    def _java(self, main: str, *arguments: str) -> list[str]:
        log4j = resources.files("ai_infra.devstack").joinpath("log4j2.properties")
        return [
            java_program(),
            f"-Xmx{HEAP}",
            f"-Xms{HEAP}",
            "-XX:+UseSerialGC",  # the quickest to start and the smallest; its pauses are short on so small a heap
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={log4j}",
            "-cp",
            str(self._libraries_directory() / "libs" / "*"),
            main,
            *arguments,
        ]

    @staticmethod
    def _libraries_directory() -> Path:
        return cache_directory() / f"kafka-{VERSION}"


def java_program() -> str:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home) / "bin" / "java") if home else "java"


@cache
def java_found() -> str | None:
    """The version of the Java on this machine, if it is new enough for the broker."""
    try:
        answer = subprocess.run([java_program(), "-version"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    version = re.search(r'version "((\d+)[^"]*)"', answer.stderr + answer.stdout)
    return version.group(1) if version and int(version.group(2)) >= LEAST_JAVA else None
