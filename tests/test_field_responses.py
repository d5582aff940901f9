"""Stored responses as other programs and people write them: tests/cases/field/responses.toml, row by row.

The folder of inputs from the wild, where it stands beside the project, is read whole with the same rules.
"""

import html
import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engine.conversation.fingerprint import CONTINUATION, Fingerprint
from engine.databases import open_matcher
from engine.offline.faults import Faults
from engine.offline.forms.base import Row
from engine.offline.identify import Identifier, Tally, identify
from engine.offline.records import LineReader
from engine.offline.stream import Chunk, Source
from matcher import DatabaseError, MatcherError

TABLE: dict[str, list[dict[str, Any]]] = tomllib.loads(
    (Path(__file__).parent / "cases" / "field" / "responses.toml").read_text(encoding="utf-8")
)
FIELD = Path(__file__).resolve().parents[2] / "shared" / "field"
COUNTS = ("silent", "derived", "text", "faults")


def rows_of(data: bytes) -> list[Row]:
    reader = LineReader()
    return [row for line in data.split(b"\n") for row in reader.read(line)] + list(reader.close())


@cache
def identifier(database: str) -> Identifier:
    try:
        return Identifier(open_matcher([database], "auto"))
    except MatcherError as missing:
        pytest.skip(str(missing))


def matches(data: bytes, database: str) -> list[dict[str, Any]]:
    """Of each row; empty where there is none."""
    return [json.loads(row)["match"] or {} for row in identifier(database).answer(Chunk(data, 0, 0)).out.splitlines()]


def products(data: bytes, database: str) -> list[str]:
    """Product and version of each row; empty for no match, a blank for a match without a product."""
    found = matches(data, database)
    return [
        (match and (f"{match.get('product', '')} {match.get('version', '')}".strip() or " ")) or "" for match in found
    ]


def counted(chunks: list[Chunk]) -> tuple[Tally, Faults]:
    """What an input comes to, all faults together."""
    tally, faults = Tally(), Faults()
    for answer in identify(chunks, open_matcher(["builtin"], "reference"), (), 1):
        tally.add(answer.tally)
        faults.extend(answer.faults)
    return tally, faults


def check_counts(case: dict[str, Any], chunks: list[Chunk], count: int) -> None:
    tally, faults = counted(chunks)
    found = {"rows": tally.rows, "silent": tally.silent, "derived": tally.derived, "text": tally.text}
    assert found | {"faults": faults.count} == {"rows": count} | {name: case.get(name, 0) for name in COUNTS}
    if "reason" in case:
        assert case["reason"] in faults.first[0][1]


def check_products(case: dict[str, Any], data: bytes) -> None:
    for database in ("builtin", "nmap"):
        if database in case and (database == "builtin" or has_nmap()):
            assert products(data, database) == case[database]
    assert case.get("never") not in [match.get("name", "") for match in matches(data, "builtin")]


@cache
def has_nmap() -> bool:
    try:
        open_matcher(["nmap"], "auto")
    except DatabaseError:
        return False
    return True


@pytest.mark.parametrize("case", TABLE["case"], ids=lambda case: case["id"])
def test_an_input_comes_to_its_rows(case: dict[str, Any]) -> None:
    """The responses with their probes, and the count of all that is passed over."""
    data = case["input"].encode()
    rows = [[row.proto, row.probes[0], row.data.decode("latin-1")] for row in rows_of(data)]
    assert rows == case["rows"]
    check_counts(case, [Chunk(data, 0, 0)], len(rows))
    check_products(case, data)


# -- fingerprints, whatever happened to their lines


def fingerprint() -> tuple[Fingerprint, list[tuple[str, bytes]]]:
    text = Fingerprint(21, "tcp", version="7.93", intensity=7, platform="x86_64-pc-linux-gnu")
    responses = [
        ("NULL", b'220 Welcome to the <Go> FTP Server & all > others | SF: "x");\r\n'),
        ("GenericLines", b"".join(b"%d SF:Command\0 not\xff found.\r\n" % number for number in range(9))),
        ("Help", b'SF-Port1-TCP:V=1%r(A,1,"a");\n    SF: > '),
    ]
    for name, response in responses:
        text.add(name, response, 0.0)
    return text, responses


def decorated(text: str, how: dict[str, Any]) -> bytes:
    lines = text.split("\n")
    if how.get("escaped"):
        lines = [html.escape(line) for line in lines]
    before = [how.get("before", "").format(line=number) for number in range(8, 8 + len(lines))]
    before[-1] = how.get("last", before[-1])
    body = how.get("end", "\n").join(
        f"{front}{line}{how.get('behind', '')}" for front, line in zip(before, lines, strict=True)
    )
    return (how.get("top", "") + body + "\n" + how.get("bottom", "")).encode()


@pytest.mark.parametrize("how", TABLE["decoration"], ids=lambda how: how["id"])
def test_a_fingerprint_is_read_whatever_was_done_to_it(how: dict[str, Any], tmp_path: Path) -> None:
    """Alone, two on end, and wherever the stream is cut; nothing is a fault."""
    text, responses = fingerprint()
    once = decorated(text.text, how)
    for times in (1, 2):
        data = once * times
        assert [(row.probes[0], row.data) for row in rows_of(data)] == responses * times
        path = tmp_path / "report"
        path.write_bytes(data)
        with Source(str(path)) as source:
            tally, faults = counted(list(source.chunks()))
        assert (tally.rows, faults.count) == (len(responses) * times, 0), faults.first


@pytest.mark.parametrize("how", TABLE["decoration"], ids=lambda how: how["id"])
def test_a_cut_fingerprint_keeps_what_precedes_the_cut(how: dict[str, Any]) -> None:
    """Also when its lines are decorated; the damage is a fault."""
    text, responses = fingerprint()
    whole = text.text
    cut = whole.index("%r(Help") + 30
    rows = rows_of(decorated(whole[:cut], how))
    assert [(row.probes[0], row.data) for row in rows] == responses[:2]
    assert counted([Chunk(decorated(whole[:cut], how), 0, 0)])[1].count == 1


def test_a_line_too_long_is_no_further_line() -> None:
    """What stands before the lines of a fingerprint is short."""
    assert CONTINUATION == "\nSF:"
    rows = rows_of(b'SF-Port1-TCP:V=1%r(A,1,"a")%r(\n' + b"." * 1000 + b'SF:B,1,"b");\n')
    assert [row.data for row in rows] == [b"a"]


# -- the folder of inputs from the wild


IN_THE_FIELD = pytest.mark.skipif(not FIELD.is_dir(), reason="the folder of inputs from the wild is not here")


@IN_THE_FIELD
@pytest.mark.parametrize("case", TABLE["file"], ids=lambda case: case["name"])
def test_a_file_from_the_wild(case: dict[str, Any]) -> None:
    """like: as many rows as that, the same as of the plain fingerprint."""
    path = FIELD / case["name"]
    with Source(str(path)) as source:
        check_counts(case, list(source.chunks()), case.get("like", case.get("count")))
    if "like" in case:
        plain = [(row.probes, row.data, row.head) for row in rows_of((FIELD / "37-sf-plain.txt").read_bytes())]
        found = [(row.probes, row.data, row.head) for row in rows_of(path.read_bytes())]
        assert found == plain[: case["like"]]


@IN_THE_FIELD
@pytest.mark.parametrize("case", TABLE["file"], ids=lambda case: case["name"])
def test_what_databases_say_of_a_file_from_the_wild(case: dict[str, Any]) -> None:
    check_products(case, (FIELD / case["name"]).read_bytes())


@IN_THE_FIELD
def test_every_file_of_responses_is_in_the_table() -> None:
    """A new one gets its right values."""
    ours = {path.name for path in FIELD.iterdir() if path.name[:2].isdigit() and 32 <= int(path.name[:2]) <= 53}
    assert ours <= {case["name"] for case in TABLE["file"]}
