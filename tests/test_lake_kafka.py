"""A topic of Kafka as a lake.

Two clusters stand in for a real one, which no package index has. `bench/kafka_broker.py` keeps to the protocol's rules
for transactions, so that exactly-once is shown from end to end through librdkafka's own producer and consumer.
librdkafka's mock cluster is somebody else's reading of the protocol, but it forgets offsets in transactions and shows
aborted rows: here it only has to take everything that the lake says. What only a real cluster can show: that replicas
and coordinators which move keep these promises, authentication, and how long it keeps an offset.
"""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streams import LEAST, MOST, Writer, deliver, lines, rows

from bench.kafka_broker import Broker
from engine.errors import ConfigError, OutputError
from engine.model import ServiceResult
from engine.results.lake.base import Batch, Delivery, Unavailable
from engine.results.table import VERSION, full_rows

pytest.importorskip("confluent_kafka", reason="needs probemill[lake]")

from confluent_kafka import Consumer, TopicPartition

from engine.results.lake.kafka import KafkaLake

PARTITIONS = 3
NIGHT = Delivery("a", "night", "")
MOCK = """
import sys
from confluent_kafka import Producer
cluster = Producer({"test.mock.num.brokers": "3", "log_level": 0})
brokers = cluster.list_topics(timeout=9).brokers.values()
print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def broker() -> Iterator[Broker]:
    made = Broker({"services": PARTITIONS})
    yield made
    made.down()


def target(broker: Broker, topic: str = "services") -> str:
    return f"{broker.address}/{topic}?message.timeout.ms=3000"


def read(brokers: str, isolation: str = "read_committed", partitions: int = PARTITIONS) -> list[Any]:
    """Every message of the topic, as such a reader gets them."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "reader",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition("services", at, 0) for at in range(partitions)])
    found, ends, until = [], 0, time.monotonic() + 30
    while ends < partitions and time.monotonic() < until:
        message = consumer.poll(1)
        if message is not None and message.error():
            ends += 1
        elif message is not None:
            found.append(message)
    consumer.close()
    assert ends == partitions
    return found


def values(brokers: str, isolation: str = "read_committed") -> list[bytes]:
    return sorted(message.value() for message in read(brokers, isolation))


def wanted(made: list[ServiceResult]) -> list[bytes]:
    return sorted(lines(made).splitlines())


@pytest.mark.parametrize("full", [False, True])
def test_messages_are_the_rows(broker: Broker, full: bool) -> None:
    """Byte for byte, lean or full as the delivery says; with key, time and header."""
    made = rows(3000)
    lake = KafkaLake(target(broker), Delivery("a", "night", "", full=full))
    assert deliver(lake, Batch(1, 1), lines(made))
    lake.close()
    lake.close()
    found = read(broker.address)
    blob = full_rows(lines(made)) if full else lines(made)
    assert sorted(message.value() for message in found) == sorted(blob.splitlines())
    keys = {message.key() for message in found}
    assert {b"[2001:db8::1]:65535/tcp", b"nowhere.example:1/udp"} <= keys
    assert any(key.startswith(b"10.0.") for key in keys)
    (most,) = [message for message in found if message.key() == b"[2001:db8::1]:65535/tcp"]
    assert most.timestamp()[1] == 1_795_305_600_000
    assert most.headers() == [("schema_version", b"%d" % VERSION)]


def test_a_batch_is_one_transaction_with_its_mark(broker: Broker) -> None:
    """The offset that says what arrived is committed by what commits the rows."""
    lake = KafkaLake(target(broker), NIGHT)
    assert not lake.holds(Batch(1, 3))
    blob = lines(rows(1000))
    half = blob.index(b"\n", len(blob) // 2) + 1
    lake.write(blob[:half])
    lake.write(blob[half:])
    assert lake.size > len(blob)
    assert read(broker.address) == []
    assert broker.offsets == {}
    lake.commit(Batch(1, 3))
    assert (broker.offsets, lake.size) == ({("probemill-a", "services", 0): 3}, 0)
    steps = [step for at, step in enumerate(broker.asked) if step not in broker.asked[:at]]
    assert steps == ["InitProducerId", "AddPartitionsToTxn", "AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn"]
    assert broker.asked.count("InitProducerId") == broker.asked.count("EndTxn") == 1
    assert lake.holds(Batch(1, 3)) and not lake.holds(Batch(4, 4))
    assert not deliver(lake, Batch(1, 3), blob)
    lake.close()
    other = KafkaLake(target(broker), Delivery("b", "night", ""))
    assert not other.holds(Batch(1, 1))
    other.close()
    assert values(broker.address) == wanted(rows(1000))


def test_a_batch_may_be_empty(broker: Broker) -> None:
    """Its mark is set all the same."""
    lake = KafkaLake(target(broker), NIGHT)
    assert deliver(lake, Batch(1, 1))
    assert lake.holds(Batch(1, 1))
    lake.close()


def test_what_is_discarded_was_never_there(broker: Broker) -> None:
    """For those who read what is committed, even where it has reached the brokers; the lake goes on after it."""
    lake = KafkaLake(target(broker), NIGHT)
    lake.discard()
    lake.write(lines(rows(3000, 1)))
    until = time.monotonic() + 20
    while not values(broker.address, "read_uncommitted") and time.monotonic() < until:
        time.sleep(0.05)
    lake.discard()
    lake.discard()
    assert (lake.size, broker.offsets) == (0, {})
    assert deliver(lake, Batch(1, 1), lines(rows(500, 2)))
    lake.close()
    assert values(broker.address) == wanted(rows(500, 2))
    assert len(values(broker.address, "read_uncommitted")) > 500


def test_a_killed_writer_leaves_every_row_once(broker: Broker) -> None:
    """SIGKILL at random moments, and the same batches again."""
    chance = random.Random(5)
    for done in range(1, 6):
        writer = Writer(KafkaLake, target(broker), "a", 6, 3000)
        assert [writer.committed() for _ in range(done)] == list(range(1, done + 1))
        time.sleep(chance.random() * 0.15)
        writer.kill()
    last = Writer(KafkaLake, target(broker), "a", 6, 3000)
    assert [last.committed() for _ in range(7)] == [1, 2, 3, 4, 5, 6, None]
    assert last.wait() == 0
    assert values(broker.address) == wanted([row for number in range(1, 7) for row in rows(3000, number)])
    assert broker.offsets == {("probemill-a", "services", 0): 6}


def test_a_commit_whose_answer_is_lost(broker: Broker) -> None:
    """It is not known to have happened, so it is asked for; and the batch is not written again."""
    lake = KafkaLake(target(broker), NIGHT)
    lake.write(lines(rows(100)))
    broker.swallow = "EndTxn"
    with pytest.raises(Unavailable):
        lake.commit(Batch(1, 1))
    lake.discard()
    broker.swallow = ""
    assert not deliver(lake, Batch(1, 1), lines(rows(100)))
    lake.close()
    assert values(broker.address) == wanted(rows(100))


def test_a_later_writer_of_the_run_shuts_out_the_earlier(broker: Broker) -> None:
    """Which was only slow: its rows do not count, and it hears that it has been replaced."""
    slow, fast = KafkaLake(target(broker), NIGHT), KafkaLake(target(broker), NIGHT)
    slow.write(lines(rows(100)))
    assert deliver(fast, Batch(1, 1), lines(rows(100)))
    with pytest.raises(Unavailable, match="another process"):
        slow.commit(Batch(1, 1))
    slow.discard()
    assert slow.holds(Batch(1, 1))
    assert values(broker.address) == wanted(rows(100))
    slow.close()
    fast.close()


def test_a_cluster_that_comes_back(broker: Broker) -> None:
    """It goes away in the middle of a batch: for now there is no writing, then the batch arrives once."""
    lake = KafkaLake(f"{broker.address}/services?message.timeout.ms=1000&queue.buffering.max.kbytes=1024", NIGHT)
    lake.write(lines(rows(500)))
    broker.down()
    with pytest.raises(Unavailable, match="kafka:"):
        for _ in range(50):  # the queue takes some, and then waits
            lake.write(lines(rows(500)))
    lake.discard()
    with pytest.raises(Unavailable):
        lake.holds(Batch(1, 1))
    lake.discard()
    broker.up()
    assert deliver(lake, Batch(1, 1), lines(rows(500)))
    assert lake.holds(Batch(1, 1))
    lake.close()
    assert values(broker.address) == wanted(rows(500))


def test_a_cluster_that_comes_back_in_time(broker: Broker) -> None:
    """Then nothing is heard of it."""
    lake = KafkaLake(f"{broker.address}/services?message.timeout.ms=20000", NIGHT)
    lake.write(lines(rows(500)))
    broker.down()
    lake.write(lines(rows(500, 1)))
    broker.up()
    lake.commit(Batch(1, 2))
    assert lake.holds(Batch(1, 2))
    lake.close()
    assert values(broker.address) == wanted(rows(500) + rows(500, 1))


@pytest.mark.parametrize(
    ("request_name", "code", "message", "passes"),
    [
        ("InitProducerId", 53, "uthoriz", False),  # TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        ("InitProducerId", 50, r"lower transaction\.timeout\.ms", False),  # INVALID_TRANSACTION_TIMEOUT
        ("Produce", 29, "uthoriz", False),  # TOPIC_AUTHORIZATION_FAILED
        ("Produce", 10, r"raise message\.max\.bytes", False),  # MSG_SIZE_TOO_LARGE
        ("Produce", 56, "kafka:", True),  # KAFKA_STORAGE_ERROR: tried again until either clock has run out
    ],
)
def test_what_will_not_pass_is_said_so(
    broker: Broker, request_name: str, code: int, message: str, passes: bool
) -> None:
    """Where, what and how to mend, in one line; the same lake works once it is mended."""
    lake = KafkaLake(target(broker), NIGHT)
    broker.refuse[request_name] = code
    with pytest.raises(OutputError, match=message) as refused:
        deliver(lake, Batch(1, 1), lines(rows(10)))
    assert isinstance(refused.value, Unavailable) == passes
    assert str(refused.value).startswith(lake.name)
    assert "\n" not in str(refused.value)
    lake.discard()
    broker.refuse.clear()
    assert deliver(lake, Batch(1, 1), lines(rows(10)))
    lake.close()
    assert values(broker.address) == wanted(rows(10))


def test_a_row_that_no_cluster_takes(broker: Broker) -> None:
    """It is larger than a message may be."""
    lake = KafkaLake(f"{target(broker)}&message.max.bytes=2000", NIGHT)
    big = lines([LEAST]).replace(b'"verdict"', b'"fingerprint":"' + b"x" * 3000 + b'","verdict"')
    with pytest.raises(OutputError, match=r"raise message\.max\.bytes"):
        lake.write(lines([MOST, LEAST]) + big)
    lake.discard()
    lake.close()
    assert values(broker.address) == []


def test_a_topic_that_is_not_there(broker: Broker) -> None:
    """Where the cluster makes none on demand."""
    lake = KafkaLake(target(broker, "nothing"), NIGHT)
    with pytest.raises(OutputError, match="create the topic") as refused:
        lake.holds(Batch(1, 1))
    assert not isinstance(refused.value, Unavailable)
    lake.discard()
    lake.close()


def test_lines_that_are_no_rows_are_refused(broker: Broker) -> None:
    lake = KafkaLake(target(broker), NIGHT)
    with pytest.raises(OutputError, match="rows"):
        lake.write(b"{}\n")
    lake.discard()
    lake.close()


def test_librdkafkas_own_cluster_takes_it() -> None:
    """Of exactly-once it shows that each step is allowed where it is said, and that the rows are there."""
    process = subprocess.Popen([sys.executable, "-c", MOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdin and process.stdout
        brokers = process.stdout.readline().strip()
        lake = KafkaLake(f"{brokers}/services?compression.type=zstd", NIGHT)
        for number in (1, 2):
            assert deliver(lake, Batch(number, number), lines(rows(1000, number)))
        lake.write(lines(rows(10)))
        lake.discard()
        lake.close()
        found = {message.value() for message in read(brokers, partitions=4)}
        process.stdin.close()
    assert found >= set(wanted(rows(1000, 1) + rows(1000, 2)))


def test_properties_come_from_the_query_and_from_a_file(broker: Broker, tmp_path: Path) -> None:
    """The query goes first; the name shows neither."""
    secrets = tmp_path / "kafka.properties"
    secrets.write_text("# of the farm\n\nsasl.password = s3cr3t=\n message.timeout.ms=0\n")
    lake = KafkaLake(f"{target(broker)}&config={secrets}", NIGHT)
    assert lake.name == f"kafka:{broker.address}/services"
    assert deliver(lake, Batch(1, 1), lines([LEAST]))
    lake.close()
    with pytest.raises(ConfigError, match=r"message\.timeout\.ms"):
        KafkaLake(f"{broker.address}/services?config={secrets}", NIGHT)
    secrets.write_text("s3cr3t\n")
    with pytest.raises(ConfigError, match="line 1") as refused:
        KafkaLake(f"{target(broker)}&config={secrets}", NIGHT)
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "BROKER"),
        ("127.0.0.1:1", "BROKER"),
        ("127.0.0.1:1/", "BROKER"),
        ("127.0.0.1:1/a topic", "BROKER"),
        ("127.0.0.1:1/t?x", "NAME=VALUE"),
        ("127.0.0.1:1/t?nonsense=1", "nonsense"),
        ("127.0.0.1:1/t?acks=1", "acks: set by probemill"),
        ("127.0.0.1:1/t?transactional.id=x&enable.idempotence=false", "enable"),
        ("127.0.0.1:1/t?isolation.level=read_uncommitted", "isolation"),
        ("127.0.0.1:1/t?message.timeout.ms=x", "number"),
        ("127.0.0.1:1/t?config=/nowhere/x", "No such file"),
    ],
)
def test_a_target_that_cannot_be_read(target: str, message: str) -> None:
    """What exactly-once stands on is nobody else's to set."""
    with pytest.raises(ConfigError, match=message):
        KafkaLake(target, NIGHT)
