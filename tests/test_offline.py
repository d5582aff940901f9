"""Stored responses: what each kind of line says, and how chunks are answered. Streams: test_offline_stream."""

import base64
import json
import random

import pytest

from engine.conversation.fingerprint import Fingerprint, unwrap
from engine.offline import answers
from engine.offline.faults import KEPT, RECORDS, REPORT, Faults, Texts
from engine.offline.forms.base import Row
from engine.offline.identify import Identifier, Tally
from engine.offline.records import LineReader
from engine.offline.stream import Chunk
from matcher import compile_matcher, parse_database

DATABASE = rb"""Probe TCP NULL q||
match ssh m|^SSH-([\d.]+)-(\w+)| p/$2/ v/$1/ i/i/ h/h/ o/o/ d/d/ cpe:/a:a:b:$1/ cpe:/o:c:d/
softmatch ftp m|^220 |
match bytes m|^\xff\0\x80$|
match wide m|^\xe2\x82\xac$|
Probe TCP GetRequest q|GET / HTTP/1.0\r\n\r\n|
match http m|^HTTP/1\.1 200 OK\r\nServer: ([^\r\n]+)\r\nX-Two: 1\r\nX-Two: 2\r\n\r\nhello$| p/$1/
Probe TCP GenericLines q|\r\n\r\n|
match lines m|^lines|
Probe UDP Ask q|?|
match asked m|^yes|
"""
MATCHER = compile_matcher(parse_database(DATABASE, "db"), "reference", cache=False)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read(*lines: str) -> tuple[list[Row], list[tuple[int, str]]]:
    """The rows and the faults of an input whose first line is number 11."""
    reader = LineReader(10)
    rows = [row for line in lines for row in reader.read(line.encode())] + list(reader.close())
    texts = reader.texts.first if reader.form != REPORT else []
    return rows, sorted([*reader.faults.first, *texts])


ZGRAB = '{"ip":"192.0.2.1","domain":"d","data":{%s}}'
HTTP_RESULT = {
    "status": "success",
    "protocol": "http",
    "result": {
        "response": {
            "status_line": "200 OK",
            "status_code": 200,
            "protocol": {"name": "HTTP/1.1", "major": 1, "minor": 1},
            "headers": {"server": ["nginx"], "unknown": [{"key": "x_two", "value": ["1", "2"]}]},
            "body": "hello",
        }
    },
}

ROWS = [  # name, line, (proto, probes, data)
    ("banner", '{"banner":"hi"}', ("tcp", ("NULL",), b"hi")),
    ("null probe", '{"banner":"hi","probe":null}', ("tcp", ("NULL",), b"hi")),
    ("banner of bytes", r'{"banner":"\u00ff\u0000\u0080"}', ("tcp", ("NULL",), b"\xff\0\x80")),
    ("banner of text", '{"banner":"\u20ac"}', ("tcp", ("NULL",), b"\xe2\x82\xac")),
    ("data wins", f'{{"banner":"no","data":"{b64(b"yes")}"}}', ("tcp", ("NULL",), b"yes")),
    ("udp", '{"proto":"UDP","probe":"Ask","banner":"yes"}', ("udp", ("Ask",), b"yes")),
    ("keys of others", '{"banner":"hi","ports":"x","rec_type":1}', ("tcp", ("NULL",), b"hi")),
    ("blanks around", ' {"banner":"hi"} \r', ("tcp", ("NULL",), b"hi")),
    ("zgrab2 http", ZGRAB % f'"web":{json.dumps(HTTP_RESULT)}',
     ("tcp", ("GetRequest", "NULL"), b"HTTP/1.1 200 OK\r\nServer: nginx\r\nX-Two: 1\r\nX-Two: 2\r\n\r\nhello")),
    ("zgrab2 ssh", ZGRAB % '"ssh":{"result":{"server_id":{"raw":"SSH-2.0-x"}}}', ("tcp", ("NULL",), b"SSH-2.0-x\r\n")),
    ("zgrab2 ftp", ZGRAB % '"ftp":{"protocol":"ftp","result":{"banner":"220 x"}}', ("tcp", ("NULL",), b"220 x")),
    ("zgrab2 banner", ZGRAB % '"banner":{"result":{"banner":"lines"}}', ("tcp", ("GenericLines", "NULL"), b"lines")),
    ("masscan -oD", '{"ip":"192.0.2.1","port":22,"proto":"tcp","rec_type":"banner",'
     '"data":{"service_name":"ssh","banner":"SSH-2.0-x"}}', ("tcp", ("NULL",), b"SSH-2.0-x")),
    ("masscan -oJ", '{"ip":"192.0.2.1","ports":[{"port":80,"proto":"tcp","service":{"name":"http","banner":"H"}}]},',
     ("tcp", ("GetRequest", "NULL"), b"H")),
]  # fmt: skip


@pytest.mark.parametrize(("line", "said"), [case[1:] for case in ROWS], ids=[case[0] for case in ROWS])
def test_a_line_is_a_row(line: str, said: tuple[str, tuple[str, ...], bytes]) -> None:
    rows, faults = read(line)
    assert not faults
    assert [(row.proto, row.probes, row.data) for row in rows] == [said]
    kept = json.loads(bytes(rows[0].head) + b"}")
    assert kept == json.loads(line.strip().rstrip(","))


NOTHING = [
    "", "  ", "[", "]", ",", "# a comment", "{finished: 1}",
    '{"ip":"192.0.2.1","port":22,"proto":"tcp","rec_type":"status","data":{"status":"open"}}',
    '{"ip":"192.0.2.1","port":443,"rec_type":"banner","data":{"service_name":"X509","banner":"MII"}}',
    '{"ip":"192.0.2.1","ports":[{"port":80,"proto":"tcp","status":"open"}]}',
    '{"ip":"192.0.2.1","port":22,"verdict":"nomatch"}',
    ZGRAB % '"ssh":{"status":"connection-timeout"}',
]  # fmt: skip


@pytest.mark.parametrize("line", NOTHING)
def test_a_line_without_a_response_is_passed_over(line: str) -> None:
    assert read(line) == ([], [])


FAULTS = [
    ("x", "not JSON"),
    ('{"banner":"cut', "not JSON"),
    ("[1]", "not a response record"),
    ('{"ip":"192.0.2.1"}', "neither 'data' nor 'banner'"),
    ('{"data":"!"}', "base64"),
    ('{"data":7}', "$.data"),
    ('{"banner":7}', "$.banner"),
    ("SF-Port nonsense", "not a fingerprint"),
    ('SF-Port1-TCP:V=7%r(NULL,1,"a', "damaged fingerprint"),
]


@pytest.mark.parametrize(("line", "reason"), FAULTS)
def test_a_bad_line_is_a_fault_with_its_number(line: str, reason: str) -> None:
    rows, faults = read('{"banner":"before"}', line, '{"banner":"after"}')
    assert [row.data for row in rows] == [b"before", b"after"]
    assert [number for number, _ in faults] == [12]
    assert reason in faults[0][1]


NOT_UTF8 = [
    b'{"banner":"\xff"}',
    b'{"banner":"x","other":"\xff"}',
    b'{"banner":"x","\xff":1}',
    b'{"banner":"x","match":"\xff"}',
    b'{"ports":[{"service":{"banner":"\xff"}}]}',
    b'{"data":{"ssh":{"result":{"banner":"\xff"}}}}',
    b'{"fingerprint":"SF-Port1-TCP:V=1%r(A,1,\\"a\\");","other":"\xff"}',
]


@pytest.mark.parametrize("line", NOT_UTF8)
def test_a_line_that_is_not_utf8(line: bytes) -> None:
    """Wherever in it: what is written again must be JSON."""
    reader = LineReader()
    assert not list(reader.read(line))
    assert reader.faults.first == [(1, "not UTF-8")]


@pytest.mark.parametrize("more", ["", "é"])
def test_lines_together_are_read_as_one_by_one(more: str) -> None:
    """Rows, faults and their numbers, texts and what is counted; of ASCII and of other text."""
    wrapped = 'SF-Port1-TCP:V=1%r(NULL,5,"a\nSF:bc\nSF:de");'
    lines = [line for _, line, _ in ROWS] + NOTHING + [line for line, _ in FAULTS] + wrapped.split("\n") + [more]
    text = "\n".join(lines).encode()
    one, all_of_it = LineReader(10), LineReader(10)
    rows = [row for line in text.split(b"\n") for row in one.read(line)] + list(one.close())
    together = [*all_of_it.read_lines(text), *all_of_it.close()]
    assert [(row.proto, row.probes, row.data, bytes(row.head)) for row in together] == [
        (row.proto, row.probes, row.data, bytes(row.head)) for row in rows
    ]
    for name in ("faults", "texts", "form", "silent", "derived"):
        assert getattr(one, name) == getattr(all_of_it, name), name


@pytest.mark.parametrize("heading", ["Nmap scan report for 192.0.2.1", 'SF-Port22-TCP:V=7%r(NULL,1,"a");'])
def test_other_lines_mean_nothing_in_a_report(heading: str) -> None:
    """A heading or a fingerprint says that an input is one; a record says that it is none; the first of them counts."""
    text = (heading, "22/tcp open ssh?", 'SF-Port22-TCP:V=7%r(NULL,1,"a");', "Nmap done")
    rows, faults = read(*text)
    assert rows and not faults
    assert len(read('{"banner":""}', *text)[1]) == (3 if heading.startswith("Nmap") else 2)


def test_texts_wait_until_it_is_known_what_they_are() -> None:
    """Whatever the chunks; an input that never tells is one of which nothing could be used."""
    for form, faults, meaningless in ((RECORDS, 3, 0), (REPORT, 0, 3)):
        texts = Texts()
        assert texts.judge("", Faults(1, [(1, "a")])) == (Faults(), 0)
        decided, count = texts.judge(form, Faults(2, [(2, "b"), (3, "c")]))
        assert (decided.count, count) == (faults, meaningless)
        assert texts.judge(RECORDS, Faults(1, [(4, "d")]))[1] == int(form == REPORT)
        assert texts.close() == Faults()
    texts = Texts()
    texts.judge("", Faults(1, [(1, "a")]))
    assert texts.close() == Faults(1, [(1, "a")])


def test_of_many_faults_the_first_are_kept() -> None:
    """Memory stays flat, whatever an input holds; all are counted."""
    answer = Identifier(MATCHER).answer(Chunk(b"{\n" * 1000 + b"x\n" * 1000, 0, 0))
    assert (answer.faults.count, answer.texts.count) == (1000, 1000)
    assert [line for line, _ in answer.faults.first] == [*range(1, KEPT + 1)]
    assert len(answer.texts.first) == KEPT


@pytest.mark.parametrize("seed", range(8))
def test_fingerprints_are_read_as_they_are_written(seed: int) -> None:
    """Whatever the bytes, wrapped at column 74 or on one line, alone or in a result row."""
    chance = random.Random(seed)
    fingerprint = Fingerprint(8080, "tcp", version="0.1", intensity=7, platform="x")
    responses = [chance.randbytes(chance.randrange(1, 150)) + b'");\\x\0001' for _ in range(3)]
    for number, response in enumerate(responses):
        fingerprint.add(f"P{number}", response, 0.0)
    row = json.dumps({"ip": "192.0.2.1", "port": 8080, "fingerprint": fingerprint.text})
    for lines in (fingerprint.text.split("\n"), [unwrap(fingerprint.text)], [row]):
        rows, faults = read(*lines)
        assert not faults
        assert [(one.probes[0], one.data) for one in rows] == [(f"P{n}", data) for n, data in enumerate(responses)]


def test_a_fingerprint_row_says_what_the_fingerprint_says() -> None:
    rows, _ = read('SF-Port993-TCP:V=7.93%T=SSL%I=7%r(NULL,3E8,"ab\\0\\x001");')
    assert json.loads(bytes(rows[0].head) + b"}") == {
        "proto": "tcp", "port": 993, "tunnel": "ssl", "probe": "NULL", "data": b64(b"ab\0\x001"), "size": 1000,
    }  # fmt: skip


# -- answers


@pytest.fixture(scope="module")
def identifier() -> Identifier:
    return Identifier(MATCHER)


ANSWERS = [  # row, match, error
    ('{"banner":"SSH-2.0-x"}', {
        "name": "ssh", "product": "x", "version": "2.0", "extrainfo": "i", "hostname": "h", "ostype": "o",
        "devicetype": "d", "cpe": ["cpe:/a:a:b:2.0", "cpe:/o:c:d"], "probe": "NULL", "line": 2,
     }, None),
    ('{"banner":"220 x","n":12345678901234567890123}', {"name": "ftp", "soft": True, "probe": "NULL", "line": 3}, None),
    ('{"banner":"220 x","probe":"GetRequest"}', {"name": "ftp", "soft": True, "probe": "NULL", "line": 3}, None),
    ('{"banner":"what?"}', None, None),
    ('{"banner":"","x":{"y":[1,null]}}', None, None),
    ('{"proto":"udp","probe":"Ask","banner":"yes"}', {"name": "asked", "probe": "Ask", "line": 11}, None),
    ('{"proto":"udp","banner":"yes"}', None, "no UDP probe is named NULL"),
    ('{"probe":"Other","banner":"yes"}', None, "no TCP probe is named Other"),
    ('{"proto":"sctp","banner":"yes"}', None, "no SCTP probe is named NULL"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "match", "error"), ANSWERS)
def test_an_answer_is_the_row_with_its_match(
    identifier: Identifier, line: str, match: dict[str, object] | None, error: str | None
) -> None:
    answer = identifier.answer(Chunk(line.encode(), 0, 0))
    expected = {**json.loads(line), "match": match, **({"error": error} if error else {})}
    assert json.loads(answer.out) == expected
    assert answer.out.startswith(line[:-1].encode()), "keys of others are not touched"
    assert answer.tally == Tally(1, int(match is not None), int(error is not None))


def test_a_row_that_has_been_answered_is_answered_anew(identifier: Identifier) -> None:
    old = b'{"match":{"name":"old"},"banner":"SSH-2.0-x","error":"old","n":1}'
    row = json.loads(identifier.answer(Chunk(old, 0, 0)).out)
    assert list(row) == ["banner", "n", "match"]
    assert row["match"]["name"] == "ssh"


def test_what_is_remembered_is_what_was_said(identifier: Identifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of short responses changes no answer, also when it overflows."""
    monkeypatch.setattr(answers, "REMEMBERED", 3)
    texts = ["SSH-2.0-a", "none", "220 ", "SSH-2.0-b", "lines"]
    rows = [{"banner": text, "probe": probe} for text in texts for probe in ("NULL", "GenericLines")] * 4
    together = identifier.answer(Chunk("\n".join(map(json.dumps, rows)).encode(), 0, 0)).out.splitlines()
    assert together == [Identifier(MATCHER).answer(Chunk(json.dumps(row).encode(), 0, 0)).out.strip() for row in rows]


def test_what_a_line_always_says_is_written_once() -> None:
    """Not what it says of each response."""
    calls: list[str] = []

    def written(row: answers.MatchRow | None) -> str:
        calls.append(row.name if row else "")
        return calls[-1]

    MATCHER.match(MATCHER.database.probes[0], b"220 ")  # a matcher sees at the second match that it needs no groups
    asked = answers.Answers(MATCHER.database, MATCHER.match, written)
    long = b"x" * answers.SHORT
    for number in range(3):
        for text in (b"220 %d", b"SSH-2.%d-x", b"?%d"):
            asked.of("tcp", ("NULL",), False, text % number + long)
    assert sorted(calls) == ["", "ftp", "ssh", "ssh", "ssh"]
