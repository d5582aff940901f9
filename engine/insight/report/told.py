"""What a report tells, in plain structs: counted by gather.py, printed by page, Markdown and charts."""

from msgspec import Struct, field


class Count(Struct, frozen=True):
    """How often something was seen. hosts: on how many addresses."""

    name: str
    rows: int
    hosts: int = 0
    more: str = ""


class Version(Struct, frozen=True):
    version: str
    rows: int
    old: bool


class Product(Struct, frozen=True):
    """newest: of the versions seen, empty where none is exact. versions: the oldest first; `left` more are not told.

    old: rows whose version is certainly older than another one that was seen; current: rows of the other exact ones.
    """

    product: str
    service: str
    rows: int
    hosts: int
    newest: str
    old: int
    current: int
    versions: list[Version]
    left: int


class Certificate(Struct, frozen=True):
    """days: to its end, from the newest row on. rows: ports that show it; place: one of them."""

    subject: str
    place: str
    rows: int
    not_after: str
    days: int
    self_signed: bool


class Tls(Struct):
    rows: int = 0
    certificates: int = 0
    self_signed: int = 0
    protocols: list[Count] = field(default_factory=list)
    keys: list[Count] = field(default_factory=list)
    expiry: list[Count] = field(default_factory=list)
    ending: list[Certificate] = field(default_factory=list)


class Unknown(Struct, frozen=True):
    """Ports that answered the same, digits and dates aside. service: as far as it is known. answer: folded."""

    service: str
    probe: str
    answer: str
    rows: int
    hosts: int
    place: str
    fingerprint: str


class Source(Struct, frozen=True):
    """An input. ended: how its run did, where it is a state folder; whole: it went to its end, or nobody knows."""

    name: str
    kind: str
    rows: int
    ended: str = ""
    whole: bool = True


class Report(Struct):
    """Everything that is told, in the order in which it is told. first, last: RFC 3339, UTC, of `started`."""

    sources: list[Source]
    rows: int = 0
    hosts: int = 0
    ports: int = 0
    recognised: int = 0
    unknown: int = 0
    cancelled: int = 0
    pseudo: int = 0
    first: str = ""
    last: str = ""
    notes: list[str] = field(default_factory=list)
    outcomes: list[Count] = field(default_factory=list)
    databases: list[Count] = field(default_factory=list)
    services: list[Count] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    product_count: int = 0
    old: int = 0
    tls: Tls = field(default_factory=Tls)
    heat: list[tuple[str, str, int]] = field(default_factory=list)
    systems: list[Count] = field(default_factory=list)
    devices: list[Count] = field(default_factory=list)
    unknowns: list[Unknown] = field(default_factory=list)
    unknown_groups: int = 0

    @property
    def period(self) -> str:
        """When the rows were made, in words."""
        if not self.first:
            return "No rows"
        return self.first if self.first == self.last else f"{self.first} to {self.last}"
