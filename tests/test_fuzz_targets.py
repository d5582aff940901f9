"""Any bytes are read without an exception, alike however they are cut, and no row is lost; see fuzz_targets."""

import tomllib
import tracemalloc
from pathlib import Path

import pytest
from fuzz_targets import check, read
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.model import Target
from engine.targets import FORMATS, PortSpec, target_reader

TESTS = Path(__file__).parent
TABLES = sorted((TESTS / "cases" / "field").glob("targets-*.toml"))
TEXTS = [case.get("text", "") for path in TABLES for case in tomllib.loads(path.read_text())["case"]]
SEEDS = [text.encode()[:1000] for text in TEXTS] + [path.read_bytes()[:1000] for path in (TESTS / "inputs").iterdir()]

MARKS = [
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r", b"\r\n", b"<", b">", b"<host>", b"</host>", b"<nmaprun>",
    b"<?xml ", b"<!--", b"-->", b"&#45;", b"#", b" ", b"\t", b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\\",
    b"\\ud800", b"1e999", b"9" * 30, b"-", b"*", b"/", b"/udp", b"%", b"://", b"::1", b"[::1]:1", b"saddr,sport\n",
    b'"ip":', b'"ports":[', b'{"a":', b"\x1b[31m", b"rate: 0.00-kpps, x\r", b"\xc3\xbc", b"->", b"'", b"},{", b"{x:1}",
    b'{"ip":"192.0.2.1","port":1}', b"Nmap scan report for a (192.0.2.1)\n", b"1/tcp open x\n",
]  # fmt: skip
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 20), st.one_of(st.sampled_from(MARKS), st.binary(max_size=3))),
    max_size=5,
)


@settings(max_examples=100, deadline=None)
@given(seed=st.sampled_from(SEEDS), other=st.sampled_from([b"", *SEEDS]), edits=EDITS)
def test_mutated_files(seed: bytes, other: bytes, edits: list[tuple[float, int, bytes]]) -> None:
    """Two files joined, then edited. edits: (where, how many bytes go, what comes in their place)."""
    data = seed + other[-500:]
    for where, gone, text in edits:
        at = int(where * len(data))
        data = data[:at] + text + data[at + gone :]
    check(data)


@settings(max_examples=60, deadline=None)
@given(data=st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(MARKS), max_size=40).map(b"".join)))
def test_arbitrary_bytes(data: bytes) -> None:
    check(data)


# Of every format of lines: what stands before the rows, a row, and its host.
ROWS = {
    "plain": ("", "192.0.2.77:80"),
    "ndjson": ("", '{"ip":"192.0.2.77","port":80}'),
    "csv": ("saddr,sport\n", "192.0.2.77,80"),
    "masscan-list": ("#masscan\n", "open tcp 80 192.0.2.77 1700000000"),
    "rustscan": ("", "192.0.2.77 -> [80]"),
    "nmap-grepable": ("", "Host: 192.0.2.77 ()\tPorts: 80/open/tcp//http///"),
    "nmap-normal": ("", "Nmap scan report for 192.0.2.77\n80/tcp open http"),
}
JUNK = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=30),
        st.text('{}[]",:\\ #ip0.<>', max_size=12),
        st.sampled_from(['{"a":[', '{"ports":[', "[", "{", '{"ip":"192.0.2.1",', '"', "}", "]", '{"a":1}', '{"a":"']),
    ),
    max_size=6,
)


@pytest.mark.parametrize("form", sorted(ROWS))
@settings(max_examples=50, deadline=None)
@given(before=JUNK, after=JUNK)
def test_a_row_between_junk_is_found(form: str, before: list[str], after: list[str]) -> None:
    """Whatever the lines around it are."""
    start, row = ROWS[form]
    data = start + "\n".join((*before, row, *after))
    items, _, _ = read(data.encode(), form, 1 << 16)
    assert any(isinstance(item, Target) and (item.host, item.port) == ("192.0.2.77", 80) for item in items)


@pytest.mark.parametrize("form", sorted(set(ROWS) - {"rustscan", "nmap-normal"}))
@settings(max_examples=40, deadline=None)
@given(words=st.lists(st.text("abcdefgh", min_size=3, max_size=9), min_size=2, max_size=5))
def test_a_line_that_is_no_row_is_counted(form: str, words: list[str]) -> None:
    items, _, _ = read((ROWS[form][0] + " ".join(words) + "\n").encode(), form, 1 << 16)
    assert [type(item) for item in items] == [InputError]


# --- inputs made to bring a reader down: one line for each, in bounded memory ---------------------------------------

LONG, DENSE = 400, 6  # pieces of 64 KiB: of what makes one long line, and of what makes many items
LIMITS = {LONG: 72 << 20, DENSE: 8 << 20}  # bytes; a tag of XML may have 16 Mi characters, and is copied once
HOSTILE = {
    "a line without end": (b"x", LONG),
    "NULs": (b"\0", LONG),
    "high bytes": (b"\xff", LONG),
    "half a character": (b"\xf0", LONG),
    "blanks": (b" ", LONG),
    "brackets": (b"[", LONG),
    "a string without end": (b'{"a":"}}}', LONG),
    "objects in objects": (b'{"a":', LONG),
    "objects in objects, line by line": (b'{"a":' + b" " * 18 + b"\n", DENSE),
    "an array of what is no record": (b'{"a" 1, "b": 2, "c": 3},', DENSE),
    "nested XML": (b"<a>", DENSE),
    "many names in XML": (b"<a b='1'/>", DENSE),
    "lines that mean nothing": (b"?" * 23 + b"\n", DENSE),
    "words": (b"a ", DENSE),
    "carriage returns": (b"?" * 23 + b"\r", DENSE),
    "commas": (b",", DENSE),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("form", ["auto", *sorted(set(FORMATS) - {"masscan", "zmap", "naabu"})])
def test_memory_is_bounded(form: str, name: str) -> None:
    """By a line, a record or a tag and what is said of a chunk, not by the input."""
    text, pieces = HOSTILE[name]
    piece = text * (1 + (1 << 16) // len(text))
    reader = target_reader("in", form, PortSpec([80]))
    tracemalloc.start()
    try:
        for _ in range(pieces):
            reader.feed(piece)
        reader.close()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < LIMITS[pieces]


ONE_LINE = {
    "a number of 5,000 digits": b'{"ip":"192.0.2.1","port":' + b"9" * 5000 + b"}",
    "a number beyond all numbers": b'{"ip":"192.0.2.1","port":1e999}',
    "brackets nested 100,000 deep": b'{"ip":"192.0.2.1","port":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects nested 2,000 deep": b'{"a":' * 2000 + b"1" + b"}" * 2000,
    "a lone surrogate": b'{"ip":"\\ud800","port":1}',
    "bytes that are no text": b'{"ip":"\xff\xfe","port":1}',
    "NULs": b'{"ip":"192.0.2.1\\u0000","port":1}',
    "quotes that open again and again": b'{a:"' + rb"\"" * 200_000 + b"}",
    "an unquoted key and no value": b"{a:",
    "a port of 5,000 digits": b'{"ip":"192.0.2.1","port":"' + b"9" * 5000 + b'"}',
}


@pytest.mark.parametrize("name", ONE_LINE)
def test_one_line_is_said_of_it(name: str) -> None:
    first = b'{"ip":"192.0.2.7","port":7}\n'
    items, _, _ = read(first + ONE_LINE[name] + b"\n" + first, "auto", 1 << 16)
    assert [type(item) for item in items] == [Target, InputError, Target]
    assert len(str(items[1])) < 200


def test_errors_of_one_record_are_counted_up_to_a_bound() -> None:
    """A million wrong ports in one list are not a million errors; that the rest is not read is told."""
    items, _, _ = read(b'{"ip":"192.0.2.1","ports":[' + b"0," * 400_000 + b"1]}", "ndjson", 1 << 16)
    assert len(items) == 1001
    assert str(items[-1]) == "in:1: 1000 errors in one line; the rest of it is not read"
