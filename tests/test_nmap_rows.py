"""Nmap's XML as rows: reports of all times, whole and damaged. Ours, Nmap's own where it is installed, and by hand."""

import shutil
import socket
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from engine.conversation.fingerprint import unwrap, wrap
from engine.errors import InputError
from engine.model import Reason, ServiceResult, Tunnel, Verdict
from engine.offline.nmap_rows import UNKNOWN, NmapRows
from engine.results.sinks import Run, Summary, open_sink

HEAD = '<?xml version="1.0"?>\n<!DOCTYPE nmaprun>\n<nmaprun scanner="nmap" start="1163000000" version="7.94">\n'
TAIL = '<runstats><finished time="1163000009"/></runstats>\n</nmaprun>\n'


def rows_of(text: str | bytes, step: int = 1 << 16) -> list[ServiceResult]:
    data = text.encode() if isinstance(text, str) else text
    report = NmapRows("x.xml")
    rows = [row for at in range(0, len(data), step) for row in report.feed(data[at : at + step])]
    report.close()
    assert not report.faults.count
    return rows + report.given()


def host(ports: str, address: str = "192.0.2.7", more: str = "") -> str:
    kind = "ipv6" if ":" in address else "ipv4"
    return (
        f'<host starttime="1163000001"><status state="up"/><address addr="{address}" addrtype="{kind}"/>{more}'
        f"<ports>{ports}</ports></host>\n"
    )


FULL = host(
    '<extraports state="closed" count="990"/>'
    '<port protocol="tcp" portid="443"><state state="open" reason="syn-ack" reason_ttl="0"/>'
    '<service name="http" product="nginx &amp; co" version="1.2" extrainfo="Ubuntu" hostname="h.example" ostype="Linux"'
    ' devicetype="router" tunnel="ssl" method="probed" conf="10"><cpe>cpe:/a:nginx:nginx:1.2</cpe><cpe>cpe:/o:x</cpe>'
    '</service><script id="http-title" output="A&#xa;B"><elem key="title">A</elem></script></port>'
    '<port protocol="udp" portid="53"><state state="open|filtered" reason="no-response"/>'
    '<service name="domain" method="table" conf="3"/></port>'
    '<port protocol="tcp" portid="22"><state state="closed" reason="conn-refused"/></port>'
    '<port protocol="tcp" portid="23"><state state="filtered" reason="host-unreach"/></port>'
    '<port protocol="tcp" portid="24"><state state="filtered" reason="no-response"/></port>',
    more='<address addr="00:00:5E:00:53:01" addrtype="mac" vendor="x"/>'
    '<hostnames><hostname name="a.example" type="user"/><hostname name="ptr.example" type="PTR"/></hostnames>',
)


@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_all_that_a_port_says(step: int) -> None:
    """However the text is cut."""
    https, domain, closed, unreachable, silent = rows_of(HEAD + FULL + TAIL, step)
    assert https == ServiceResult(
        ip="192.0.2.7",
        port=443,
        proto="tcp",
        host="a.example",
        state="open",
        name="http",
        product="nginx & co",
        version="1.2",
        extrainfo="Ubuntu",
        hostname="h.example",
        ostype="Linux",
        devicetype="router",
        cpe=("cpe:/a:nginx:nginx:1.2", "cpe:/o:x"),
        tunnel=Tunnel.SSL,
        method="probed",
        conf=10,
        verdict=Verdict.HARDMATCHED,
        post={"http-title": "A\nB"},
        database=https.database,
        started="2006-11-08T15:33:21.000Z",
    )
    assert (https.database.name, https.database.sha256) == ("nmap 7.94", "")
    assert (domain.state, domain.verdict, domain.method, domain.conf) == ("open|filtered", Verdict.NOMATCH, "table", 3)
    assert [(row.verdict, row.reason) for row in (closed, unreachable, silent)] == [
        (Verdict.INCOMPLETE, Reason.REFUSED),
        (Verdict.INCOMPLETE, Reason.UNREACHABLE),
        (Verdict.INCOMPLETE, Reason.TIMEOUT),
    ]


def test_an_old_report() -> None:
    """Of Nmap 3: no DTD, no times of hosts, no reasons, RPC in attributes, states of a service left out."""
    port = '<port protocol="tcp" portid="{}"><state state="open" />{}</port>'
    rpc = '<service name="rpcbind" proto="rpc" rpcnum="100000" lowver="2" highver="4" method="detected" conf="5" />'
    text = (
        '<?xml version="1.0" ?>\n<!-- nmap 3.00 scan -->\n<nmaprun scanner="nmap" args="nmap" start="1028000000" '
        'version="3.00" xmloutputversion="1.01">\n<host><status state="up" /><address addr="::1" addrtype="ipv6" />\n'
        f"<hostnames></hostnames><ports>{port.format(1, '')}{port.format(111, rpc)}</ports></host></nmaprun>"
    )
    bare, program = rows_of(text)
    assert (bare.ip, bare.port, bare.name, bare.verdict, bare.conf) == ("::1", 1, "", Verdict.NOMATCH, 0)
    assert bare.started == "2002-07-30T03:33:20.000Z"
    assert (program.version, program.extrainfo, program.method) == ("2-4", "RPC #100000", "")
    assert rows_of(text.replace(' start="1028000000"', ""))[0].started == UNKNOWN


@pytest.mark.parametrize(
    ("service", "verdict", "product"),
    [
        ('name="tcpwrapped" method="probed" conf="8"', Verdict.TCPWRAPPED, ""),
        ('name="jetdirect" product="Excluded from version scan" method="table" conf="3"', Verdict.EXCLUDED, ""),
        ('name="http" product="x" servicefp="SF-Port1-TCP:V=7;" method="probed" conf="10"', Verdict.SOFTMATCHED, "x"),
        ('name="unknown" servicefp="SF-Port1-TCP:V=7;" method="table" conf="3"', Verdict.NOMATCH, ""),
    ],
)
def test_how_it_ended_is_concluded(service: str, verdict: Verdict, product: str) -> None:
    port = f'<port protocol="tcp" portid="1"><state state="open"/><service {service}/></port>'
    (row,) = rows_of(HEAD + host(port) + TAIL)
    assert (row.verdict, row.product) == (verdict, product)


def test_a_fingerprint_gets_its_lines_back() -> None:
    """As the sink takes them out."""
    text = wrap("SF-Port1-TCP:" + "x" * 500 + ";")
    assert "\nSF:" in text
    assert wrap(unwrap(text)) == text
    assert wrap("") == ""


def test_our_own_reports(tmp_path: Path) -> None:
    """What the sink wrote, read and written again, is the same."""
    first = rows_of(
        HEAD + FULL + host('<port protocol="tcp" portid="1"><state state="open"/></port>', "2001:db8::1") + TAIL
    )
    run = Run("1.0", "probemill", 1163000000.0)
    texts = []
    rows = first
    for name in ("one.xml", "two.xml"):
        sink = open_sink("xml", str(tmp_path / name), run)
        sink.write(b"".join(row.to_json().encode() + b"\n" for row in rows), len(rows))
        sink.close(Summary(1163000009.0))
        texts.append((tmp_path / name).read_bytes())
        rows = rows_of(texts[-1])
    assert texts[0] == texts[1]
    assert {(row.ip, row.port, row.name, row.product, row.cpe) for row in rows} == {
        (row.ip, row.port, row.name, row.product, row.cpe) for row in first
    }


def test_reports_may_follow_one_another() -> None:
    """As `cat` puts them; with a blank line or none between."""
    for between in ("", "\n\n"):
        rows = rows_of((HEAD + FULL + TAIL + between) * 3, 5)
        assert [row.port for row in rows] == [443, 53, 22, 23, 24] * 3
    assert rows_of("") == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (HEAD + FULL + FULL[:60], "the report ends in its middle"),
        (HEAD + FULL + "<host", "the report ends in its middle"),
        (HEAD + FULL + "</port></nmaprun>", "no well-formed XML"),
        (HEAD + FULL + "<a <b>" + TAIL, "no well-formed XML"),
        (HEAD + FULL + TAIL + "rubbish", "the report ends in its middle"),
        (HEAD + FULL + TAIL + "<html></html>", "no report of Nmap"),
    ],
)
def test_what_precedes_damage_is_kept(damage: str, reason: str) -> None:
    """And the damage is told with its line."""
    report = NmapRows("x.xml")
    rows = []
    with pytest.raises(InputError, match=reason) as told:
        rows += report.feed(damage.encode())
        report.close()
    assert len(rows + report.given()) == 5
    assert told.value.line >= 4


def test_entities_are_refused() -> None:
    """No bomb goes off."""
    with pytest.raises(InputError, match="declares entities"):
        rows_of('<!DOCTYPE nmaprun [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><nmaprun><host>&b;</host></nmaprun>')


def test_characters_that_xml_cannot_hold() -> None:
    """Old versions wrote them; Latin-1, too."""
    port = '<port protocol="tcp" portid="1"><state state="open"/><service name="x" product="{}" conf="3"/></port>'
    for raw in (b"a&#0;b", b"a&#x1B;b", b"a\x01b", b"a\xe9b", b"a&#xD800;b"):
        (row,) = rows_of((HEAD + host(port) + TAIL).encode().replace(b"{}", raw), 3)
        assert row.product == "a\ufffdb"


def test_ports_that_are_no_rows() -> None:
    """Are told, and the others read."""
    port = '<port protocol="{}" portid="{}"><state state="open"/></port>'
    report = NmapRows("x.xml")
    ports = "".join(port.format(*each) for each in (("sctp", 1), ("tcp", 65536), ("tcp", "x"), ("tcp", 5)))
    rows = report.feed((HEAD + host(ports) + host(port.format("tcp", 6), "nonsense") + TAIL).encode())
    assert [row.port for row in rows] == [5]
    assert report.faults.count == 4


def test_memory_does_not_grow_with_the_report() -> None:
    """A tag without end is refused; ports go as they come."""
    port = '<port protocol="tcp" portid="1"><state state="open"/><script id="x" output="{}"/></port>'.format("y" * 1000)
    report = NmapRows("x.xml")
    report.feed(HEAD.encode() + b'<host><address addr="192.0.2.1" addrtype="ipv4"/><ports>')
    tracemalloc.start()
    for _ in range(200):
        report.feed(port.encode() * 50)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_tag_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.offline.nmap_rows.TOKEN_LIMIT", 1 << 20)
    report = NmapRows("x.xml")
    report.feed(HEAD.encode() + b'<host comment="')
    with pytest.raises(InputError, match="a tag is longer"):
        for _ in range(32):
            report.feed(b"x" * (1 << 16))


@pytest.fixture
def server() -> Iterator[int]:
    """Says hello as an SSH server does, on loopback."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n")
                    connection.recv(100)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.skipif(shutil.which("nmap") is None, reason="needs an installed Nmap")
def test_a_report_of_the_installed_nmap(tmp_path: Path, server: int) -> None:
    """With versions and a script."""
    report = tmp_path / "scan.xml"
    command = ["nmap", "-sT", "-Pn", "-n", "-sV", "--script", "banner", "-p", f"{server},1", "-oX", str(report)]
    subprocess.run([*command, "127.0.0.1"], check=True, capture_output=True, timeout=60)
    rows = {row.port: row for row in rows_of(report.read_bytes())}
    assert rows[server].name == "ssh"
    assert rows[server].product == "OpenSSH"
    assert rows[server].verdict is Verdict.HARDMATCHED
    assert rows[server].started > "2020"
    assert rows[server].cpe
    assert rows[server].post is not None
    assert "SSH-2.0" in str(rows[server].post["banner"])
    assert (rows[1].state, rows[1].reason) == ("closed", Reason.REFUSED)


def test_tags_are_not_nested_without_end() -> None:
    """A few kilobytes, compressed, would take all memory."""
    with pytest.raises(InputError, match="nested more than 64 deep"):
        rows_of(HEAD + "<x>" * 100_000)
