"""One broker of Kafka in a few hundred lines, for tests of transactions; in memory, in threads of this process.

librdkafka's mock cluster takes transactions but forgets the offsets in them and hides nothing that was aborted. This
one keeps to what the protocol says of them (https://kafka.apache.org/protocol.html and KIP-98, KIP-447 not): producer
epochs shut out the one before; a transaction's rows count when it ends, which a control record in each partition says;
what was aborted is listed for readers; offsets in a transaction count with its commit. It says the oldest versions of
each request that librdkafka still speaks, and does nothing else: no groups, no compression of its own, no replicas.
"""

import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

VERSIONS = {
    "Produce": (0, 3, 7),
    "Fetch": (1, 4, 4),
    "ListOffsets": (2, 1, 1),
    "Metadata": (3, 1, 1),
    "OffsetFetch": (9, 1, 1),
    "FindCoordinator": (10, 1, 1),
    "ApiVersions": (18, 0, 0),
    "InitProducerId": (22, 0, 0),
    "AddPartitionsToTxn": (24, 0, 0),
    "AddOffsetsToTxn": (25, 0, 0),
    "EndTxn": (26, 0, 0),
    "TxnOffsetCommit": (28, 0, 0),
}
NAMES = {number: name for name, (number, _, _) in VERSIONS.items()}
UNKNOWN_TOPIC, UNSUPPORTED_VERSION, OUT_OF_ORDER, BAD_EPOCH, BAD_STATE = 3, 35, 45, 47, 48


class Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from(f">{form}", self._data, self._at)
        self._at += struct.calcsize(f">{form}")
        return value

    def raw(self, size: int) -> bytes:
        self._at += max(size, 0)
        return self._data[self._at - size : self._at] if size > 0 else b""

    def text(self) -> str:
        return self.raw(self.take("h")).decode()

    def many(self, item: Callable[[], Any]) -> list[Any]:
        return [item() for _ in range(self.take("i"))]

    def topics(self, item: Callable[[], Any]) -> list[tuple[str, list[Any]]]:
        return self.many(lambda: (self.text(), self.many(item)))


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def many(items: Iterable[bytes]) -> bytes:
    made = list(items)
    return struct.pack(">i", len(made)) + b"".join(made)


class Partition:
    def __init__(self) -> None:
        self.batches: list[tuple[int, int, bytes]] = []  # first offset, next offset, bytes
        self.end = 0
        self.open: dict[int, int] = {}  # producer: first offset of its transaction
        self.aborted: list[tuple[int, int, int]] = []  # producer, first offset, offset of the control record
        self.sequences: dict[tuple[int, int], int] = {}  # producer and epoch: the next one

    @property
    def stable(self) -> int:
        return min(self.open.values(), default=self.end)

    def append(self, batch: bytes, count: int) -> None:
        self.batches.append((self.end, self.end + count, struct.pack(">q", self.end) + batch[8:]))
        self.end += count

    def close(self, producer: int, epoch: int, *, committed: bool) -> None:
        """With the control record that says how a transaction has ended."""
        first = self.open.pop(producer, None)
        if first is not None and not committed:
            self.aborted.append((producer, first, self.end))
        record = b"\0\0\0\x08" + struct.pack(">hh", 0, committed) + b"\x0c" + struct.pack(">hi", 0, 0) + b"\0"
        record = bytes([len(record) * 2]) + record
        head = struct.pack(">hiqqqhii", 0x30, 0, 0, 0, producer, epoch, -1, 1)
        rest = struct.pack(">ibI", 0, 2, 0) + head + record
        self.append(struct.pack(">qi", 0, len(rest)) + rest, 1)


class Transaction:
    def __init__(self) -> None:
        self.producer, self.epoch = -1, -1
        self.clear()

    def clear(self) -> None:
        self.partitions: set[tuple[str, int]] = set()
        self.offsets: dict[tuple[str, str, int], int] = {}


class Broker:
    """topics: their names and numbers of partitions. asked: the names of requests of transactions, in order."""

    def __init__(self, topics: dict[str, int]) -> None:
        self.topics = {name: [Partition() for _ in range(count)] for name, count in topics.items()}
        self.offsets: dict[tuple[str, str, int], int] = {}
        self.asked: list[str] = []
        self.refuse: dict[str, int] = {}  # request: error code that it gets
        self.swallow = ""  # the request that is carried out, and then the connection is lost instead of an answer
        self._transactions: dict[str, Transaction] = defaultdict(Transaction)
        self._next = 1000
        self._lock = threading.Lock()
        self._address = ("127.0.0.1", 0)
        self.up()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._address[1]}"

    def up(self) -> None:
        self._listener = socket.create_server(self._address)
        self._address = self._listener.getsockname()
        self._connections: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._listen, args=[self._listener])]
        self._threads[0].start()

    def down(self) -> None:
        """Every connection is lost, and nobody listens. What is stored stays."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _listen(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self._connections.add(connection)
                thread = threading.Thread(target=self._serve, args=[connection])
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, suppress(OSError, struct.error):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while size := stream.read(4):
                request = Reader(stream.read(*struct.unpack(">i", size)))
                number, version, correlation = request.take("h"), request.take("h"), request.take("i")
                request.text()
                answer = struct.pack(">i", correlation) + self._answer(NAMES[number], version, request)
                if NAMES[number] == self.swallow:
                    break
                connection.sendall(struct.pack(">i", len(answer)) + answer)
        self._connections.discard(connection)

    def _answer(self, name: str, version: int, request: Reader) -> bytes:
        if not VERSIONS[name][1] <= version <= VERSIONS[name][2]:
            return self._api_versions(UNSUPPORTED_VERSION)  # only ApiVersions itself is asked in a newer one
        with self._lock:
            if name in {"InitProducerId", "AddPartitionsToTxn", "AddOffsetsToTxn", "EndTxn", "TxnOffsetCommit"}:
                self.asked.append(name)
            method: Callable[[Reader], bytes] = getattr(self, f"_{name}")
            return method(request)

    def _api_versions(self, error: int) -> bytes:
        return struct.pack(">h", error) + many(struct.pack(">hhh", *each) for each in VERSIONS.values())

    def _ApiVersions(self, _: Reader) -> bytes:
        return self._api_versions(0)

    def _Metadata(self, request: Reader) -> bytes:
        count = request.take("i")
        names = list(self.topics) if count < 0 else [request.text() for _ in range(count)]
        here = struct.pack(">i", 1) + text("127.0.0.1") + struct.pack(">i", self._address[1]) + struct.pack(">h", -1)
        return many([here]) + struct.pack(">i", 1) + many(map(self._topic, names))

    def _topic(self, name: str) -> bytes:
        known = self.topics.get(name)
        one = many([struct.pack(">i", 1)])
        partitions = (struct.pack(">hii", 0, at, 1) + one + one for at in range(len(known or ())))
        return struct.pack(">h", 0 if known else UNKNOWN_TOPIC) + text(name) + b"\0" + many(partitions)

    def _FindCoordinator(self, _: Reader) -> bytes:
        return struct.pack(">ihhi", 0, 0, -1, 1) + text("127.0.0.1") + struct.pack(">i", self._address[1])

    def _InitProducerId(self, request: Reader) -> bytes:
        """Ends what the producer of the same name before has begun."""
        if error := self.refuse.get("InitProducerId"):
            return struct.pack(">ihqh", 0, error, -1, -1)
        transaction = self._transactions[request.text()]
        if transaction.producer < 0:
            transaction.producer, self._next = self._next, self._next + 1
        transaction.epoch += 1
        self._end(transaction, committed=False)
        return struct.pack(">ihqh", 0, 0, transaction.producer, transaction.epoch)

    def _end(self, transaction: Transaction, *, committed: bool) -> None:
        for name, at in sorted(transaction.partitions):
            self.topics[name][at].close(transaction.producer, transaction.epoch, committed=committed)
        if committed:
            self.offsets.update(transaction.offsets)
        transaction.clear()

    def _begun(self, name: str, request: Reader) -> tuple[Transaction, int]:
        """Of a request that names producer and epoch next; and whether that is still the one."""
        transaction = self._transactions[name]
        known = (request.take("q"), request.take("h")) == (transaction.producer, transaction.epoch)
        return transaction, 0 if known else BAD_EPOCH

    def _AddPartitionsToTxn(self, request: Reader) -> bytes:
        transaction, error = self._begun(request.text(), request)
        topics = request.topics(lambda: request.take("i"))
        if not error:
            transaction.partitions.update((name, at) for name, those in topics for at in those)
        return bytes(4) + many(
            text(name) + many(struct.pack(">ih", at, error) for at in those) for name, those in topics
        )

    def _AddOffsetsToTxn(self, request: Reader) -> bytes:
        return struct.pack(">ih", 0, self._begun(request.text(), request)[1])

    def _TxnOffsetCommit(self, request: Reader) -> bytes:
        name, group = request.text(), request.text()
        transaction, error = self._begun(name, request)
        topics = request.topics(lambda: (request.take("i"), request.take("q"), request.text())[:2])
        if not error:
            transaction.offsets.update({(group, name, at): to for name, those in topics for at, to in those})
        return bytes(4) + many(
            text(name) + many(struct.pack(">ih", at, error) for at, _ in those) for name, those in topics
        )

    def _EndTxn(self, request: Reader) -> bytes:
        transaction, error = self._begun(request.text(), request)
        if not error:
            self._end(transaction, committed=bool(request.take("b")))
        return struct.pack(">ih", 0, error)

    def _OffsetFetch(self, request: Reader) -> bytes:
        group = request.text()
        topics = request.topics(lambda: request.take("i"))
        return many(
            text(name) + many(struct.pack(">iqhh", at, self.offsets.get((group, name, at), -1), 0, 0) for at in those)
            for name, those in topics
        )

    def _Produce(self, request: Reader) -> bytes:
        request.text(), request.take("h"), request.take("i")
        topics = request.topics(lambda: (request.take("i"), request.raw(request.take("i"))))
        return many(
            text(name) + many(self._append(name, at, batch) for at, batch in those) for name, those in topics
        ) + bytes(4)

    def _append(self, name: str, at: int, batch: bytes) -> bytes:
        partition = self.topics[name][at]
        producer, epoch, sequence, count = struct.unpack_from(">qhii", batch, 43)
        transaction = next((one for one in self._transactions.values() if one.producer == producer), Transaction())
        expected = partition.sequences.get((producer, epoch), 0)
        if transaction.epoch != epoch:
            error = BAD_EPOCH
        elif (name, at) not in transaction.partitions:
            error = BAD_STATE
        elif sequence > expected:
            error = OUT_OF_ORDER
        else:
            error = self.refuse.get("Produce", 0)
        if not error and sequence == expected:  # a lower one is here already
            partition.sequences[producer, epoch] = expected + count
            partition.open.setdefault(producer, partition.end)
            partition.append(batch, count)
        return struct.pack(">ihqqq", at, error, partition.end - count, -1, 0)

    def _ListOffsets(self, request: Reader) -> bytes:
        request.take("i")
        topics = request.topics(lambda: (request.take("i"), request.take("q")))
        return many(
            text(name)
            + many(
                struct.pack(">ihqq", at, 0, -1, 0 if when == -2 else self.topics[name][at].end) for at, when in those
            )
            for name, those in topics
        )

    def _Fetch(self, request: Reader) -> bytes:
        for form in "iiii":
            request.take(form)
        settled = bool(request.take("b"))
        topics = request.topics(lambda: (request.take("i"), request.take("q"), request.take("i"))[:2])
        return bytes(4) + many(
            text(name) + many(self._part(name, at, start, settled) for at, start in those) for name, those in topics
        )

    def _part(self, name: str, at: int, start: int, settled: bool) -> bytes:
        partition = self.topics[name][at]
        end = partition.stable if settled else partition.end
        found = [batch for batch in partition.batches if start < batch[1] <= end][:20]
        aborted = [one[:2] for one in partition.aborted if one[2] >= start and found and one[1] < found[-1][1]]
        records = b"".join(batch for _, _, batch in found)
        return (
            struct.pack(">ihqq", at, 0, partition.end, partition.stable)
            + many(struct.pack(">qq", *each) for each in (aborted if settled else ()))
            + struct.pack(">i", len(records))
            + records
        )
