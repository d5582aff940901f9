"""A topic of Kafka as a lake. Needs the extra `lake`.

    kafka:BROKER:PORT[,BROKER:PORT]/TOPIC[?NAME=VALUE&...]

The query gives properties of librdkafka: `security.protocol=SASL_SSL&compression.type=zstd`. `config=FILE` is a file of
them, NAME=VALUE lines, for secrets; the query goes before it. `message.timeout.ms` (60,000 here) is also how long each
step waits for the cluster. What makes it exactly-once cannot be set: `_OURS`.

A row is a message: its key `ip:port/proto`, with the host's name where there is no address; its value the NDJSON line;
its time `started`; its header `schema_version`.

Exactly once: a batch is one transaction of an idempotent producer, `transactional.id` probemill-RUN. In the same
transaction the consumer group probemill-RUN, which nobody consumes with, commits the batch's last segment as its offset
in partition 0 of the topic: that is the mark. Whoever asks for it has shut out earlier writers of the run before, and
the cluster has finished or aborted what they left. For that

- readers of the topic need `isolation.level=read_committed`, or they see what was aborted, too;
- the group's offset has to outlive the run: `offsets.retention.minutes` of the cluster, 7 days after the last batch
  where nobody changed it;
- a batch has to be committed within `transaction.timeout.ms` of its first row (15 minutes here, the most that a cluster
  allows unless told otherwise). Later the cluster aborts it, which `commit` reports as `Unavailable`: the batch is
  tried again. While a transaction is open, `read_committed` readers wait at its beginning, so write a batch in one go.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import parse_qsl

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from msgspec import Struct

from engine.errors import ConfigError, OutputError
from engine.results.lake.base import Batch, Delivery, Unavailable
from engine.results.table import VERSION, full_rows, pieces

_OURS = {
    *("bootstrap.servers", "metadata.broker.list", "transactional.id", "group.id"),
    *("enable.idempotence", "acks", "request.required.acks", "enable.gapless.guarantee", "isolation.level"),
    *("enable.auto.commit", "delivery.report.only.error", "delivery.timeout.ms"),
}  # the last is another name of message.timeout.ms
_DEFAULTS = {
    "message.timeout.ms": "60000",
    "transaction.timeout.ms": "900000",
    "queue.buffering.max.kbytes": "65536",  # of memory for rows on their way
    "queue.buffering.max.messages": "500000",
    "linger.ms": "20",
    "log_level": "0",  # errors are raised; nothing is written on the terminal
}
_ABORT_S = 5.0  # an abort that takes longer is left to the cluster
_TOPIC_S = 5.0  # a cluster that makes topics on demand has made it by then
_PIECE = 1 << 20  # bytes
_HEADERS: list[tuple[str, str | bytes | None]] = [("schema_version", str(VERSION))]
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")

T = TypeVar("T")

_LASTING = {
    KafkaError._AUTHENTICATION,
    KafkaError._INVALID_ARG,
    KafkaError._SSL,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.POLICY_VIOLATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
}
_FOLLOWING = {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}  # rows that were given up after another
_REMEDIES = {
    KafkaError._UNKNOWN_TOPIC: "create the topic",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "create the topic",
    KafkaError.MSG_SIZE_TOO_LARGE: "raise message.max.bytes here and max.message.bytes of the topic",
    KafkaError.INVALID_TRANSACTION_TIMEOUT: "lower transaction.timeout.ms to what the cluster allows",
    KafkaError._FENCED: "another process delivers this run, or the batch took longer than transaction.timeout.ms",
}


class _Row(Struct, gc=False):
    ip: str
    port: int
    proto: str
    started: datetime
    host: str | None = None

    @property
    def key(self) -> str:
        place = f"[{self.ip}]" if ":" in self.ip else self.ip or self.host or ""
        return f"{place}:{self.port}/{self.proto}"


_rows = msgspec.json.Decoder(_Row).decode_lines


class KafkaLake:
    def __init__(self, target: str, delivery: Delivery) -> None:
        """target: what follows `kafka:`. Connects at the first use. Raises ConfigError."""
        brokers, self._topic, given = _read(target)
        self.name = f"kafka:{brokers}/{self._topic}"
        self._full = delivery.full
        self._full_at = delivery.size
        self._mark = f"probemill-{delivery.run}"
        self._config = {**_DEFAULTS, **given, "bootstrap.servers": brokers}
        self._wait = _seconds(self._config["message.timeout.ms"])
        self._trouble: KafkaError | None = None  # of the first row that was lost, else the connection's last
        self._lost = False  # a row of the batch
        self._failed = False  # a step, since the last discard
        self._ready = False  # the producer, for transactions
        self._open = False  # a transaction
        self._size = 0
        self._producer: Producer | None = self._new_producer()  # a property that is not one shows here
        self._consumer = Consumer(
            {
                **self._config,
                "group.id": self._mark,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            }
        )

    @property
    def size(self) -> int:
        """Full with its first row: a transaction that stays open makes readers wait."""
        return self._full_at if self._size else 0

    def holds(self, batch: Batch) -> bool:
        self._connected()
        mark = self._settle(lambda left: self._consumer.committed([TopicPartition(self._topic, 0)], timeout=left))[0]
        if mark.error is not None:
            self._fail(mark.error)
        return bool(mark.offset >= batch.last)

    def write(self, rows: bytes) -> None:
        producer = self._begun()
        for piece in pieces(rows, _PIECE):
            for key, value, moment in self._messages(piece):
                self._produce(producer, key, value, moment)
            self._check(producer, 0.0)

    def commit(self, batch: Batch) -> None:
        producer = self._begun()
        group = self._consumer.consumer_group_metadata()
        mark = [TopicPartition(self._topic, 0, batch.last)]
        self._settle(lambda left: producer.send_offsets_to_transaction(mark, group, left))
        self._settle(producer.commit_transaction)
        self._open, self._size, self._trouble = False, 0, None

    def discard(self) -> None:
        """Whatever an abort cannot mend is left to a new producer, which shuts the old one out."""
        if self._producer is not None and self._open:
            try:
                self._producer.purge()
                self._producer.abort_transaction(_ABORT_S)
                self._producer.poll(0)
            except KafkaException:
                self._failed = True
        if self._failed:
            self._producer, self._ready = None, False
        self._trouble, self._lost, self._failed, self._open, self._size = None, False, False, False, 0

    def close(self) -> None:
        self.discard()
        self._producer, self._ready = None, False
        with suppress(KafkaException, RuntimeError):
            self._consumer.close()

    def _messages(self, piece: bytes) -> Iterator[tuple[str, bytes, int]]:
        try:
            lines = (full_rows(piece) if self._full else piece).split(b"\n")
            read = _rows(piece)
        except msgspec.MsgspecError as error:
            raise OutputError(f"{self.name}: rows: cannot be read as result rows: {error}") from error
        for row, line in zip(read, filter(None, lines), strict=True):
            yield row.key, line, round(row.started.timestamp() * 1000)

    def _produce(self, producer: Producer, key: str, value: bytes, moment: int) -> None:
        """Waits while there is no room for it: until rows are delivered, or one is given up."""
        while True:
            try:
                producer.produce(self._topic, value, key, timestamp=moment, headers=_HEADERS)
            except BufferError:
                self._check(producer, 0.01)
            except KafkaException as error:
                self._fail(error.args[0])
            else:
                self._size += len(key) + len(value)
                return

    def _new_producer(self) -> Producer:
        own = {
            "transactional.id": self._mark,
            "enable.idempotence": True,
            "delivery.report.only.error": True,
            "on_delivery": self._delivered,
            "error_cb": self._met,
        }
        try:
            return Producer({**self._config, **own})
        except (KafkaException, ValueError, TypeError) as error:
            reason = error.args[0].str() if isinstance(error, KafkaException) else error
            raise ConfigError(f"{self.name}: {reason}") from None

    def _connected(self) -> Producer:
        """The producer of this run; what an earlier one has left is settled, and the topic is there."""
        if self._producer is None:
            self._producer = self._new_producer()
        if not self._ready:
            self._settle(self._producer.init_transactions)
            self._find_topic(self._producer)
            self._ready = True
        return self._producer

    def _find_topic(self, producer: Producer) -> None:
        end = time.monotonic() + _TOPIC_S
        while True:
            found = self._settle(lambda left: producer.list_topics(self._topic, left)).topics[self._topic]
            if found.error is None:
                return
            if time.monotonic() > end:
                self._fail(found.error, lasting=found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART)
            time.sleep(0.1)

    def _begun(self) -> Producer:
        producer = self._connected()
        if not self._open:
            try:
                producer.begin_transaction()
            except KafkaException as error:
                self._fail(error.args[0])
            self._open = True
        return producer

    def _settle(self, step: Callable[[float], T]) -> T:
        """The outcome of a step that may be said again while it may still succeed."""
        end = time.monotonic() + self._wait
        while True:
            try:
                return step(max(0.0, end - time.monotonic()))
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() >= end:
                    self._fail(error.args[0])

    def _delivered(self, error: KafkaError | None, _: object) -> None:
        if error is not None and not self._lost and error.code() not in _FOLLOWING:
            self._trouble, self._lost = error, True

    def _met(self, error: KafkaError) -> None:
        if not self._lost:
            self._trouble = error

    def _check(self, producer: Producer, wait: float) -> None:
        """Hear what became of rows, for so many seconds if there is nothing to hear."""
        try:
            producer.poll(wait)
        except KafkaException as error:  # how librdkafka's binding tells of what is fatal
            self._fail(error.args[0])
        if self._lost and self._trouble is not None:
            self._fail(self._trouble)

    def _fail(self, error: KafkaError, *, lasting: bool = False) -> NoReturn:
        """What the connection or the rows have met explains more than that a step took too long."""
        self._failed = True
        if self._producer is not None:
            with suppress(KafkaException):
                self._producer.poll(0)
        trouble = self._trouble
        if trouble is not None and (self._lost or trouble.code() in _LASTING):
            error = trouble
        text = error.str() if trouble is None or trouble is error else f"{error.str()} ({trouble.str()})"
        remedy = _REMEDIES.get(error.code(), "see that the brokers can be reached, and what they let this user do")
        kind = OutputError if lasting or error.code() in _LASTING else Unavailable
        raise kind(f"{self.name}: {' '.join(text.split())}; {remedy}")


def _seconds(milliseconds: str) -> float:
    if not milliseconds.isdecimal() or not int(milliseconds):
        raise ConfigError(f"kafka: message.timeout.ms={milliseconds}: say a number above 0")
    return int(milliseconds) / 1000


def _read(target: str) -> tuple[str, str, dict[str, str]]:
    """Brokers, topic and properties. Raises ConfigError, which repeats no values."""
    place, _, query = target.partition("?")
    brokers, _, topic = place.rpartition("/")
    if not brokers or not _TOPIC.fullmatch(topic):
        raise ConfigError("kafka: say BROKER:PORT[,BROKER:PORT]/TOPIC; a topic has letters, digits and ._-")
    try:
        given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True)) if query else {}
    except ValueError:
        raise ConfigError("kafka: after the question mark belong NAME=VALUE pairs with & between them") from None
    if path := given.pop("config", ""):
        given = {**_properties(Path(path)), **given}
    if ours := sorted(given.keys() & _OURS):
        raise ConfigError(f"kafka: {', '.join(ours)}: set by probemill, or rows might arrive twice or not at all")
    return brokers, topic, given


def _properties(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"kafka: config={path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    found = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name.strip()] = value.strip()
        elif line and not line.startswith("#"):
            raise ConfigError(f"kafka: config={path}: line {number} is not NAME=VALUE")
    return found
