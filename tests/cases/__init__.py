"""The observed behaviour of a version scan as tables, read into typed cases.

`load("tls")` gives the cases of tests/cases/tls.toml. A case is a database, a scripted server and what the row must
say; the same case is played by replay.py in virtual time and by scripted.py over loopback sockets. `differences`
compares a row with what a case expects. The form of the tables is told in state-machine.toml, grammar.toml and
regex.toml.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from engine.model import ServiceResult
from engine.results.columns import service_column, version_column

SCAN_TABLES = ("state-machine", "tls", "templates", "exclude", "fingerprints", "udp")

# The names that the cases on registered ports are about. A services table has them; which one, differs by machine.
REGISTERED = {
    (6667, "tcp"): "irc",
    (6668, "tcp"): "irc",
    (6669, "tcp"): "irc",
    (1900, "udp"): "upnp",
    (5060, "udp"): "sip",
}

Word = Literal["tls", "hold", "close", "rst", "fin"]
Text = str | dict[str, int]  # a text, or texts with how many times they stand one after another


class Do(Struct, forbid_unknown_fields=True):
    """One step of a server script with an argument; exactly one is given. state-machine.toml tells what they do."""

    send: Text | None = None
    wait: float | None = None
    recv: float | None = None
    on: dict[str, "Text | list[Step]"] | None = None


Step = Do | Word


class Expected(Struct, forbid_unknown_fields=True):
    """What a row must say. items: (probe, length) of each fingerprint item; sent: by connection (udp: by datagram)."""

    state: str = "open"
    name: str = ""
    product: str = ""
    version: str = ""
    extrainfo: str = ""
    hostname: str = ""
    ostype: str = ""
    devicetype: str = ""
    cpe: list[str] = []
    tunnel: str = ""
    method: str = ""
    conf: int = 0
    verdict: str = ""
    reason: str = ""
    items: list[tuple[str, int]] = []
    sent: list[str] = []
    why: str = ""


class Case(Struct, forbid_unknown_fields=True):
    """A conversation and its outcome. closes_after: connections or datagrams after which nobody listens any more."""

    id: str
    what: str
    db: str
    server: list[list[Step]]
    expect: Expected
    proto: Literal["tcp", "udp"] = "tcp"
    port: int = 0
    intensity: int = 7
    all_ports: bool = False
    closes_after: int | None = None
    also: list[Expected] = []
    older: Expected | None = None
    shown: str | None = None
    ms: int = 0
    fingerprint: str = ""
    newer: str = ""
    uncut: str = ""

    def database(self, port: int) -> bytes:
        return self.db.replace("@PORT@", str(port)).encode("latin-1")


class GrammarCase(Struct, forbid_unknown_fields=True):
    """A database that is refused at `fault`, or accepted with the outcome `expect` or `sends`."""

    id: str
    what: str
    db: str
    fault: str = ""
    word: str = ""
    expect: Expected | None = None
    sends: str = ""
    only: str = ""

    @property
    def data(self) -> bytes:
        return self.db.replace("@BLANKS@", " " * 2028).replace("@GROUPS@", "(?:)" * 740).encode("latin-1")


class RegexCase(Struct, forbid_unknown_fields=True):
    """A pattern with its flags, a response, and whether the one fits the other."""

    id: str
    what: str
    pattern: str
    data: Text
    fits: bool
    flags: str = ""
    newer: str = ""

    @property
    def response(self) -> bytes:
        return octets(self.data)

    @property
    def database(self) -> bytes:
        """The pattern as the one line of a NULL probe."""
        return self.conversation.database(0)

    @property
    def conversation(self) -> Case:
        """A port that sends the response and listens, and what must be said of it."""
        line = f"match foo m~{self.pattern}~{self.flags} p/hit/"
        missed = Expected(
            name="unknown", method="table", conf=3, verdict="nomatch", items=[("NULL", len(self.response))]
        )
        hit = Expected(name="foo", product="hit", method="probed", conf=10, verdict="hardmatched")
        return Case(
            id=self.id,
            what=self.what,
            db=f"Probe TCP NULL q||\ntotalwaitms 500\n{line}\n",
            server=[[Do(send=self.data), "hold"]],
            expect=replace(hit if self.fits else missed, sent=[""]),
            uncut="a part of the response may fit",
        )


def octets(text: Text) -> bytes:
    """The bytes that a table's text stands for."""
    if isinstance(text, str):
        return text.encode("latin-1")
    return b"".join(piece.encode("latin-1") * times for piece, times in text.items())


def _table(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = msgspec.toml.decode((Path(__file__).parent / f"{name}.toml").read_bytes())["case"]
    return rows


def load(name: str) -> list[Case]:
    """The cases of one of SCAN_TABLES."""
    return msgspec.convert(_table(name), list[Case])


def load_all(tables: Iterable[str] = SCAN_TABLES) -> list[Case]:
    return [case for name in tables for case in load(name)]


def load_grammar() -> list[GrammarCase]:
    return msgspec.convert(_table("grammar"), list[GrammarCase])


def load_regex() -> list[RegexCase]:
    return msgspec.convert(_table("regex"), list[RegexCase])


_ITEM = re.compile(r'%r\((.+?),([0-9A-F]+),"')


def fingerprint_items(text: str) -> list[tuple[str, int]]:
    """(probe, length) of every item of an SF text."""
    return [(probe, int(length, 16)) for probe, length in _ITEM.findall(text.replace("\nSF:", ""))]


def observed(row: ServiceResult, sent: Sequence[bytes]) -> Expected:
    """A row and what the server received, in the form of a table's `expect`."""
    return Expected(
        state=row.state,
        name=row.name,
        product=row.product,
        version=row.version,
        extrainfo=row.extrainfo,
        hostname=row.hostname,
        ostype=row.ostype,
        devicetype=row.devicetype,
        cpe=list(row.cpe),
        tunnel=row.tunnel.value,
        method=row.method,
        conf=row.conf,
        verdict=row.verdict.value,
        reason=row.reason.value if row.reason else "",
        items=fingerprint_items(row.fingerprint),
        sent=[data.decode("latin-1") for data in sent],
    )


def differences(case: Case, row: ServiceResult, sent: Sequence[bytes]) -> str:
    """Empty where the row is what the case expects; otherwise expected and got, field by field."""
    got = asdict(observed(row, sent))
    wanted = [asdict(outcome) | {"why": ""} for outcome in (case.expect, *case.also)]
    lines = []
    if got not in wanted:
        lines = [
            f"{key}: expected {value!r}, got {got[key]!r}" for key, value in wanted[0].items() if got[key] != value
        ]
    if case.fingerprint and not row.fingerprint.replace("\nSF:", "").endswith(case.fingerprint):
        lines.append(f"fingerprint: expected ...{case.fingerprint!r}, got {row.fingerprint!r}")
    if case.shown is not None and (shown := f"{service_column(row)} {version_column(row)}".strip()) != case.shown:
        lines.append(f"columns: expected {case.shown!r}, got {shown!r}")
    return "\n".join(lines)
