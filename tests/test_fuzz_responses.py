"""Whatever stored responses hold, every line is answered or counted, and output is JSON; see fuzz_responses."""

import json

import pytest
import zstandard
from fuzz_responses import DATABASE, MATCHER, SEEDS, check, outcome
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.offline import stream
from engine.offline.forms import fingerprints
from engine.offline.identify import identify
from engine.offline.stream import Chunk
from engine.unpack import PIECE, Damaged, unpacked

LINES = sorted({line for seed in SEEDS for line in seed.split(b"\n")})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=9,
)
KEYS = ["data", "banner", "ports", "match", "fingerprint", "_shodan", "ip_str", "rec_type", "verdict", "proto", "probe"]
RECORDS = st.dictionaries(st.sampled_from([*KEYS, "result", "response", "service", "error"]), JSON, max_size=5)
RECORD_LINES = RECORDS.map(lambda record: json.dumps(record).encode())
SMALL = [
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\u", b"\xff", b"\0", b"\n", b"\r\n", b" ", b"> ", b"#"),
    *(
        b"SF:",
        b");",
        b'");',
        b"SF-Port1-TCP:V=1",
        b'%r(A,1,"',
        b"&quot;",
        b"\xef\xbb\xbf",
        b"1e999",
        b"9" * 30,
        b"null",
    ),
]
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 9), st.sampled_from(SMALL) | st.binary(max_size=4)), max_size=5
)
SIZES = st.lists(st.integers(1, 300), max_size=12)


def edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for where, gone, text in edits:
        at = int(where * len(data))
        data = data[:at] + text + data[at + gone :]
    return data


@pytest.mark.parametrize("seed", SEEDS)
def test_known_inputs(seed: bytes) -> None:
    """Cut behind every few bytes, down to each one."""
    for size in (1, 7, 64):
        check(seed, [size] * (len(seed) // size))


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(st.sampled_from(LINES) | RECORD_LINES | st.binary(max_size=40), max_size=6), edits=EDITS, sizes=SIZES
)
def test_mutated_lines(lines: list[bytes], edits: list[tuple[float, int, bytes]], sizes: list[int]) -> None:
    """edits: (where, how many bytes go, what comes in their place)."""
    check(edited(b"\n".join(lines), edits), sizes)


NESTED = [b"[" * depth + b"]" * depth for depth in (900, 1001, 100_000)]
HOSTILE = [*NESTED, b"9" * 5000, b"-1e999", b'"\\ud800"', b'"\xff"', b'"\xed\xa0\x80"', b"1" + b"0" * 400 + b".5"]
PLACES = [
    b'{"banner":"a","x":%b}',
    b'{"match":1,"banner":"a","x":%b}',
    b'{"banner":%b}',
    b'{"data":%b}',
    b'{"data":{"ssh":%b}}',
    b'{"data":{"ssh":{"result":{"banner":%b}}}}',
    b'{"data":{"ssh":{"result":{"banner":"a"},"x":%b}},"y":1}',
    b'{"data":{"a":{"status":"x","result":{"banner":"a"}},"b":{"status":"x","result":{"banner":"b"}}},"x":%b}',
    b'{"ports":%b}',
    b'{"ports":[%b]}',
    b'{"ports":[{"service":{"name":"ssh","banner":"a"}},{"service":{"name":"ssh","banner":"a"}}],"x":%b}',
    b'{"fingerprint":"SF-Port1-TCP:V=1%%r(A,1,\\"a\\");","x":%b}',
    b'{"_shodan":%b,"data":"a"}',
    b'{"_shodan":{},"data":"a","http":%b}',
    b'{"rec_type":"banner","data":{"service_name":"ssh","banner":%b}}',
    b'{"verdict":%b}',
    b'SF-Port%b-TCP:V=1%%r(A,1,"a");',
    b'SF-Port1-TCP:V=1%%r(A,%b,"a");',
    b'SF-Port1-TCP:V=1%%r(%b,1,"a");',
    b'<service servicefp="SF-Port1-TCP:V=1%%r(A,%b,&quot;a&quot;);"/>',
    b"%b",
]


@pytest.mark.parametrize("place", PLACES)
def test_hostile_values(place: bytes) -> None:
    """A line is answered or a counted fault, and takes nothing with it: the lines around it are answered."""
    good = b'{"banner":"SSH-2.0-x"}'
    for text in HOSTILE:
        data = b"\n".join([good, place % text, good])
        answers = list(identify([Chunk(data, 0, 0)], MATCHER, (), 1))
        tally = answers[0].tally
        assert tally.matched >= 2
        lines = b"".join(answer.out for answer in answers).decode().splitlines()
        assert [line.endswith("}") for line in lines] == [True] * tally.rows
        found = tally.rows + tally.silent + tally.derived + tally.text + sum(answer.faults.count for answer in answers)
        assert found >= 3, text[:20]


@settings(max_examples=50, deadline=None)
@given(lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=30), sizes=SIZES)
def test_cuts_by_the_number_of_lines(lines: list[bytes], sizes: list[int]) -> None:
    """Change nothing either."""
    data = b"\n".join(lines)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fingerprints, "MOST_LINES", 3)
        whole = outcome(data, [])
        patched.setattr(stream, "LINES", 7)
        assert outcome(data, sizes) == whole


@settings(max_examples=100, deadline=None)
@given(text=st.binary(max_size=300), edits=EDITS, sizes=SIZES)
def test_mutated_compression(text: bytes, edits: list[tuple[float, int, bytes]], sizes: list[int]) -> None:
    """It is unpacked as far as it goes, in bounded pieces, or is damaged; nothing else happens."""
    packed = edited(zstandard.compress(text * 50), edits)
    pieces, at = [], 0
    for size in sizes:
        pieces.append(packed[at : at + size])
        at += size
    told: list[str] = []
    try:
        for piece in unpacked(filter(None, [*pieces, packed[at:]]), told.append):
            assert len(piece) <= max(PIECE, len(packed))
    except Damaged as damage:
        assert str(damage)


def test_the_database_of_the_fuzz_has_what_it_needs() -> None:
    assert DATABASE.count(b"Probe") == len(MATCHER.database.probes)
