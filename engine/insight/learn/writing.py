"""Proposals as a folder that can be reviewed: a database, samples and a fingerprint for each, and a page that counts.

    README.md                what was found, largest first, and what speaks against each line
    clusters.ndjson          the same for programs
    all.probes               the lines that nothing speaks against, as one database
    001-toy.probes           a database of one line; `probemill db lint` checks it with its samples
    001-toy.ndjson           samples, as in data/samples
    001-toy.sf.txt           a fingerprint as Nmap's submission page takes it, where the rows had one

Contract: `write` makes the folder whole or not at all. Files in it that are not of these names stay. What responses say
is written so that no terminal, Markdown reader or database parser obeys it.
"""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.conversation.fingerprint import escape, unwrap, wrap
from engine.errors import ConfigError, OutputError
from engine.insight.learn.making import Learned, Wish
from engine.insight.learn.proposing import Proposal, database_of, sample_line
from engine.offline.forms import fingerprints
from engine.results.staged import FOLDER, own_folder
from engine.targets import Unreadable
from matcher import parse_database
from matcher.database.samples import Expected

OURS = re.compile(r"(?:README\.md|clusters\.ndjson|all\.probes|\d{3,}-[a-z0-9-]+\.(?:probes|ndjson|sf\.txt))")
SOURCE = "real: nobody named it (probemill learn)"
_EXCERPT = 160  # bytes of a sample on the page
_TOLD = {
    "vague": "says too little, or not all that was put together",
    "steals": "fits responses that have another name",
    "overlaps": "fits responses of other clusters, or of samples that no line may match",
    "narrow": "made of one half of the responses, fits less than half of the other",
}
_MOST_THEFTS = 5
_NUMBERS = ("hosts", "services", "responses", "different", "of the other half", "steals", "false fits", "cost")
_COLUMNS = ("files", "probe", *_NUMBERS, "against it")


class Row(Struct, frozen=True, kw_only=True):
    """One line of clusters.ndjson. held: of the other half; None where all responses are the same."""

    number: int
    files: str
    probe: str
    proto: str
    hosts: int
    services: int
    responses: int
    pseudo: int
    different: int
    ports: dict[str, int]
    line: str
    held: float | None
    thefts: dict[str, int]
    false_fits: int
    cost: int
    faults: list[str]
    members: list[bytes]


def check_folder(out: str, force: bool) -> None:
    """Raises ConfigError for a place that cannot take proposals, or that holds something and nobody said `force`."""
    place = Path(os.path.realpath(out))
    try:
        if not place.name or (place.exists() and not place.is_dir()):
            raise ConfigError(f"-o {out}: is no folder that could be written anew")
        if not force and place.is_dir() and any(place.iterdir()):
            raise ConfigError(
                f"-o {out}: is not empty; name another folder, or say --force to replace earlier proposals"
            )
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}") from error


def write(out: str, learned: Learned, wish: Wish) -> None:
    """Raises OutputError, ConfigError while another process writes there."""
    place = Path(os.path.realpath(out))
    with own_folder(place.with_name(FOLDER + place.name), out) as folder:
        try:
            for name, data in _files(learned, wish):
                (folder / name).write_bytes(data)
            made = sorted(folder.iterdir())
            place.mkdir(parents=True, exist_ok=True)
            for old in place.iterdir():
                if OURS.fullmatch(old.name) and not old.is_dir():
                    old.unlink()
            for new in made:
                shutil.move(new, place / new.name)
        except OSError as error:
            raise OutputError(f"{out}: {error.strerror or error}") from error


def _files(learned: Learned, wish: Wish) -> list[tuple[str, bytes]]:
    files = []
    rows = []
    for one in learned.proposals:
        name = _name(one)
        probes = _comment(one) + database_of(one.probe, [one.line])
        parse_database(probes, name)  # what others could not read is a fault of ours, and is found here
        files.append((f"{name}.probes", probes))
        files.append((f"{name}.ndjson", b"".join(_sample(one, *sample) for sample in one.samples)))
        if text := submission(one.shape.text):
            files.append((f"{name}.sf.txt", text.encode() + b"\n"))
        rows.append(msgspec.json.encode(_row(one)) + b"\n")
    files.append(("clusters.ndjson", b"".join(rows)))
    files.append(("all.probes", _all([one for one in learned.proposals if one.clean])))
    files.append(("README.md", "\n".join(_page(learned, wish)).encode()))
    return files


def _name(one: Proposal) -> str:
    return f"{one.number:03}-{one.name}"


def _row(one: Proposal) -> Row:
    shape, judged = one.shape, one.judged
    return Row(
        number=one.number,
        files=_name(one),
        probe=one.probe.name,
        proto=one.probe.proto,
        hosts=shape.size[0],
        services=shape.size[1],
        responses=shape.rows,
        pseudo=shape.pseudo,
        different=judged.members,
        ports={str(port): shape.ports[port] for port in _ports(one)},
        line=one.line,
        held=judged.held,
        thefts=judged.thefts,
        false_fits=judged.false,
        cost=one.cost,
        faults=judged.faults,
        members=shape.samples.kept(),
    )


def _ports(one: Proposal) -> list[int]:
    ports = one.shape.ports
    return sorted((port for port in ports if port), key=lambda port: (-ports[port], port))[:10]


def _sample(one: Proposal, data: bytes, expected: Expected) -> bytes:
    return sample_line(one.probe, data, SOURCE, expected)


def _comment(one: Proposal) -> bytes:
    shape = one.shape
    faults = ", ".join(one.judged.faults) or "nothing speaks against it"
    text = f"# {shape.size[0]:,} hosts, {shape.size[1]:,} services, {one.judged.members} different responses"
    return f"{text}; {_held(one)}; {faults}\n".encode()


def _held(one: Proposal) -> str:
    held = one.judged.held
    return "all responses the same" if held is None else f"half a line fits {held:.0%} of the other half"


def _all(clean: Sequence[Proposal]) -> bytes:
    """One database of several lines, each under its probe."""
    probes = {one.probe.index: one.probe for one in clean}
    head = b"# probemill scan --probes all.probes,nmap uses these lines before Nmap's\n"
    return head + b"\n".join(
        database_of(probe, [one.line for one in clean if one.probe.index == index])
        for index, probe in sorted(probes.items())
    )


def submission(text: str) -> str:
    """A fingerprint as its submission page takes it: lines of 74 characters; empty for what is none."""
    whole = unwrap(text.strip())
    if not whole.isascii() or not whole.isprintable() or not whole.startswith("SF-Port") or not whole.endswith(";"):
        return ""
    if any(isinstance(found, Unreadable) for found in fingerprints.responses(whole.encode())):
        return ""
    return wrap(whole)


def _page(learned: Learned, wish: Wish) -> list[str]:
    proposals = learned.proposals
    clean = sum(one.clean for one in proposals)
    lines = [
        "# Proposed match lines",
        "",
        "Responses may hold names, addresses and cookies: look through all of it before you pass it on.",
        "",
        "    probemill db lint 001-NAME.probes --samples 001-NAME.ndjson    # after each change to a line",
        "    probemill scan ... --probes all.probes,nmap                    # try the lines that are clean",
        "",
        "Where a line is right, name service and product as people do, and put line and samples into your database.",
        "What Nmap should know, too, goes to https://nmap.org/submit/ with the text of 001-NAME.sf.txt.",
        "",
        *(f"* {text}" for text in summary(learned, wish)),
        f"* {len(proposals):,} lines are proposed; nothing speaks against {clean:,}, which are in `all.probes`",
        "",
    ]
    if proposals:
        lines += [
            f"| {' | '.join(_COLUMNS)} |",
            f"|{'|'.join('--:' if name in _NUMBERS else '---' for name in _COLUMNS)}|",
            *map(_table_row, proposals),
            "",
            *(f"* {word}: {text}" for word, text in _TOLD.items()),
            "",
        ]
    for one in proposals:
        lines += _section(one)
    return lines


def summary(learned: Learned, wish: Wish) -> list[str]:
    """What was read and what became of it, a line each."""
    told: list[tuple[int, Callable[[str], str]]] = [
        (learned.responses, lambda n: f"{n} responses were read, and asked of {learned.database}"),
        (learned.named, lambda n: f"{n} have a name, and were kept to try lines on"),
        (learned.unknown, lambda n: f"{n} are answers to probes that the database does not have, and were passed over"),
        (learned.repeated, lambda n: f"{n} say what the same service had said to an earlier probe"),
        (learned.nameless, lambda n: f"{n} have no name, or a softmatch's: {learned.clusters:,} clusters"),
        (learned.dropped, lambda n: f"{n} rare shapes ({learned.dropped_rows:,} responses) had no room in memory"),
        (learned.small, lambda n: f"{n} clusters are of fewer than {wish.least} hosts"),
        (learned.left, lambda n: f"{n} more clusters are beyond the limit of {wish.limit} lines"),
        (learned.known, lambda n: f"{n} responses with names were at hand to find thefts"),
    ]
    return [text(f"{number:,}") for number, text in told if number or text is told[0][1]]


def _table_row(one: Proposal) -> str:
    shape, judged = one.shape, one.judged
    held = "" if judged.held is None else f"{judged.held:.0%}"
    counts = (*shape.size, judged.members)
    tried = (f"{sum(judged.thefts.values()):,}", f"{judged.false:,}", f"{one.cost}", ", ".join(judged.faults))
    probe = _inert(one.probe.name).replace("|", "\\x7c")
    cells = (_name(one), probe, *(f"{count:,}" for count in counts), held, *tried)
    return f"| {' | '.join(cells)} |"


def _section(one: Proposal) -> list[str]:
    shape, judged = one.shape, one.judged
    ports = ", ".join(f"{port} ({shape.ports[port]:,})" for port in _ports(one))
    lines = [f"## {_name(one)}", "", f"    {_inert(one.line)}", ""]
    lines += [f"    {escape(data[:_EXCERPT])}" for data, _ in one.samples[:3]]
    lines += ["", f"{_held(one)[:1].upper()}{_held(one)[1:]}. Fits {judged.own} of its {judged.members} responses."]
    if ports:
        lines.append(f"Ports: {ports}.")
    if shape.pseudo:
        lines.append(f"{shape.pseudo:,} responses are of hosts that answer alike on many ports.")
    if judged.thefts:
        stolen = list(judged.thefts.items())[:_MOST_THEFTS]
        lines += ["", *(f"* steals {count:,} of `{_inert(label)}`" for label, count in stolen)]
    return [*lines, ""]


def _inert(text: str) -> str:
    """Printable ASCII that neither a terminal nor a table in Markdown obeys."""
    return "".join(c if " " <= c <= "~" and c != "`" else f"\\x{ord(c):02x}" for c in text)
