"""Every form of output: what it writes, what it holds back, and how it ends when its destination fails."""

import errno
import os
import re
import resource
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nmap_loopback import listening, run_nmap, speaking

from engine.errors import OutputError
from engine.model import DatabaseRef, Reason, ServiceResult, Tunnel, Verdict
from engine.results.ending import Ending
from engine.results.paint import coloured, safe
from engine.results.sinks import BUFFERED_ROWS, SINKS, STDOUT, Run, SinkClosed, Summary, open_sink
from engine.results.sinks.base import HostBuffer
from engine.results.sinks.nmap_xml import quote

RUN = Run(version="0.1.0", args="probemill scan --format xml 192.0.2.1", started=1_795_243_093.25)
SUMMARY = Summary(finished=1_795_243_101.75)
DTD = Path("/usr/share/nmap/nmap.dtd")


def row(ip: str = "192.0.2.1", port: int = 23, **fields: Any) -> ServiceResult:
    given: dict[str, Any] = {
        "proto": "tcp",
        "state": "open",
        "method": "probed",
        "conf": 10,
        "verdict": Verdict.HARDMATCHED,
        "database": DatabaseRef("builtin", "00"),
        "started": "2026-11-21T06:38:13.000Z",
        "elapsed_ms": 1500,
    }
    return ServiceResult(ip=ip, port=port, **given | fields)


UNKNOWN = {"name": "unknown", "method": "table", "conf": 3, "verdict": Verdict.NOMATCH}
SF = 'SF-Port9-TCP:V=0.1.0%I=7%D=11/21%Time=6B013C55%P=x86_64-pc-linux-gnu%r(NU\nSF:LL,3,"a--");'

SSH = row(port=22, name="ssh", product="OpenSSH", version="9.2p1", extrainfo="protocol 2.0", ostype="Linux")
HTTPS = row(port=443, name="http", product="nginx", tunnel=Tunnel.SSL, cpe=("cpe:/a:igor:nginx", "cpe:/o:x:y"))
MYSTERY = row(port=9, **UNKNOWN, fingerprint=SF)
DNS = row(port=53, proto="udp", name="domain", product="BIND", state="open")
SILENT = row(port=1234, method="", conf=0, verdict=Verdict.NOMATCH)
NAMED = row("2001:db8::1", 80, host="example.org", name="http", hostname="Example.Org", devicetype="router")
ALL = [DNS, HTTPS, NAMED, MYSTERY, SILENT, SSH]


def blob(rows: list[ServiceResult]) -> bytes:
    return msgspec.json.Encoder().encode_lines(rows)


def written(form: str, path: Path, rows: list[ServiceResult], summary: Summary = SUMMARY, run: Run = RUN) -> str:
    """What the sink of that form leaves in the file for these rows, given in two blobs."""
    sink = open_sink(form, str(path), run)
    half = len(rows) // 2
    for part in (rows[:half], rows[half:]):
        sink.write(blob(part), len(part))
    sink.close(summary)
    return path.read_text()


# ndjson


def test_ndjson_is_the_bytes_of_the_workers(tmp_path: Path) -> None:
    """Nothing is decoded on the way: even a line that is no row goes through as it is."""
    sink = open_sink("ndjson", str(tmp_path / "out"), RUN)
    sink.write(b'{"not":"a row"}\n', 1)
    sink.write(blob(ALL), len(ALL))
    sink.close(SUMMARY)
    assert (tmp_path / "out").read_bytes() == b'{"not":"a row"}\n' + blob(ALL)


def test_ndjson_holds_nothing_back(tmp_path: Path) -> None:
    """A row is in the file when `write` returns."""
    sink = open_sink("ndjson", str(tmp_path / "out"), RUN)
    sink.write(blob([SSH]), 1)
    assert (tmp_path / "out").read_bytes() == blob([SSH])
    sink.close(SUMMARY)


# Destinations that fail


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file may grow above this many bytes, which is how a full disk looks to a writer."""
    limit = 10_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_complete_lines(tmp_path: Path, small_files: int) -> None:
    """The write that does not fit is taken back: the file holds whole rows, exactly those that were accepted."""
    path = tmp_path / "out"
    sink = open_sink("ndjson", str(path), RUN)
    piece = blob([SSH] * 7)
    accepted = b""
    with pytest.raises(OutputError, match=rf"^{re.escape(str(path))}: File too large$"):
        for _ in range(small_files):
            sink.write(piece, 7)
            accepted += piece
    assert path.read_bytes() == accepted
    assert small_files - len(piece) < len(accepted) <= small_files
    sink.write(blob([SSH])[:1] + b"\n", 1)  # what fits may still be written
    sink.close(SUMMARY)
    assert path.read_bytes() == accepted + b"{\n"


def test_xml_on_a_full_disk_is_well_formed(tmp_path: Path, small_files: int) -> None:
    """The host that does not fit is taken back, and the tail still fits."""
    sink = open_sink("xml", str(tmp_path / "out.xml"), RUN)
    rows = [row(f"192.0.2.{n}", name="http", product="p" * 500) for n in range(40)]
    sink.write(blob(rows), len(rows))
    with pytest.raises(OutputError, match="File too large"):
        sink.close(SUMMARY)
    hosts = ET.parse(tmp_path / "out.xml").getroot().findall("host")
    assert 0 < len(hosts) < len(rows)


def test_a_full_device_is_one_clear_line() -> None:
    """The system's words, and where."""
    sink = open_sink("ndjson", "/dev/full", RUN)
    with pytest.raises(OutputError, match=f"^/dev/full: {os.strerror(errno.ENOSPC)}$"):
        sink.write(blob([SSH]), 1)
    sink.close(SUMMARY)


@pytest.mark.parametrize("form", SINKS)
def test_a_folder_that_is_not_there(tmp_path: Path, form: str) -> None:
    """Said when the sink is opened, before anything is scanned."""
    with pytest.raises(OutputError, match="nowhere/out: No such file or directory"):
        open_sink(form, str(tmp_path / "nowhere" / "out"), RUN)


@pytest.fixture
def closed_pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard output is a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(os, "dup", {1: writer}.__getitem__)
    yield


@pytest.mark.usefixtures("closed_pipe")
@pytest.mark.parametrize("form", SINKS)
def test_a_reader_that_goes_away_is_no_error(form: str) -> None:
    """`SinkClosed` once, wherever it is noticed; whatever is written after that is dropped without a word."""
    with pytest.raises(SinkClosed):
        sink = open_sink(form, STDOUT, RUN)
        sink.write(blob([SSH, MYSTERY]), 2)
        sink.close(SUMMARY)


@pytest.mark.usefixtures("closed_pipe")
def test_silence_after_the_reader_went_away() -> None:
    """The collector may go on for a moment, and close."""
    sink = open_sink("ndjson", STDOUT, RUN)
    with pytest.raises(SinkClosed):
        sink.write(blob([SSH]), 1)
    sink.write(blob([SSH]), 1)
    sink.close(SUMMARY)


# Hosts put together


def gathered(rows: list[ServiceResult], bound: int) -> list[list[tuple[str, str, int]]]:
    """The hosts that a buffer of that size emits, as (address, protocol, port)."""
    hosts: list[list[tuple[str, str, int]]] = []
    buffer = HostBuffer(lambda rows: hosts.append([(row.ip, row.proto, row.port) for row in rows]), bound)
    for each in rows:
        buffer.add(each)
    buffer.drain()
    return hosts


def test_hosts_come_out_whole_and_in_order() -> None:
    """By address as numbers, IPv4 first; TCP before UDP, ports ascending."""
    rows = [row("10.0.0.10", 9), row("2001:db8::1", 1), row("10.0.0.9", 80), row("10.0.0.9", 7, proto="udp")]
    rows += [row("10.0.0.10", 1), row("10.0.0.9", 443)]
    assert gathered(rows, bound=100) == [
        [("10.0.0.9", "tcp", 80), ("10.0.0.9", "tcp", 443), ("10.0.0.9", "udp", 7)],
        [("10.0.0.10", "tcp", 1), ("10.0.0.10", "tcp", 9)],
        [("2001:db8::1", "tcp", 1)],
    ]


def test_a_full_buffer_lets_go_of_hosts_that_were_quiet_longest() -> None:
    """At five rows of a bound of four, two stay: those of the host that spoke last."""
    rows = [row("10.0.0.9", 1), row("10.0.0.7", 1), row("10.0.0.8", 1), row("10.0.0.9", 2), row("10.0.0.6", 1)]
    assert gathered([*rows, row("10.0.0.6", 2)], bound=4) == [
        [("10.0.0.7", "tcp", 1)],
        [("10.0.0.8", "tcp", 1)],
        [("10.0.0.9", "tcp", 1), ("10.0.0.9", "tcp", 2)],
        [("10.0.0.6", "tcp", 1), ("10.0.0.6", "tcp", 2)],
    ]


def test_two_names_of_one_address_are_two_hosts() -> None:
    """The same port may answer them differently inside TLS."""
    rows = [row(host="b.example", port=443), row(host="a.example", port=443), row(host="b.example", port=80)]
    assert [len(host) for host in gathered(rows, bound=100)] == [1, 2]


# text


def test_text_table(tmp_path: Path) -> None:
    """One table per host with aligned columns, fingerprints under it, then what is known of the host."""
    assert written("text", tmp_path / "out", ALL) == (
        "Scan report for 192.0.2.1\n"
        "PORT     STATE SERVICE  VERSION\n"
        "9/tcp    open  unknown\n"
        "22/tcp   open  ssh      OpenSSH 9.2p1 (protocol 2.0)\n"
        "443/tcp  open  ssl/http nginx\n"
        "1234/tcp open  unknown\n"
        "53/udp   open  domain   BIND\n"
        "1 service unrecognized despite returning data. What came back:\n"
        f"{SF}\n"
        "Service Info: OS: Linux; CPE: cpe:/o:x:y\n"
        "\n"
        "Scan report for example.org (2001:db8::1)\n"
        "PORT   STATE SERVICE VERSION\n"
        "80/tcp open  http\n"
        "Service Info: Device: router\n"
        "\n"
    )


def test_many_closed_ports_are_a_number(tmp_path: Path) -> None:
    """As with Nmap, up to 25 of a host are listed; those that answer stand out."""
    closed = [row(port=port, state="closed", name="", verdict=Verdict.INCOMPLETE) for port in range(100, 125)]
    few = written("text", tmp_path / "few", [SSH, *closed])
    assert (few.count(" closed"), "Not shown" in few) == (25, False)
    another = row(port=9000, state="closed", name="", verdict=Verdict.INCOMPLETE)
    filtered = [row(port=port, state="filtered", name="", verdict=Verdict.INCOMPLETE) for port in range(2000, 3000)]
    assert written("text", tmp_path / "many", [SSH, *closed, another, *filtered]) == (
        "Scan report for 192.0.2.1\n"
        "Not shown: 26 closed ports, 1,000 filtered ports\n"
        "PORT   STATE SERVICE VERSION\n"
        "22/tcp open  ssh     OpenSSH 9.2p1 (protocol 2.0)\n"
        "Service Info: OS: Linux\n"
        "\n"
    )
    assert written("text", tmp_path / "silent", [*closed, another]) == (
        "Scan report for 192.0.2.1\nNot shown: 26 closed ports\n\n"
    )


def test_nine_fingerprints_are_enough_to_read(tmp_path: Path) -> None:
    """M-06: of twelve, normal output shows nine, each behind a separating line; XML has all twelve."""
    rows = [row(port=port, **UNKNOWN, fingerprint=f"SF-Port{port};") for port in range(1, 13)]
    text = written("text", tmp_path / "out", rows)
    assert "\n9 services unrecognized" in text
    assert re.findall(r"^(=+NEXT SERVICE FINGERPRINT=+|SF-Port\d+;)$", text, re.MULTILINE)[1::2] == [
        f"SF-Port{port};" for port in range(1, 10)
    ]
    assert written("xml", tmp_path / "out", rows).count("servicefp=") == 12


def test_text_as_it_comes(tmp_path: Path) -> None:
    """Where the input may never end, every row is a line at once."""
    streaming = msgspec.structs.replace(RUN, streaming=True)
    sink = open_sink("text", str(tmp_path / "out"), streaming)
    sink.write(blob([NAMED, SSH]), 2)
    assert (tmp_path / "out").read_text() == (
        "[2001:db8::1]:80/tcp [example.org] open http\n192.0.2.1:22/tcp open ssh OpenSSH 9.2p1 (protocol 2.0)\n"
    )
    sink.close(SUMMARY)


def test_text_of_a_huge_run_turns_into_lines(tmp_path: Path) -> None:
    """No more than a bounded number of rows is held back; nothing is lost when the form changes."""
    sink = open_sink("text", str(tmp_path / "out"), RUN)
    sink.write(blob([SSH] * BUFFERED_ROWS), BUFFERED_ROWS)
    assert not (tmp_path / "out").read_bytes()
    sink.write(blob([NAMED]), 1)
    lines = (tmp_path / "out").read_text().splitlines()
    assert len(lines) == BUFFERED_ROWS + 1
    assert lines[-2:] == [
        "192.0.2.1:22/tcp open ssh OpenSSH 9.2p1 (protocol 2.0)",
        "[2001:db8::1]:80/tcp [example.org] open http",
    ]
    sink.close(SUMMARY)
    assert len((tmp_path / "out").read_text().splitlines()) == BUFFERED_ROWS + 1


# xml


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("<a>&\"'--.. x", "&lt;a&gt;&amp;&quot;&apos;-&#45;.. x"),
        ("a-b --- c", "a-b -&#45;&#45; c"),
        ("\t\n", "&#x9;&#xa;"),
        ("caf\xe9 \u20ac \U0001f600", "caf&#xe9; &#x20ac; &#x1f600;"),
        ("\x00\x1b\ud800\uffff", "...."),
    ],
)
def test_xml_quoting(text: str, quoted: str) -> None:
    """B-59, M-10; and what no XML can hold does not break the document."""
    assert quote(text) == quoted
    assert "." in quoted or ET.fromstring(f"<x>{quoted}</x>").text == text


def test_xml_ports(tmp_path: Path) -> None:
    """Attributes in Nmap's order; no service element where nothing is known; fingerprints on one line."""
    ports = re.findall(r"<port .*?</port>", written("xml", tmp_path / "out", [MYSTERY, SSH, HTTPS, SILENT]))
    state = '<state state="open" reason="syn-ack" reason_ttl="0"/>'
    assert ports == [
        f'<port protocol="tcp" portid="9">{state}<service name="unknown" servicefp="SF-Port9-TCP:V=0.1.0%I=7%D=11/21'
        "%Time=6B013C55%P=x86_64-pc-linux-gnu%r(NULL,3,&quot;a-&#45;&quot;);"
        '" method="table" conf="3"/></port>',
        f'<port protocol="tcp" portid="22">{state}<service name="ssh" product="OpenSSH" version="9.2p1"'
        ' extrainfo="protocol 2.0" ostype="Linux" method="probed" conf="10"/></port>',
        f'<port protocol="tcp" portid="443">{state}<service name="http" product="nginx" tunnel="ssl" method="probed"'
        ' conf="10"><cpe>cpe:/a:igor:nginx</cpe><cpe>cpe:/o:x:y</cpe></service></port>',
        f'<port protocol="tcp" portid="1234">{state}</port>',
    ]


def test_xml_keeps_an_empty_name(tmp_path: Path) -> None:
    """G-90: a database may call a service nothing at all; it is a service nevertheless."""
    assert '<service name="" product="x" method="probed"' in written("xml", tmp_path / "out", [row(product="x")])


ENDING = Ending(why="interrupted", read=3, done=1, not_reached=2)
STOPPED = Summary(finished=SUMMARY.finished, ending=ENDING)


@pytest.mark.parametrize("form", ["text", "xml", "grepable", "fingerprints"])
def test_every_form_says_that_the_run_was_stopped(form: str, tmp_path: Path) -> None:
    assert STOPPED.trouble == "interrupted: 1 of 3 done, 2 not reached"
    assert STOPPED.trouble not in written(form, tmp_path / "whole", [SSH])
    last = written(form, tmp_path / "part", [SSH], STOPPED).rstrip("\n").splitlines()[-4:]
    assert any(STOPPED.trouble in line for line in last)


CUT_OFF = [
    row("192.0.2.9", port, name="telnet", method="table", conf=3, verdict=Verdict.INCOMPLETE, reason=Reason.CANCELLED)
    for port in (2323, 2424)
]


def test_a_port_that_was_not_reached_is_not_listed(tmp_path: Path) -> None:
    """Whatever its port is called, nobody knows what it is: it is counted, at its host or at the end."""
    for form, counted, alone in (
        ("text", "\n2 ports not reached\n", "2 ports of 1 other host not reached\n"),
        ("xml", '<extraports state="unknown" count="2"/>\n<port ', '<hosts up="0"'),
        ("grepable", "\tIgnored State: unknown (2)\n", "# probemill done at "),
    ):
        text = written(form, tmp_path / form, [row("192.0.2.9", 22, name="ssh"), *CUT_OFF])
        assert counted in text
        assert "telnet" not in text and "2323" not in text
        text = written(form, tmp_path / form, CUT_OFF)
        assert alone in text
        assert "telnet" not in text and "192.0.2.9" not in text
    assert written("text", tmp_path / "s", CUT_OFF, run=msgspec.structs.replace(RUN, streaming=True)) == ""


EXCLUDED = {"port": 9100, "verdict": Verdict.EXCLUDED, "name": "jetdirect", "method": "table", "conf": 3}


@pytest.mark.parametrize(
    ("state", "text", "xml", "grepable"),
    [
        ("open", "9100/tcp open  jetdirect? Excluded from version scan", 'state="open"', "9100/open/tcp//jetdirect?//"),
        (
            "",
            "9100/tcp unknown jetdirect Excluded from version scan",
            'state="unknown"',
            "9100/unknown/tcp//jetdirect//",
        ),
    ],
    ids=["called open", "never looked at"],
)
def test_an_excluded_port(state: str, text: str, xml: str, grepable: str, tmp_path: Path) -> None:
    """In Nmap's words; no state is claimed of a port that neither the input nor anybody here has looked at."""
    excluded = row(state=state, **EXCLUDED)
    assert text.split() in [line.split() for line in written("text", tmp_path / "t", [excluded]).splitlines()]
    document = written("xml", tmp_path / "x", [excluded])
    assert f"<state {xml}" in document
    assert 'name="jetdirect" product="Excluded from version scan" method="table" conf="3"' in document
    assert f"{grepable}Excluded from version scan/" in written("grepable", tmp_path / "g", [excluded])
    assert ('"state"' in written("ndjson", tmp_path / "n", [excluded])) == bool(state)


UNRESOLVED = {"ip": "", "host": "no.example", "state": "", "verdict": Verdict.INCOMPLETE, "reason": Reason.UNRESOLVED}


def test_a_name_without_an_address(tmp_path: Path) -> None:
    """Said in Nmap's words where the form has any, behind the hosts that have one."""
    rows = [row(**UNRESOLVED), SSH]
    assert written("text", tmp_path / "t", rows).endswith('\nFailed to resolve "no.example".\n\n')
    document = ET.fromstring(written("xml", tmp_path / "x", rows))
    assert [target.attrib for target in document.findall("target")] == [
        {"specification": "no.example", "status": "skipped", "reason": "invalid"}
    ]
    assert len(document.findall("host")) == 1
    assert '\n# Failed to resolve "no.example".\n' in written("grepable", tmp_path / "g", rows)
    streamed = written("text", tmp_path / "s", rows, run=msgspec.structs.replace(RUN, streaming=True))
    assert streamed.startswith('no.example:23/tcp Failed to resolve "no.example".\n')


def test_xml_of_an_interrupted_run(tmp_path: Path) -> None:
    """Everything known is there, the document is complete, and says that the run is not."""
    stopped = Summary(finished=SUMMARY.finished, error="interrupted")
    root = ET.fromstring(written("xml", tmp_path / "out", [SSH], stopped))
    finished = root.find("runstats/finished")
    assert finished is not None
    assert (finished.get("exit"), finished.get("errormsg"), finished.get("elapsed")) == ("error", "interrupted", "8.50")
    assert finished.get("summary") == "interrupted; 1 host scanned in 8.50 seconds"


def test_xml_of_a_killed_run_can_be_mended(tmp_path: Path) -> None:
    """The commands of docs/result.md turn a file that ends anywhere after a host into a document with whole hosts."""
    recipe = re.search(r"```sh\n(.*?)```", (Path(__file__).parent.parent / "docs" / "result.md").read_text(), re.DOTALL)
    assert recipe is not None
    text = written("xml", tmp_path / "out.xml", ALL)
    first = text.index("</host>") + len("</host>\n")
    for end in range(first, len(text), 97):
        (tmp_path / "out.xml").write_text(text[:end])
        subprocess.run(["/bin/sh", "-ec", recipe[1]], cwd=tmp_path, check=True)
        hosts = ET.parse(tmp_path / "mended.xml").getroot().findall("host")
        assert len(hosts) == text[:end].count("</host>\n")


@pytest.mark.parametrize("rows", [[], ALL], ids=["nothing", "all"])
def test_xml_is_valid_against_nmaps_dtd(tmp_path: Path, rows: list[ServiceResult]) -> None:
    """xmllint finds nothing to say."""
    xmllint = shutil.which("xmllint")
    if xmllint is None or not DTD.exists():
        pytest.skip("needs xmllint and Nmap's DTD")
    written("xml", tmp_path / "out.xml", rows)
    done = subprocess.run(
        [xmllint, "--noout", "--nonet", "--dtdvalid", DTD, tmp_path / "out.xml"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_ndiff_reads_it(tmp_path: Path) -> None:
    """Two runs in which one version changed differ in that line."""
    ndiff = shutil.which("ndiff")
    if ndiff is None:
        pytest.skip("ndiff is not installed")
    written("xml", tmp_path / "a.xml", ALL)
    written("xml", tmp_path / "b.xml", [*ALL[:-1], msgspec.structs.replace(SSH, version="9.9p9")])
    done = subprocess.run([ndiff, tmp_path / "a.xml", tmp_path / "b.xml"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    changed = [line for line in done.stdout.splitlines() if re.match(r"[-+]\d", line)]
    assert changed == [
        "-22/tcp open  ssh     OpenSSH 9.2p1 (protocol 2.0)",
        "+22/tcp open  ssh     OpenSSH 9.9p9 (protocol 2.0)",
    ]


def test_python_libnmap_reads_it(tmp_path: Path) -> None:
    """Hosts, names and services arrive."""
    parser = pytest.importorskip("libnmap.parser").NmapParser
    report = parser.parse_fromstring(written("xml", tmp_path / "out", ALL))
    assert [(host.address, host.hostnames, len(host.services)) for host in report.hosts] == [
        ("192.0.2.1", [], 5),
        ("2001:db8::1", ["example.org"], 1),
    ]
    https = report.hosts[0].get_service(443, "tcp")
    assert (https.service, https.tunnel, https.banner) == ("http", "ssl", "product: nginx")


# grepable


def test_grepable(tmp_path: Path) -> None:
    """M-10: seven fields a port, slashes turned; no service where nothing is known; a guess carries its mark."""
    odd = row(port=7, name="a/b", product="<a>&\"'--.. x", extrainfo="a/b&")
    guess = row(port=6668, **UNKNOWN | {"name": "irc"})
    text = written("grepable", tmp_path / "out", [HTTPS, odd, SILENT, guess, NAMED])
    first, *hosts, last = text.splitlines()
    assert re.fullmatch(r"# probemill 0\.1\.0 scan initiated \w+ \w+ [ \d]\d .* 2026 as: (.*)", first)[1] == RUN.args  # type: ignore[index]
    assert hosts == [
        "Host: 192.0.2.1 ()\tStatus: Up",
        "Host: 192.0.2.1 ()\tPorts: 7/open/tcp//a|b//<a>&\"'--.. x (a|b&)/, 443/open/tcp//ssl|http//nginx/,"
        " 1234/open/tcp/////, 6668/open/tcp//irc?///",
        "Host: 2001:db8::1 (example.org)\tStatus: Up",
        "Host: 2001:db8::1 (example.org)\tPorts: 80/open/tcp//http///",
    ]
    assert last.endswith("-- 2 hosts scanned in 8.50 seconds")


# fingerprints


def test_fingerprints_apart(tmp_path: Path) -> None:
    """Only what was not recognised, and where it was."""
    named = row(port=9, host="example.org", **UNKNOWN, fingerprint="SF-Port9-TCP:x;")
    assert written("fingerprints", tmp_path / "out", [SSH, MYSTERY, named]) == (
        f"# 192.0.2.1\n{SF}\n\n# example.org (192.0.2.1)\nSF-Port9-TCP:x;\n\n"
    )


# The same text as Nmap's


DATABASE = rb"""Probe TCP NULL q||
totalwaitms 200
match foo/bar m|^all ([^ ]*) ([^ ]*)| p/P $1/ v/$1/ i/a-b--c $2/ h/h.ex/ o/OS/ d/dev/ cpe:/a:v:$1/ cpe:/h:q/ cpe:/o:r/
match short m|^short|
match nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn m|^long| p/x/
softmatch soft m|^soft|
"""


def rows_of(document: Path) -> list[ServiceResult]:
    """The rows that an XML file of Nmap's tells of, as our own scan would have made them."""
    rows = []
    for port in ET.parse(document).getroot().iterfind("host/ports/port"):
        service = port.find("service")
        fields: dict[str, Any] = {"method": "", "conf": 0}
        if service is not None:
            fields = {name: text for name, text in service.attrib.items() if name != "servicefp"}
            fields["conf"] = int(fields["conf"])
            fields["cpe"] = tuple(cpe.text or "" for cpe in service.iterfind("cpe"))
            fields["fingerprint"] = service.get("servicefp", "")
        rows.append(row("127.0.0.1", int(port.attrib["portid"]), **fields))
    return rows


def test_the_same_ports_read_as_with_nmap(tmp_path: Path) -> None:
    """XML, grepable and human output of the same results, port for port, equal Nmap's own."""
    banners = [
        b"all 1.2 <&>\"'/\x01x",
        b"all " + b"v" * 70 + b" " + b"i" * 200,
        b"short",
        b"long",
        b"soft",
        b"huh--",
        b"",
    ]
    with listening([speaking(banner, {}) for banner in banners]) as ports:
        run_nmap(tmp_path, DATABASE, ports)
    rows = rows_of(tmp_path / "out.xml")
    assert len(rows) == len(banners)
    for form, file, pattern in (
        ("xml", "out.xml", r"<port .*?</port>"),
        ("grepable", "out.gnmap", r"\tPorts: .*"),
        ("text", "out.nmap", r"^(?:PORT|\d+/tcp|Service Info) ?.*"),
    ):
        theirs = re.findall(pattern, (tmp_path / file).read_text(), re.MULTILINE)
        ours = re.findall(pattern, written(form, tmp_path / "ours", rows), re.MULTILINE)
        assert ours == theirs, form


def test_who_looks_on_sees_ports_before_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open ones, each once, when two seconds have passed; the tables come at the end all the same."""
    clock = [RUN.started]
    monkeypatch.setattr("engine.results.sinks.text.time.time", lambda: clock[0])
    sink = open_sink("text", str(tmp_path / "out"), msgspec.structs.replace(RUN, watched=True))
    closed = row(port=81, state="closed", method="", conf=0, verdict=Verdict.INCOMPLETE, reason=Reason.REFUSED)
    sink.write(blob([SSH, closed, CUT_OFF[0]]), 3)
    assert (tmp_path / "out").read_text() == ""
    clock[0] += 2
    sink.write(blob([HTTPS]), 1)
    ssh = "192.0.2.1:22/tcp open ssh OpenSSH 9.2p1 (protocol 2.0)\n"
    early = f"{ssh}192.0.2.1:443/tcp open ssl/http nginx\n"
    assert (tmp_path / "out").read_text() == early
    sink.write(blob([NAMED]), 1)
    early += "[2001:db8::1]:80/tcp [example.org] open http\n"
    assert (tmp_path / "out").read_text() == early
    sink.close(SUMMARY)
    rows = [SSH, closed, CUT_OFF[0], HTTPS, NAMED]
    assert (tmp_path / "out").read_text() == early + written("text", tmp_path / "file", rows)


def test_what_was_shown_early_is_not_said_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is too large for tables: each row is one line, once."""
    monkeypatch.setattr("engine.results.sinks.text.BUFFERED_ROWS", 5)
    rows = [row(port=port, state="open" if port % 2 else "closed") for port in range(1, 11)]
    sink = open_sink("text", str(tmp_path / "out"), msgspec.structs.replace(RUN, watched=True))
    for each in rows:
        sink.write(blob([each]), 1)
    sink.close(SUMMARY)
    lines = (tmp_path / "out").read_text().splitlines()
    assert sorted(int(re.findall(r":(\d+)/", line)[0]) for line in lines) == list(range(1, 11))


def test_colours_change_no_letter(tmp_path: Path) -> None:
    """A table for a terminal is that of a file, but for colours; and what a row says is shown, not obeyed."""
    for rows in (ALL, [row(name="x\x1b[2J", product="\u202ea\x07", extrainfo="e", host="h\x9b1m")]):
        painted = written("text", tmp_path / "colours", rows, run=msgspec.structs.replace(RUN, paint=coloured))
        safely = written("text", tmp_path / "safe", rows, run=msgspec.structs.replace(RUN, paint=safe))
        assert re.sub(r" +(?=\n)", "", re.sub(r"\x1b\[[0-9;]*m", "", painted)) == safely
        assert not set(safely) & set("\x1b\u202e\x07\x9b")
    assert written("text", tmp_path / "safe", ALL, run=msgspec.structs.replace(RUN, paint=safe)) == written(
        "text", tmp_path / "plain", ALL
    )
