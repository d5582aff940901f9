"""Responses by their shape, which is what is left of what they tell when all that varies is masked: counted, sampled.

Contract: `Shapes.add` takes responses one after another, in memory bounded by MOST_SHAPES and ROOM: beyond, the shapes
that fewest hosts have are let go, and counted in `dropped`. The result depends on the order of the input only then.
Pure.
"""

from collections import Counter
from hashlib import blake2b

from msgspec import Struct, field

from engine.insight.learn.sketches import Distinct, Sample
from matcher.tools.tokens import Telling, mask, tellings, tokens

MOST_SHAPES = 50_000
ROOM = 256 << 20  # bytes of samples, all together
SAMPLES = 48  # different responses of a shape
KEPT = 2048  # bytes of a response that are looked at; fingerprints have 900
REMEMBERED = 1 << 15  # shapes of texts that come again
_MOST_PORTS = 64
_COST = 300  # bytes that Python takes for a sample, besides its text


class Answer(Struct, frozen=True):
    """A response that nobody named. probe: its index in the database; soft: the service, where that is known.

    ip, port: empty and 0 where nobody says; text: the fingerprint it was in, as Nmap takes it, or empty.
    """

    probe: int
    data: bytes
    soft: str = ""
    ip: str = ""
    port: int = 0
    pseudo: bool = False
    text: str = ""


class Shape(Struct):
    """probe: index; form: as `telling` has it; mask: the first one's. rows: responses; pseudo: of such hosts.

    services: pairs of host and port, of hosts that answer alike on many ports one. ports, softs: how often, the first
    few. text: the fingerprint with the least digest.
    """

    probe: int
    form: str
    mask: bytes
    rows: int = 0
    pseudo: int = 0
    hosts: Distinct = field(default_factory=Distinct)
    services: Distinct = field(default_factory=Distinct)
    ports: Counter[int] = field(default_factory=Counter)
    softs: Counter[str] = field(default_factory=Counter)
    samples: Sample[bytes] = field(default_factory=lambda: Sample(SAMPLES))
    text: str = ""
    text_digest: int = 0

    @property
    def size(self) -> tuple[int, int, int]:
        """What the largest has most of: hosts, then services, then rows."""
        return self.hosts.count, self.services.count, self.rows

    def merge(self, other: "Shape") -> None:
        """Take in what another has, if it is one of the same kind."""
        self.rows += other.rows
        self.pseudo += other.pseudo
        self.hosts.merge(other.hosts)
        self.services.merge(other.services)
        self.ports.update(other.ports)
        self.softs.update(other.softs)
        for digest, data in other.samples.things.items():
            self.samples.add(digest, data)
        self.take_text(other.text, other.text_digest)

    def take_text(self, text: str, digest: int) -> None:
        if text and (not self.text or digest < self.text_digest):
            self.text, self.text_digest = text, digest


def digest_of(*parts: bytes) -> int:
    """64 evenly spread bits, the same everywhere."""
    return int.from_bytes(blake2b(b"\0".join(parts), digest_size=8).digest(), "big")


class Shapes:
    """dropped: shapes that were let go, and dropped_rows: the responses that were counted for them."""

    def __init__(self, most: int = MOST_SHAPES, room: int = ROOM) -> None:
        self.dropped = self.dropped_rows = 0
        self._shapes: dict[tuple[int, str, bytes], Shape] = {}
        self._known: dict[bytes, bytes] = {}
        self._most = most
        self._room = room
        self._taken = 0

    def shape_of(self, response: bytes) -> bytes:
        """The digest of its shape, whatever the probe."""
        return self._mask(tellings(response[:KEPT])[0])[1]

    def add(self, answer: Answer) -> None:
        """Count a response."""
        data = answer.data[:KEPT]
        part = tellings(data)[0]
        shown, key = self._mask(part)
        place = (answer.probe, part.form, key)
        shape = self._shapes.get(place)
        if shape is None:
            shape = self._shapes[place] = Shape(answer.probe, part.form, shown or self._mask(part, anew=True)[0])
            self._taken += len(shape.mask) + 2000
        self._count(shape, answer, data)
        if len(self._shapes) > self._most or self._taken > self._room:
            self._drop()

    def all(self) -> list[Shape]:
        """Largest first; equal ones by probe and mask."""
        return sorted(self._shapes.values(), key=lambda one: (*(-size for size in one.size), one.probe, one.mask))

    def _mask(self, part: Telling, anew: bool = False) -> tuple[bytes, bytes]:
        """(the mask, empty where it is not at hand; its digest)."""
        if not anew and (key := self._known.get(part.text)) is not None:
            return b"", key
        shown = mask(tokens(part.text))
        key = blake2b(shown, digest_size=16).digest()
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[part.text] = key
        return shown, key

    def _count(self, shape: Shape, answer: Answer, data: bytes) -> None:
        shape.rows += 1
        shape.pseudo += answer.pseudo
        host = answer.ip.encode() or b"\xff%d" % digest_of(data)  # of stored responses each different one is a host
        shape.hosts.add(digest_of(host))
        shape.services.add(digest_of(host, b"" if answer.pseudo else b"%d" % answer.port))
        if answer.port in shape.ports or len(shape.ports) < _MOST_PORTS:
            shape.ports[answer.port] += 1
        if answer.soft in shape.softs or len(shape.softs) < _MOST_PORTS:
            shape.softs[answer.soft] += 1
        digest = digest_of(data)
        if shape.samples.wants(digest):
            shape.samples.add(digest, data)
            self._taken += len(data) + _COST
        if answer.text:
            shape.take_text(answer.text, digest_of(answer.text.encode("utf-8", "replace")))

    def _drop(self) -> None:
        """Let the rarest quarter go, and what samples have let go themselves."""
        kept = self.all()
        keep = min(len(kept) - 1, self._most * 3 // 4)
        self._taken = sum(map(_room_of, kept[:keep]))
        while keep and self._taken > self._room * 3 // 4:
            keep -= 1
            self._taken -= _room_of(kept[keep])
        gone = {id(shape) for shape in kept[keep:]}
        self.dropped += len(gone)
        self.dropped_rows += sum(shape.rows for shape in kept[keep:])
        self._shapes = {place: shape for place, shape in self._shapes.items() if id(shape) not in gone}


def _room_of(shape: Shape) -> int:
    return 2000 + len(shape.mask) + len(shape.text) + sum(len(data) + _COST for data in shape.samples.things.values())
