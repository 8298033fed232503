"""The indexer as a process: what it hears and says, and how its parts are put together."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Final

import structlog
from confluent_kafka import Consumer, TopicPartition

from ai_infra.bus.kafka.config import group_config
from ai_infra.bus.kafka.schema_registry import schema_registry, verifier_for
from ai_infra.bus.kafka.topics import SERVICE_INPUTS, group_of, input_partitions
from ai_infra.bus.process import ServiceProcess, keep_running
from ai_infra.bus.transactions import TransactionalProducer
from ai_infra.errors import UnavailableError
from ai_infra.events.generated import AuditCheckpoint, AuditFinding
from ai_infra.objects.exceptions import ObjectsError
from ai_infra.objects.reader import BucketReader
from ai_infra.objects.store import ObjectStore
from ai_infra.readmodel.connection import connect
from ai_infra.readmodel.migrations import migrate
from ai_infra.settings import Settings
from ai_infra.tlog.exceptions import TlogError
from ai_infra.trust.open import load_roots
from ai_infra_indexer import SERVICE
from ai_infra_indexer.archive import LaneArchive
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.companions import LOOK_SECONDS as COMPANIONS_SECONDS
from ai_infra_indexer.companions import archive_companions, archive_schema
from ai_infra_indexer.completeness.watch import LOOK_SECONDS as COMPLETENESS_SECONDS
from ai_infra_indexer.completeness.watch import CompletenessWatch
from ai_infra_indexer.exceptions import Forked
from ai_infra_indexer.finality import Finality, FinalLane
from ai_infra_indexer.handover import MAX_BYTES, Handover
from ai_infra_indexer.heads import HeadsWriter
from ai_infra_indexer.inputs import Around
from ai_infra_indexer.lane import Lane
from ai_infra_indexer.looking import Looked, looking
from ai_infra_indexer.loop import Indexer, placed
from ai_infra_indexer.order import Source
from ai_infra_indexer.projecting import LOOK_SECONDS as PROJECTION_SECONDS
from ai_infra_indexer.projecting import ProjectionWatch
from ai_infra_indexer.pruner import LOOK_SECONDS as PRUNING_SECONDS
from ai_infra_indexer.pruner import Pruner
from ai_infra_indexer.publish import Publisher, read_position
from ai_infra_indexer.replay import LaneVerifier
from ai_infra_indexer.reprojection import Reprojected, reproject
from ai_infra_indexer.retention import LOOK_SECONDS as RETENTION_SECONDS
from ai_infra_indexer.retention import RetentionWatch
from ai_infra_indexer.signing import LogKeys
from ai_infra_indexer.store import Connection, end_stalled, read_offsets
from ai_infra_indexer.taking import take

log = structlog.get_logger(__name__)

SAYS: Final = (AuditFinding, AuditCheckpoint)
COMMITTED_SECONDS: Final = 30.0
# A process that stands still in the middle of its transaction (halted, its machine frozen) would hold the lane's row as
# long as its connection lives, which is hours: Postgres ends its session instead, or who takes the lane does, and who
# waits says so meanwhile.
STALLED_MS: Final = 15_000
LOCK_MS: Final = 5_000
GC_THRESHOLD: Final = 1_000_000  # objects of some batches: with fewer, each batch is looked through for cycles
COLLECT_SECONDS: Final = 60.0  # so they are looked for by the clock: boto3 leaves some behind each request
# Threads take the interpreter from each other, and from the loop: sixteen need a third more CPU for each object. Four
# put more than a replica archives, at 30 ms an object too.
PARALLEL_PUTS: Final = 4
# A commit sends what there is at once, however long it might linger. With a short time librdkafka asks in a busy loop,
# while thousands of messages are still being put into the transaction, whether it may send them yet.
LINGER_MS: Final = 100


def main(settings: Settings, stop: threading.Event) -> int:
    """Run the indexer until `stop` is set; returns its exit code. Raises what a new start cannot mend."""

    def serve(process: ServiceProcess, stop: threading.Event) -> None:
        migrate(settings.database.url)
        completeness = CompletenessWatch(settings, lambda: open_connection(settings))
        indexer = build(process, completeness)
        process.keys_open = True
        process.liveness["loop"] = indexer.check_alive
        projection = ProjectionWatch(indexer.held, lambda: open_connection(settings), anew(settings))
        retention = RetentionWatch(settings, indexer.held, lambda: open_connection(settings))
        enough = threading.Event()  # nobody looks at the lanes any more
        pruner = Pruner(
            indexer.held,
            lambda: open_connection(settings),
            archive_of(settings),
            load_roots(settings),
            settings.log.hot_days,
            enough,
        )
        process.serving(
            {
                "loop": indexer.check_loop,
                "lanes": indexer.check_lanes,
                "finality": indexer.check_finality,
                "retention": retention.check,
                "projection": projection.check,
                "pruning": pruner.check,
            }
        )
        # Batches are many thousand small objects and none of them is in a cycle: to look for cycles in them, and in all
        # modules, took a good part of the loop's time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 20)
        log.info("service up", service=SERVICE, origin=settings.log.origin, lanes=settings.log.lanes)
        with looking(
            enough,
            Looked("retention", retention.look, RETENTION_SECONDS),
            Looked("projection", projection.look, PROJECTION_SECONDS),
            Looked("pruner", pruner.look, PRUNING_SECONDS),
            Looked("completeness", lambda: completeness.look(indexer.held()), COMPLETENESS_SECONDS),
            Looked("companions", companions_of(settings), COMPANIONS_SECONDS),
            Looked("cycles", gc.collect, COLLECT_SECONDS),  # some milliseconds: what is imported was frozen
        ):
            indexer.run(stop)

    return keep_running(SERVICE, SAYS, settings, stop, serve)


def build(process: ServiceProcess, completeness: CompletenessWatch) -> Indexer:
    """The indexer of one process, ready to run."""
    settings = process.settings
    keyring = process.keyrings.latest
    store = ObjectStore(settings, parallel_puts=PARALLEL_PUTS)
    archive_uri = f"s3://{settings.objects.archive_bucket}"
    if (registry := schema_registry(settings)) is not None:
        registry.before_learning = lambda sha256, text: archive_schema(store, archive_uri, settings, sha256, text)
    archive_companions(store, archive_uri, settings)
    taker = Taker(process, store, archive_uri)

    def make_producer() -> TransactionalProducer:
        producer = TransactionalProducer(settings, service=SERVICE, **{"linger.ms": LINGER_MS})
        producer.initialise()
        return producer

    origin, reader = settings.log.origin, BucketReader(store, archive_uri)
    lanes = [ArchivedLane(reader, origin, number) for number in range(settings.log.lanes)]
    heads = HeadsWriter(store, archive_uri, lanes, origin, taker.keys.newest, lambda: process.keyrings.latest)
    finality = Finality(
        lambda: open_connection(settings),
        Publisher(process.session, process.frame, found=completeness),
        make_producer,
        interval_s=settings.log.checkpoint_interval_ms / 1000,
        write_heads=heads.write,
    )
    finality.start()
    audit, chain = taker.keys.newest(), taker.keys.chain(keyring)
    log.info("keys open", audit=audit.key_id, chain=chain.key_id, keyring=keyring.version)
    config = {**group_config(settings, group_of(SERVICE)), "enable.partition.eof": True}

    def each_turn() -> None:
        process.turn()
        taker.around.turn()

    return Indexer(config, SERVICE_INPUTS[SERVICE], taker, taker.connection, finality, each_turn)


def anew(settings: Settings) -> Callable[[int], Reprojected]:
    """What projects a lane anew, beside its live rows."""
    archived, roots, lanes = archive_of(settings), load_roots(settings), settings.log.lanes
    return lambda lane: reproject(settings.database.url, archived(lane), roots=roots, lanes=lanes)


def companions_of(settings: Settings) -> Callable[[], None]:
    """What puts into the archive what has come to lie beside the log since, over a connection of its own."""
    store = ObjectStore(settings)
    return lambda: archive_companions(store, f"s3://{settings.objects.archive_bucket}", settings)


def archive_of(settings: Settings) -> Callable[[int], ArchivedLane]:
    """The archive's read side, lane by lane, over a connection of its own."""
    reader = BucketReader(ObjectStore(settings), f"s3://{settings.objects.archive_bucket}")
    return lambda lane: ArchivedLane(reader, settings.log.origin, lane)


def open_connection(settings: Settings) -> Connection:
    """A connection on which every statement is a transaction of its own unless one is opened."""
    connection = connect(settings.database.url, application="ai-infra indexer", autocommit=True)
    times = f"SET idle_in_transaction_session_timeout = {STALLED_MS}; SET lock_timeout = {LOCK_MS}"
    connection.execute(times.encode())
    return connection


class Taker:
    """Takes lanes for this process: from Postgres, archive and Kafka to a lane that can be worked."""

    def __init__(self, process: ServiceProcess, store: ObjectStore, archive_uri: str) -> None:
        settings = process.settings
        self._settings = settings
        self._process = process
        self._store = store
        self._archive_uri = archive_uri
        self._roots = load_roots(settings)
        self.around = Around(settings, process.broadcast)
        self._connection: Connection | None = None
        self.keys = LogKeys(settings, process.keyrings)

    def __call__(self, consumer: Consumer, number: int) -> tuple[Lane, FinalLane]:
        settings = self._settings
        connection = self._open()
        end_stalled(connection, STALLED_MS)
        archive = LaneArchive(
            self._store,
            self._archive_uri,
            settings.log.origin,
            number,
            self.keys.audit,
            retention_days=settings.objects.retention_days,
        )
        # First of all: it waits until no transaction of a predecessor is pending.
        position = read_position(consumer, connection, number, settings.log.lanes, timeout=COMMITTED_SECONDS)
        # What a predecessor has signed last may be by a key that this process has not read of yet.
        self.around.catch_up()
        keyring = self._process.keyrings.latest
        try:
            taken = take(connection, archive, number, keyring=keyring, roots=self._roots, lanes=settings.log.lanes)
        except (ObjectsError, TlogError) as error:
            if isinstance(error, UnavailableError):
                raise
            raise Forked(
                f"the archive of lane {number} can't be read ({error}): what it has promised is changed, covered or "
                f"gone. `ai-infra audit verify --lane {number}` says which"
            ) from error
        checkpoint = taken.checkpoint
        if checkpoint is not None:
            checkpoint = archive.signed_anew(checkpoint, taken.edge, taken.keyrings.latest)
        stored = read_offsets(connection, number)
        sources = input_partitions(SERVICE, settings.log.lanes, number)

        def committed(places: list[Source]) -> dict[Source, int]:
            found = consumer.committed([TopicPartition(*place) for place in places], timeout=COMMITTED_SECONDS)
            return {(place.topic, place.partition): place.offset for place in found}

        offsets = {**stored, **placed(stored, self.around.begins, committed, sources)}
        if position.size > taken.head.size:
            log.error(
                "audit-events has more than the log: the log was begun anew under a Kafka that remembers the old one",
                lane=number,
                published=position.size,
                size=taken.head.size,
            )
        verifier = LaneVerifier(taken.keyrings, settings.log.lanes, verifier_for(settings, taken.keyrings))
        handover = Handover(number, taken.head.origin, MAX_BYTES // settings.log.lanes)
        lane = Lane(taken.head, offsets, verifier, self.keys.chain, self.around, handover)
        final = FinalLane(number, archive, taken.edge, taken.edge_hash, checkpoint, position, handover)
        return lane, final

    def connection(self) -> Connection:
        """The one that the last lane was taken with, as it is by now."""
        if self._connection is None:
            raise RuntimeError("expected that a lane was taken before; none was")
        return self._connection

    def _open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = open_connection(self._settings)
        return self._connection
