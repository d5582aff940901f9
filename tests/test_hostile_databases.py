"""Databases of strangers: bounded time, errors with a place, and nothing that a terminal would obey."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.services import parse_services
from matcher import DatabaseError, Matcher, MatcherError, ProbeDatabase, compile_matcher, load_recog, parse_database
from matcher.database.ports import MAX_WILDCARDS
from matcher.database.samples import read_samples
from matcher.patterns import ENGINES, EngineUnavailable
from matcher.recog import parse_recog
from matcher.tools.lint import lint

MANY_DIGITS = b"9" * 5000  # more than Python's int() takes
LIMIT_S = 20.0  # for what takes a second at most on a quiet machine


def fault(line: bytes, before: bytes = b"Probe TCP Ask q|ask|\n") -> DatabaseError:
    with pytest.raises(DatabaseError) as caught:
        parse_database(before + line + b"\nProbe TCP End q|e|\n", "db", services=[("ssh", 22, "tcp")])
    assert caught.value.line == before.count(b"\n") + 1
    assert str(caught.value).isprintable()
    return caught.value


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "column"),
    [
        (b"rarity " + MANY_DIGITS, 8),
        (b"rarity -" + MANY_DIGITS, 8),
        (b"totalwaitms " + MANY_DIGITS, 13),
        (b"tcpwrappedms " + MANY_DIGITS, 14),
        (b"ports " + MANY_DIGITS, 7),
        (b"ports 1-" + MANY_DIGITS, 7),
        (b"sslports 1," + MANY_DIGITS + b"-2", 12),
        (b"fallback " + MANY_DIGITS, 1),
        (b"match x m|a{" + MANY_DIGITS + b"}|", None),
        (rb"match x m|(a)\g{" + MANY_DIGITS + b"}|", None),
    ],
)
def test_a_number_of_many_digits_is_out_of_range(line: bytes, column: int | None) -> None:
    """With its place, as any other number that is too large."""
    found = fault(line)
    assert column in (None, found.column)


@pytest.mark.parametrize("item", [MANY_DIGITS, b"1-" + MANY_DIGITS, b"[1-" + MANY_DIGITS + b"]", b"T:" + MANY_DIGITS])
def test_excluding_a_port_of_many_digits(item: bytes) -> None:
    assert fault(b"Exclude " + item, b"").column == 9


def test_leading_zeros_mean_nothing() -> None:
    """However many they are."""
    zeros = b"0" * 2000
    text = b"Probe TCP Ask q|a|\nrarity %b3\nports %b80-%b81\ntotalwaitms %b300\n" % ((zeros,) * 4)
    probe = parse_database(text, "db").probes[0]
    assert (probe.rarity, probe.ports.ranges, probe.totalwait_s) == (3, ((80, 81),), 0.3)


@pytest.mark.parametrize("template", [b"$P(%b)", b'$SUBST(%b,"a","b")', b'$I(%b,">")', b"$P(0x%b)", b"$P(0%b)"])
def test_a_helper_with_an_argument_of_many_digits_yields_nothing(template: bytes) -> None:
    """As with a group that is not there; lint says so."""
    text = b"Probe TCP NULL q||\nmatch x m|^(a)| p/" + template.replace(b"%b", MANY_DIGITS) + b"/ v/1/\n"
    database = parse_database(text, "db")
    match = Matcher(database, "reference", cache=False).match(database.probes[0], b"a")
    assert match is not None
    assert (match.info.product, match.info.version) == ("", "1")
    assert "field" in {finding.rule for finding in lint(text, "db", engine="reference")}


# --- texts -----------------------------------------------------------------------------------------------------------

CONTROLS = [*range(1, 0x20), *range(0x7F, 0xA0), 0xAD]


@pytest.mark.parametrize("code", [code for code in CONTROLS if code not in b"\n"])
def test_no_control_character_in_a_name(code: int) -> None:
    """C0, DEL, C1 and the invisible hyphen, in a probe's name and in a service's."""
    byte = bytes((code,))
    found = fault(b"Probe TCP a" + byte + b"b q|x|", b"")
    assert (found.column, "control character" in found.reason) == (12, True)
    for keyword in (b"match", b"softmatch"):
        found = fault(keyword + b" a" + byte + b"b m|x|")
        assert (found.column, "control character" in found.reason) == (len(keyword) + 3, True)


def test_other_bytes_in_names_and_control_characters_elsewhere() -> None:
    """Names are Latin-1; patterns, payloads and templates hold what they like, and fields come out printable."""
    text = b"Probe TCP a\xc9 q|\x1b|\nmatch \xe9/b!$ m|\x1b(.)| p/\x1b[2J$1\x9b/ cpe:/a:\x1b:$1/\n"
    database = parse_database(text, "db")
    assert (database.probes[0].name, database.probes[0].payload) == ("aÉ", b"\x1b")
    match = Matcher(database, "reference", cache=False).match(database.probes[0], b"\x1b\x07")
    assert match is not None
    assert (match.service, match.info.product, match.info.cpe) == ("é/b!$", ".[2J..", ("cpe:/a:.:.",))


@pytest.mark.parametrize(
    "row",
    [
        '{"banner": "a", "expect": {"name": "a\\u001b[2J"}}',
        '{"banner": "a", "expect": {"name": "a", "product": "\\u202e"}}',
        '{"banner": "a", "expect": {"name": "a", "cpe": ["cpe:/a:\\u009b"]}}',
        '{"banner": "a", "probe": "N\\nULL", "expect": null}',
        '{"banner": "a", "source": "real: \\u001b]0;x\\u0007", "expect": null}',
        '{"banner": "a", "expect": {"name": "a", "\\u001b[2J": 1}}',
        '{"banner": "a", "expect": null, "x": ' + "[" * 100_000 + "}",
        '{"banner": "a", "expect": null, "x": ' + "[" * 50_000 + "]" * 50_000 + "}",
        '{"banner": ' + "9" * 5000 + ', "expect": null}',
        '{"data": "!", "expect": null}',
        '"\\ud800"',
        "\udcff",
    ],
)
def test_a_sample_that_is_none(tmp_path: Path, row: str) -> None:
    """A fault with its line, which can be shown; the samples around it count."""
    good = '{"banner": "a\\u001b", "source": "handmade", "expect": null}'
    text = "\n".join((good, row, good))
    (tmp_path / "a.ndjson").write_bytes(text.encode("utf-8", "surrogateescape"))
    samples, faults = read_samples([tmp_path])
    assert [sample.line for sample in samples] == [1, 3]
    assert [one.line for one in faults] == [2]
    assert faults[0].reason.isprintable()


def test_a_service_with_a_control_character_is_no_entry() -> None:
    """Nor does a line end at anything but a line end."""
    text = "a\x1b 1/tcp\nb\x9b 2/tcp\nc\xad 3/tcp\n\x7f 4/tcp\n# x\x85d 5/tcp\n#\x0ce 6/tcp\né/f 7/tcp\r\n" + "g 8/tcp"
    assert list(parse_services(text)) == [("é/f", 7, "tcp"), ("g", 8, "tcp")]


# --- time ------------------------------------------------------------------------------------------------------------


def test_fallbacks_take_time_in_proportion() -> None:
    """20,000 probes that name each other: a search through all of them for each name would take minutes."""
    count = 20_000
    names = ",".join(f"P{count - 1 - n}" for n in range(17))
    text = "".join(f"Probe TCP P{n} q|{n}|\nfallback {names}\n" for n in range(count))
    same = "".join(f"Probe UDP P q|{n}|\n" for n in range(count)) + "Probe TCP T q|t|\nfallback P\n" * 1000
    began = time.process_time()
    assert len(parse_database(text.encode(), "db").probes[0].lists) == 18
    assert parse_database(same.encode(), "db").probes[-1].lists == (count + 999, 0)
    assert time.process_time() - began < LIMIT_S


@pytest.mark.parametrize(
    "items",
    [
        [f"[{n}-65535]" for n in range(1, 600)],
        ["s*"] * 2500,
        [f"s{n}" for n in range(1500)],
        ["*".join("s" * 2000) + "0"],
        ["?" * 4000 + "*"],
    ],
    ids=["ranges", "one wildcard", "names", "many stars", "many signs"],
)
def test_excluding_takes_time_in_proportion(items: list[str]) -> None:
    """With a services table of 40,000 names."""
    services = [(f"s{n}", n, proto) for n in range(20_000) for proto in ("tcp", "udp")]
    began = time.process_time()
    try:
        parse_database(f"Exclude {','.join(items)}\nProbe TCP A q|a|\n".encode(), "db", services=services)
    except DatabaseError as error:
        assert "no service is named" in error.reason
    assert time.process_time() - began < LIMIT_S


def test_so_many_wildcards_and_no_more() -> None:
    services = [(f"s{n}", n, "tcp") for n in range(1000)]
    few = [f"s{n}*" for n in range(MAX_WILDCARDS)]
    text = "Exclude {},s999\nProbe TCP A q|a|\n"
    assert len(parse_database(text.format(",".join(few)).encode(), "db", services=services).exclude_tcp.ranges) > 700
    with pytest.raises(DatabaseError, match=f"1:{len(','.join(few)) + 10}: more than {MAX_WILDCARDS} names"):
        parse_database(text.format(",".join([*few, "t*"])).encode(), "db", services=services)


# Each of them keeps Hyperscan busy for more than 20 s, and some for hours, if it is compiled as it is.
STEPS = [b"[a-%c]" % (0x62 + n % 20) for n in range(800)]
ENDLESS = {
    "repeats of repeats": rb"a(?:[^a]{30,64}x{39,64}.{56,62}){40,64}(?:[^a]\w|[^\r\n]{19,19})(?:.[^\r\n]\d){55,64}q",
    "many that may be left out": b"^" + b"".join(step + b"?" for step in STEPS) + b"q$",
    "many in a loop": b"a(?:" + b"".join(step + b"?" for step in STEPS) + b")*q$",
    "many that repeat": b"^" + b"".join(step + b"*" for step in STEPS) + b"q$",
}


def small(*lines: bytes) -> ProbeDatabase:
    return parse_database(b"Probe TCP NULL q||\n" + b"".join(b"match x m~%b~s\n" % line for line in lines), "db")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ENDLESS)
def test_a_line_that_takes_hours_to_compile_does_not_hold_the_start(engine: str, kind: str) -> None:
    """It is asked all the same, and the lines beside it are found as ever."""
    database = small(b"^first", ENDLESS[kind], b"^last")
    began = time.process_time()
    try:
        matcher = compile_matcher(database, engine, cache=False)
    except EngineUnavailable as absent:
        pytest.skip(str(absent))
    assert time.process_time() - began < LIMIT_S
    fits = b"q" if kind == "many that may be left out" else b"aabbq" if kind == "many that repeat" else b"last"
    for response in (b"first", fits, b"last"):
        match = matcher.match(database.probes[0], response)
        assert match is not None
        assert match.signature.line == {b"first": 2, b"last": 4}.get(response, 3)


def test_many_lines_without_keys_do_not_hold_the_start_either() -> None:
    """Thousands that are all tested one by one, and of which each begins otherwise."""
    database = small(*(rb"^[%c-\xff]{%d,}\d" % (65 + number % 50, 1 + number % 9) for number in range(3000)), b"^last")
    began = time.process_time()
    match = compile_matcher(database, "re2", cache=False).match(database.probes[0], b"last")
    assert match is not None
    assert match.signature.line == 3002
    assert time.process_time() - began < LIMIT_S


# --- Recog -----------------------------------------------------------------------------------------------------------

FINGERPRINT = '<fingerprint pattern="^x"><description>d</description>{}</fingerprint>'


def recog(*fingerprints: str, attributes: str = "", before: str = "") -> bytes:
    return f"{before}<fingerprints {attributes}>{''.join(fingerprints)}</fingerprints>".encode()


BILLION = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    "data",
    [
        recog(FINGERPRINT.format("&j;"), before=BILLION + "]>"),
        recog(FINGERPRINT.format("&a;" * 100_000), before=f'<!DOCTYPE x [<!ENTITY a "{"h" * 50_000}">]>'),
        recog(FINGERPRINT.format("&a;"), before='<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'),
        recog(before='<!DOCTYPE fingerprints SYSTEM "x.dtd">'),
        recog("<a>" * 100_000),
        recog("<a>" * 20 + "</a>" * 20),
        b"<?xml version='1.0' encoding='no-such'?><fingerprints/>",
        b"<?xml version='1.0' encoding='utf-7'?><fingerprints/>",
        b"<?xml version='1.0' encoding='idna'?><fingerprints/>",
        b"\xff\xfe<\0",
        b"",
        b"\0" * 100,
    ],
    ids=range(12),
)
def test_xml_that_is_refused(data: bytes) -> None:
    """Entities, nesting and encodings that nobody needs: one line, at once."""
    began = time.process_time()
    with pytest.raises(DatabaseError) as caught:
        parse_recog(data, "a\x1b.xml")
    assert str(caught.value).startswith(r"a\x1b.xml:")
    assert str(caught.value).isprintable()
    assert time.process_time() - began < LIMIT_S


@pytest.mark.parametrize(
    "parameter",
    [
        f'<param pos="{"9" * 5000}" name="service.product"/>',
        '<param pos="-1" name="a"/>',
        '<param pos="٣" name="a"/>',
        '<param pos="1000" name="a"/>',
        f'<param pos="0" name="a" value="{"{service.version}" * 1000}"/>',
    ],
)
def test_a_parameter_that_cannot_be_obeyed_is_left_out(parameter: str) -> None:
    """The fingerprint stays, with its other parameters."""
    good = '<param pos="0" name="service.vendor" value="v"/>'
    (fingerprint,) = parse_recog(recog(FINGERPRINT.format(parameter + good)), "x.xml").fingerprints
    assert [one.name for one in fingerprint.parameters] == ["service.vendor"]


def test_texts_of_fingerprints_can_be_shown(tmp_path: Path) -> None:
    """Descriptions, names, values, keys and flags; XML lets through what a terminal obeys."""
    bad = "\x9b2J\u202e\x7f"
    texts = f'<fingerprint pattern="x" flags="F{bad}"><description>e{bad}</description></fingerprint>'
    texts += f'<fingerprint pattern="y"><description>d{bad}</description><param pos="0" name="n{bad}" value="v{bad}"/>'
    (tmp_path / "x.xml").write_bytes(recog(texts + "</fingerprint>", attributes=f'matches="k{bad}"'))
    read = load_recog(tmp_path)
    match = read.identify(r"k\x9b2J\u202e\x7f", b"y")
    assert match is not None
    for text in (match.source, *match.fields, *match.fields.values(), *map(str, read.skipped)):
        assert text.isprintable()
        assert r"\x9b2J\u202e\x7f" in text


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999", "9" * 5000, "x", ""])
def test_a_preference_that_is_no_number(number: str) -> None:
    assert parse_recog(recog(attributes=f'preference="{number}"'), "x.xml").preference == 0.1


def test_a_pattern_longer_than_any_line_is_skipped() -> None:
    read = parse_recog(recog(f'<fingerprint pattern="{"(a" * 100_000}"/>'), "x.xml")
    assert [one.reason for one in read.skipped] == ["longer than 8191 characters"]


# --- anything --------------------------------------------------------------------------------------------------------

DIRECTIVES = [b"Probe TCP ", b"Probe UDP ", b"match ", b"softmatch ", b"ports ", b"rarity ", b"fallback ", b"Exclude "]
PIECES = [
    b"q|",
    b"m|",
    b"|",
    b"\n",
    b" ",
    b"p/$P(1)/",
    b"cpe:/a:",
    b"[1-",
    b"]",
    b"ssh*",
    b",",
    b"-",
    b"\\x",
    b"(",
    b"\xff",
]
WORDS = st.sampled_from([*DIRECTIVES, *PIECES, MANY_DIGITS])
DATABASES = st.one_of(st.binary(max_size=200), st.lists(st.one_of(WORDS, st.binary(max_size=3))).map(b"".join))


@settings(max_examples=300, deadline=None)
@given(data=DATABASES, first=st.sampled_from([b"", b"Probe TCP NULL q||\n", b"Probe TCP A q|a|\nmatch x m|^(a)| "]))
def test_any_bytes_are_a_database_or_an_error(data: bytes, first: bytes) -> None:
    """With a place, in one line; and what is a database can be explained, linted and asked."""
    services = [("ssh", 22, "tcp"), ("sshx", 23, "udp")]
    try:
        database = parse_database(first + data, "db", services=services)
    except DatabaseError as error:
        assert error.line >= 1
        assert error.column >= 1
        assert str(error).isprintable()
        return
    matcher = Matcher(database, "reference", cache=False)
    for probe in database.probes:
        assert probe.name.isprintable() or "\xa0" in probe.name
        matcher.match(probe, b"ab")


@settings(max_examples=200, deadline=None)
@given(data=st.one_of(st.binary(max_size=300), st.text().map(str.encode)), extra=st.text(max_size=20))
def test_any_bytes_are_samples_or_faults(tmp_path_factory: pytest.TempPathFactory, data: bytes, extra: str) -> None:
    path = tmp_path_factory.mktemp("any") / "a.ndjson"
    row = '{"banner": "a", "expect": {"name": "' + extra.replace("\n", " ") + '"}}'
    path.write_bytes(data + b"\n" + row.encode())
    for one in read_samples([path])[1]:
        assert one.reason.isprintable() or "\xa0" in one.reason or "\u3000" in one.reason


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=255), max_size=100), st.integers(0, 10**6))
def test_any_text_is_a_services_table(text: str, number: int) -> None:
    for name, port, proto in parse_services(f"{text} {number}/tcp {text}\n{text}"):
        assert 0 <= port <= 65535
        assert proto in ("tcp", "udp")
        assert name.isprintable() or "\xa0" in name


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 20))
def test_any_bytes_are_fingerprints_or_an_error(piece: bytes, place: int, gone: int) -> None:
    good = recog(FINGERPRINT.format('<param pos="0" name="a" value="{b}"/>'), attributes='matches="k"')
    try:
        parse_recog(good[:place] + piece + good[place + gone :], "x.xml")
    except MatcherError as error:
        assert str(error).isprintable()


def test_heads_that_are_long_do_not_hold_up_a_response() -> None:
    """Lines without keys that each begin with thousands of sets: only so much of that is looked at."""
    database = small(*(rb"^[^\x%02x]" % number + b"." * 8050 for number in range(200)), b"^last")
    matcher = compile_matcher(database, "re2", cache=False)
    began = time.process_time()
    for first in b"abcdefgh":
        assert matcher.match(database.probes[0], bytes((first,))) is None
    assert time.process_time() - began < LIMIT_S
