"""Input formats: what a line means, what is wrong with it, and that it makes no difference where the bytes are cut."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError, InputError
from engine.model import Target
from engine.targets import (
    FORMATS,
    Item,
    PortSpec,
    TargetSpec,
    Unreadable,
    canonical_address,
    detect,
    parse_ports,
    target_reader,
)
from engine.targets.base import LINE_LIMIT
from engine.targets.base_spec import BLOCK
from engine.targets.base_text import Decoder
from engine.targets.nmap_xml import TOKEN_LIMIT

FIXTURES = Path(__file__).parent / "inputs"


def read(text: str | bytes, form: str = "plain", ports: str = "", cut: int = 1 << 16) -> list[Item]:
    reader = target_reader("in", form, parse_ports(ports) if ports else None)
    data = text.encode() if isinstance(text, str) else text
    items = [item for start in range(0, len(data), cut) for item in reader.feed(data[start : start + cut])]
    return items + reader.close()


def shown(items: list[Item]) -> list[object]:
    """Errors compare by their text."""
    return [str(item) if isinstance(item, InputError) else item for item in items]


def addresses(text: str, ports: str = "") -> list[tuple[str, int, str]]:
    """What a target text expands to, a name resolved to 192.0.2.99."""
    (item,) = read(text, ports=ports)
    assert not isinstance(item, InputError), item
    if isinstance(item, Target):
        return [(item.host, item.port, item.proto)]
    spec = item.resolved("192.0.2.99") if item.is_name else item
    return [(target.host, target.port, target.proto) for target in spec.targets()]


# --- plain ----------------------------------------------------------------------------------------------------------

PLAIN = [  # text, ports of -p, what it expands to
    ("192.0.2.7:22", "", [("192.0.2.7", 22, "tcp")]),
    ("192.0.2.7:0022", "", [("192.0.2.7", 22, "tcp")]),
    ("192.0.2.7:65535/tcp", "", [("192.0.2.7", 65535, "tcp")]),
    ("192.0.2.7:53/UDP", "", [("192.0.2.7", 53, "udp")]),
    ("  192.0.2.7:22 \t", "", [("192.0.2.7", 22, "tcp")]),
    ("192.0.2.7:22 # ssh", "", [("192.0.2.7", 22, "tcp")]),
    ("192.0.2.7", "22,U:53", [("192.0.2.7", 22, "tcp"), ("192.0.2.7", 53, "udp")]),
    ("192.0.2.7", "22", [("192.0.2.7", 22, "tcp")]),
    ("[2001:DB8::0:7]:443", "", [("2001:db8::7", 443, "tcp")]),
    ("[2001:db8::7]:53/udp", "", [("2001:db8::7", 53, "udp")]),
    ("[2001:db8::7]", "22", [("2001:db8::7", 22, "tcp")]),
    ("2001:db8::7", "22", [("2001:db8::7", 22, "tcp")]),
    ("[::ffff:192.0.2.7]:80", "", [("192.0.2.7", 80, "tcp")]),
    ("::ffff:192.0.2.6/127", "80", [("192.0.2.6", 80, "tcp"), ("192.0.2.7", 80, "tcp")]),
    ("[fe80::1%eth0]:80", "", [("fe80::1%eth0", 80, "tcp")]),
    ("www.example.org:443", "", [("192.0.2.99", 443, "tcp")]),
    ("www.example.org", "22,80", [("192.0.2.99", 22, "tcp"), ("192.0.2.99", 80, "tcp")]),
    ("192.0.2.7/32:80", "", [("192.0.2.7", 80, "tcp")]),
    ("192.0.2.7/31:80/udp", "", [("192.0.2.6", 80, "udp"), ("192.0.2.7", 80, "udp")]),
    ("[2001:db8::/127]:80", "", [("2001:db8::", 80, "tcp"), ("2001:db8::1", 80, "tcp")]),
    ("2001:db8::/128", "80", [("2001:db8::", 80, "tcp")]),
]


@pytest.mark.parametrize(("text", "ports", "expected"), PLAIN, ids=[row[0].strip() for row in PLAIN])
def test_plain_target(text: str, ports: str, expected: list[tuple[str, int, str]]) -> None:
    assert sorted(addresses(text, ports)) == sorted(expected)


NAMES = [
    ("WWW.Example.ORG.:80", "www.example.org"),
    ("bücher.example:80", "xn--bcher-kva.example"),
    ("_dmarc.example.org:80", "_dmarc.example.org"),
    ("localhost:80", "localhost"),
    ("4chan:80", "4chan"),
]


@pytest.mark.parametrize(("text", "name"), NAMES)
def test_a_name_waits_for_its_address_and_is_kept(text: str, name: str) -> None:
    """A name is ASCII and lower case; the target reports it beside the address."""
    (spec,) = read(text)
    assert isinstance(spec, TargetSpec)
    assert (spec.host, spec.is_name, spec.name) == (name, True, name)
    with pytest.raises(ValueError, match="resolved first"):
        spec.at(0)
    assert list(spec.resolved("192.0.2.1").targets()) == [Target(0, "192.0.2.1", 80, "tcp", name)]


WRONG = [  # text, part of the reason
    ("192.0.2.7", "no port: write 192.0.2.7:PORT, or give the ports with -p"),
    ("2001:db8::7", "no port: write [2001:db8::7]:PORT"),
    ("192.0.2.7:", "no port after the ':'"),
    ("192.0.2.7:0", "port 0 cannot be scanned"),
    ("192.0.2.7:65536", "port 65536 is out of range; the highest is 65535"),
    ("192.0.2.7:" + "9" * 5000, "out of range"),
    ("192.0.2.7:ssh", "bad port 'ssh'; expected a number from 1 to 65535"),
    ("192.0.2.7:-1", "bad port '-1'"),
    ("192.0.2.7:²2", "bad port '²2'"),
    ("192.0.2.7:٢٢", "bad port"),
    ("192.0.2.7:1_0", "bad port '1_0'"),
    ("192.0.2.7:80/sctp", "protocol 'sctp' is not scanned; expected 'tcp' or 'udp'"),
    ("192.0.2.7:80/", "protocol '' is not scanned"),
    ("192.0.2.256:80", "neither an IPv4 address nor a name"),
    ("192.0.2:80", "neither an IPv4 address nor a name"),
    ("192.0.2.9-1:80", "'9-1' in '192.0.2.9-1' runs backwards or beyond 255"),
    ("192.0.2.0/33:80", "bad prefix length '33'; expected a number from 0 to 32"),
    ("192.0.2.0/:80", "bad prefix length ''"),
    ("192.0.2.0/255.255.255.0:80", "bad prefix length '255.255.255.0'"),
    ("example.org/24:80", "'example.org/24' is not a network: no IP address before the '/'"),
    ("[2001:db8::/129]:80", "bad prefix length '129'; expected a number from 0 to 128"),
    ("[::ffff:192.0.2.0/24]:80", "expected a number from 96 to 128"),
    ("[2001:db8::/64]:80", "a /64 is too large to scan; the largest IPv6 network is a /96"),
    ("[2001:db8::7:80", "is not [IPv6]:port"),
    ("[192.0.2.7]:80", "is not [IPv6]:port"),
    ("[2001:db8::7]80", "is not [IPv6]:port"),
    ("[2001:db8::g]:80", "'2001:db8::g' is not an IPv6 address"),
    ("2001:db8:::80", "is not an IPv6 address"),
    ("http://www.example.org/a?b=c", "a URL is no target: write www.example.org:80"),
    ("https://u:p@www.example.org:8443/", "a URL is no target: write www.example.org:8443"),
    ("ldap://[2001:db8::7]/", "a URL is no target: write [2001:db8::7]:389"),
    ("192.0.2.7:22 192.0.2.8:ssh", "more than one word, and not all are targets: bad port 'ssh'"),
    (":80", "no host before the port"),
    ("exa mple:80", "more than one word"),
    ("exa$mple:80", "'exa$mple' is not a host name"),
    ("-a.example:80", "is not a host name"),
    ("a..example:80", "is not a host name"),
    ("a" * 64 + ".example:80", "is not a host name"),
    ("a." * 127 + "example:80", "is not a host name"),
    ("ü" * 80 + ":80", "is not a host name"),
    ("192.0.2.7\0:80", "is not a host name"),
]


@pytest.mark.parametrize(("text", "reason"), WRONG, ids=[row[0][:40].replace("\0", "NUL") for row in WRONG])
def test_what_is_no_target_says_why_and_where(text: str, reason: str) -> None:
    """An error is `source:line: reason` in one short line, and the lines around it are read."""
    before, error, after = read(f"192.0.2.1:1\n{text}\n192.0.2.2:2\n")
    assert before == Target(0, "192.0.2.1", 1)
    assert after == Target(1, "192.0.2.2", 2)
    assert isinstance(error, InputError)
    assert str(error).startswith("in:2: ")
    assert reason in str(error)
    assert len(str(error)) < 200
    assert "\n" not in str(error)


def test_comments_blank_lines_and_line_ends() -> None:
    """Windows line ends, a byte order mark and a last line without an end are fine; only real lines have targets."""
    text = "\ufeff192.0.2.1:1\n\n   \n# comment\n  # 192.0.2.9:9\n192.0.2.2:2\nnonsense:x\n192.0.2.3:3"
    first, second, error, third = read(text.replace("\n", "\r\n"))
    assert [first, second, third] == [Target(i, f"192.0.2.{i + 1}", i + 1) for i in range(3)]
    assert str(error).startswith("in:7: ")


def test_bytes_that_are_no_text_are_one_error_a_line() -> None:
    items = read(b"\xff\xfd\x00:80\n\x80\x81\n192.0.2.1:1\n", ports="22")
    assert [type(item) for item in items] == [InputError, InputError, Target]


TEXTS_FOR_PEOPLE = {"nmap-normal", "rustscan"}  # most of their lines mean nothing; one that looks like a target does


@pytest.mark.parametrize("form", sorted(set(FORMATS) - {"nmap-xml"}))
def test_a_line_without_end_is_an_error_and_not_kept(form: str) -> None:
    """However long, it costs a line's memory, and the lines after it are read under their numbers."""
    reader = target_reader("in", form, parse_ports("80"))
    errors = [str(item) for _ in range(200) for item in reader.feed(b"x" * LINE_LIMIT)]
    assert len(errors) == 1
    assert errors[0].startswith("in:1: line is longer than ")
    assert reader.feed(b"x\n") == []
    assert reader.line == 1
    (error,) = reader.feed(b"192.0.2.1:9\n" if form in TEXTS_FOR_PEOPLE else b"!\n")
    assert str(error).startswith("in:2: ")


@pytest.mark.parametrize("cut", [1, 1000, LINE_LIMIT * 4])
@pytest.mark.parametrize(("size", "refused"), [(LINE_LIMIT, False), (LINE_LIMIT + 1, True)])
def test_the_longest_line(size: int, refused: bool, cut: int) -> None:
    text = "192.0.2.1:1".ljust(size) + "\r\n192.0.2.2:2\n"
    first, second = read(text, cut=cut)
    assert isinstance(first, InputError) is refused
    assert second == Target(0 if refused else 1, "192.0.2.2", 2)


# --- ports ----------------------------------------------------------------------------------------------------------

PORTS = [
    ("22", [22], []),
    ("80,22,80", [22, 80], []),
    ("20-22,21-23,", [20, 21, 22, 23], []),
    ("U:53,T:80,22", [22, 80], [53]),
    ("u:53,67-68", [], [53, 67, 68]),
    ("22, 80", [22, 80], []),
    ("-3", [1, 2, 3], []),
    ("0-2", [1, 2], []),
    ("65534-", [65534, 65535], []),
    ("U:-2,T:1", [1], [1, 2]),
]


@pytest.mark.parametrize(("text", "tcp", "udp"), PORTS, ids=[row[0] for row in PORTS])
def test_port_list(text: str, tcp: list[int], udp: list[int]) -> None:
    ports = parse_ports(text)
    expected = [(port, "tcp") for port in tcp] + [(port, "udp") for port in udp]
    assert [ports.at(index) for index in range(len(ports))] == expected
    assert ports == PortSpec(tcp, udp)
    assert hash(ports) == hash(PortSpec(tcp, udp))
    assert ports != PortSpec(udp, tcp)


@pytest.mark.parametrize("text", ["-", "1-", "-65535", "0-"])
def test_every_port(text: str) -> None:
    ports = parse_ports(text)
    assert (len(ports), ports.at(0), ports.at(65534)) == (65535, (1, "tcp"), (65535, "tcp"))


BAD_PORTS = [
    ("", "empty entry in ports"),
    ("22,,80", "empty entry in ports '22,,80'"),
    ("0", "port 0 cannot be scanned"),
    ("70000", "port 70000 is out of range"),
    ("30-20", "port range '30-20' runs backwards"),
    ("1-2-3", "bad port '2-3'"),
    ("http", "bad port 'http'"),
    ("S:22", "unknown protocol 'S:'"),
    ("T:U:22", "unknown protocol 'T:U:'"),
]


@pytest.mark.parametrize(("text", "reason"), BAD_PORTS)
def test_bad_port_list(text: str, reason: str) -> None:
    with pytest.raises(Unreadable) as error:
        parse_ports(text)
    assert reason in str(error.value)


# --- networks -------------------------------------------------------------------------------------------------------


RANGES = ["10.0.0-3.1,5", "10.0-2.*.1-254", "192.0.2.1-192.0.2.77", "10.0.0.9-10.1.0.20", "2001:db8::1-2001:db8::3"]


@pytest.mark.parametrize("network", ["192.0.2.0/24", "10.0.0.0/15", "2001:db8::/112", "192.0.2.4/30", *RANGES])
def test_a_network_visits_each_host_and_port_once(network: str) -> None:
    """Ordinals are the positions of the visits, and go on after the network."""
    spec, last = read(f"{network}\n192.0.2.1:1\n", ports="22,U:53")
    assert isinstance(spec, TargetSpec)
    targets = list(spec.targets())
    assert len(targets) == spec.count == spec.hosts * 2
    assert [target.ordinal for target in targets] == list(range(spec.count))
    assert len({(target.host, target.port, target.proto) for target in targets}) == spec.count
    assert {(target.port, target.proto) for target in targets} == {(22, "tcp"), (53, "udp")}
    assert last == Target(spec.count, "192.0.2.1", 1)


def test_a_network_leaves_a_neighbourhood_at_every_step() -> None:
    """No two targets of one /24 follow each other, and a host comes back only after the other hosts of its block."""
    (spec,) = read("10.0.0.0/8", ports="22,80")
    assert isinstance(spec, TargetSpec)
    hosts = [spec.at(index).host for index in range(BLOCK + 2)]
    prefixes = [host.rpartition(".")[0] for host in hosts]
    assert all(here != there for here, there in pairwise(prefixes))
    assert len(set(hosts[:BLOCK])) == BLOCK
    assert hosts[BLOCK:] == hosts[:2]


def test_a_range_of_octets_is_a_network_like_others() -> None:
    """`*.*.*.*` and 0.0.0.0/0 are the same hosts, at no cost before they are used."""
    (spec,) = read("*.*.*.*", ports="22")
    assert isinstance(spec, TargetSpec)
    assert spec.count == 1 << 32
    (whole,) = read("0.0.0.0/0", ports="22")
    assert isinstance(whole, TargetSpec)
    assert [spec.at(i) for i in (0, 1, 70_000, spec.count - 1)] == [
        whole.at(i) for i in (0, 1, 70_000, whole.count - 1)
    ]


def test_the_largest_network_costs_nothing_before_it_is_used() -> None:
    (spec,) = read("0.0.0.0/0", ports="T:-,U:-")
    assert isinstance(spec, TargetSpec)
    assert spec.count == 2**32 * 65535 * 2
    assert spec.at(spec.count - 1).proto == "udp"
    assert next(spec.targets(iter([spec.count - 1]))).ordinal == spec.count - 1
    with pytest.raises(IndexError):
        spec.at(spec.count)
    with pytest.raises(IndexError):
        spec.at(-1)


# --- other programs' formats ------------------------------------------------------------------------------------------

T = Target
WEB, DNS = T(0, "192.0.2.7", 80, "tcp", "", "open"), T(1, "192.0.2.8", 53, "udp", "", "open")
WEB6 = T(2, "2001:db8::7", 443, "tcp", "", "open")
OTHERS: list[tuple[str, str, list[Target]]] = [
    ("masscan.json", "ndjson", [WEB, DNS, WEB6]),
    ("masscan-old.json", "ndjson", [WEB, T(1, "192.0.2.8", 22, "tcp", "", "open")]),
    ("masscan.ndjson", "ndjson", [WEB, DNS]),
    ("masscan.list", "masscan-list", [WEB, DNS, WEB6]),
    ("zmap.csv", "csv", [T(0, "192.0.2.7", 443, "tcp", "", "open"), T(1, "192.0.2.9", 443, "tcp", "", "open")]),
    ("zmap-addresses.csv", "plain", [T(0, "192.0.2.7", 99), T(1, "192.0.2.9", 99)]),
    ("naabu.json", "ndjson", [T(0, "192.0.2.7", 443, "tcp", "www.example.org"), T(1, "192.0.2.8", 22),
                              T(2, "192.0.2.9", 53, "udp")]),
    ("nmap.xml", "nmap-xml", [T(0, "127.0.0.1", 18081, "tcp", "localhost", "open"),
                              T(1, "127.0.0.1", 18053, "udp", "localhost", "open|filtered")]),
    ("nmap.gnmap", "nmap-grepable", [T(0, "127.0.0.1", 18081, "tcp", "", "open"),
                                     T(1, "127.0.0.1", 18053, "udp", "", "open|filtered")]),
    ("nmap-v6.xml", "nmap-xml", [T(0, "::1", 18082, "tcp", "", "open")]),
    ("nmap-v6.gnmap", "nmap-grepable", [T(0, "::1", 18082, "tcp", "", "open")]),
]  # fmt: skip


@pytest.mark.parametrize("cut", [1, 7, 100_000])
@pytest.mark.parametrize(("name", "form", "expected"), OTHERS, ids=[row[0] for row in OTHERS])
def test_format_is_told_by_its_content(name: str, form: str, expected: list[Target], cut: int) -> None:
    """Read as a pipe delivers it, in pieces, with nothing said of its form."""
    data = (FIXTURES / name).read_bytes()
    assert detect(data.decode(), complete=True) == form
    assert read(data, "auto", "99", cut) == expected
    assert read(data, form, "99", cut) == expected


def test_ndjson() -> None:
    items = read((FIXTURES / "targets.ndjson").read_bytes(), "auto")
    name = items.pop(1)
    assert isinstance(name, TargetSpec)
    assert list(name.resolved("192.0.2.1").targets()) == [T(1, "192.0.2.1", 80, "tcp", "www.example.org")]
    assert items == [
        T(0, "192.0.2.7", 443, "tcp", "www.example.org", "open"),
        T(2, "2001:db8::7", 53, "udp", "", "open|filtered"),
        T(3, "192.0.2.8", 22),
        T(4, "192.0.2.8", 80),
        T(5, "192.0.2.10", 22, "tcp", "shell.example.org"),
    ]


RECORDS = [  # form, line, the reason, or the targets' host, port, proto, name, state
    ("ndjson", '[{"ip": "192.0.2.1", "port": 1}, {"ip": "192.0.2.2", "port": 2}]',
     [("192.0.2.1", 1, "tcp", "", ""), ("192.0.2.2", 2, "tcp", "", "")]),
    ("ndjson", '{"ip": "192.0.2.1"}', [("192.0.2.1", 99, "tcp", "", "")]),
    ("ndjson", '{"ip": "192.0.2.0/31", "port": 1}', [("192.0.2.0", 1, "tcp", "", ""), ("192.0.2.1", 1, "tcp", "", "")]),
    ("ndjson", '{"ip": "192.0.2.1", "port": 1, "host": "192.0.2.1"}', [("192.0.2.1", 1, "tcp", "", "")]),
    ("ndjson", '{"ip": "192.0.2.1", "port": 1, "state": "closed"}', []),
    ("ndjson", '{"ip": "192.0.2.1", "port": 1', "not a JSON record: '{"),
    ("ndjson", '"192.0.2.1:1"', "expected a JSON object, not '192.0.2.1:1'"),
    ("ndjson", '{"port": 1}', "no 'ip' and no 'host' in the record"),
    ("ndjson", '{"ip": 3221225985, "port": 1}', "'ip' is not a text: 3221225985"),
    ("ndjson", '{"ip": "192.0.2.1", "port": 1.5}', "bad port '1.5'"),
    ("ndjson", '{"ip": "192.0.2.1", "port": true}', "bad port 'True'"),
    ("ndjson", '{"ip": "192.0.2.1", "port": -1}', "bad port '-1'"),
    ("ndjson", '{"ip": "192.0.2.1", "port": 1, "proto": "sctp"}', "protocol 'sctp' is not scanned"),
    ("ndjson", '{"ip": "192.0.2.1", "port": 1, "proto": 6}', "bad protocol '6'"),
    ("ndjson", '{"ip": "192.0.2.1", "ports": 80}', "'ports' is not a list"),
    ("ndjson", '{"ip": "192.0.2.1", "port": 1, "name": "a b"}', "'a b' is not a host name"),
    ("masscan-list", "open sctp 80 192.0.2.1 1", []),
    ("masscan-list", "192.0.2.1:80", "expected 'open PROTOCOL PORT IP TIME'"),
    ("zmap", "saddr\n192.0.2.1", [("192.0.2.1", 99, "tcp", "", "")]),
    ("zmap", "192.0.2.1", [("192.0.2.1", 99, "tcp", "", "")]),
    ("zmap", 'ts,"saddr","sport",classification\n"1, 2",192.0.2.1,53,udp', [("192.0.2.1", 53, "udp", "", "open")]),
    ("zmap", "saddr,sport\n192.0.2.1", "expected 2 columns, found 1"),
    ("zmap", "saddr,sport\n192.0.2.1,x", "bad port 'x'"),
    ("nmap-grepable", "Nmap scan report for localhost (127.0.0.1)", "expected grepable output"),
    ("nmap-grepable", "Host: 192.0.2.1 ()\tPorts: 22/open/tcp//ssh//A, 80|open|tcp/, 25/filtered/tcp//smtp///\tOS: x",
     [("192.0.2.1", 22, "tcp", "", "open")]),
    ("nmap-xml", "<nmaprun><host><address addr='192.0.2.1' addrtype='ipv4'/><address addr='00:00:5E:00:53:01'"
     " addrtype='mac'/><hostnames><hostname name='ptr.example' type='PTR'/></hostnames><ports><port protocol='sctp'"
     " portid='1'><state state='open'/></port><port protocol='tcp' portid='2'><state state='open'/></port></ports>"
     "</host></nmaprun>", [("192.0.2.1", 2, "tcp", "", "open")]),
    ("nmap-xml", "<nmaprun><host><address addr='192.0.2.1' addrtype='ipv4'/><hostnames><hostname name='a.example'"
     " type='user'/></hostnames><ports><port protocol='tcp' portid='1'><state state='open'/></port></ports></host>"
     "<host><address addr='192.0.2.2' addrtype='ipv4'/><ports><port protocol='tcp' portid='2'><state state='open'/>"
     "</port></ports></host></nmaprun>",
     [("192.0.2.1", 1, "tcp", "a.example", "open"), ("192.0.2.2", 2, "tcp", "", "open")]),
    ("nmap-xml", "<nmaprun><port protocol='tcp' portid='2'><state state='open'/></port></nmaprun>", "no host"),
    ("nmap-xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "it declares entities"),
    ("nmap-xml", "192.0.2.1:80", "not well-formed XML: text outside of a report"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "line", "expected"), RECORDS, ids=[f"{row[0]} {row[1][:50]!r}" for row in RECORDS])
def test_record(form: str, line: str, expected: str | list[tuple[str, int, str, str, str]]) -> None:
    items = read(line, form, "99")
    if isinstance(expected, str):
        (error,) = items
        assert isinstance(error, InputError)
        assert expected in str(error)
        assert len(str(error)) < 200
    else:
        targets = [t for item in items for t in (item.targets() if isinstance(item, TargetSpec) else [item])]
        assert [(t.host, t.port, t.proto, t.name, t.state) for t in targets if isinstance(t, Target)] == expected


def test_an_unfinished_report_gives_what_it_has() -> None:
    """The targets of an XML report come as it grows; where it breaks off, that is one error."""
    data = (FIXTURES / "nmap.xml").read_bytes()
    reader = target_reader("in")
    items = reader.feed(data[: data.index(b"<times")])
    assert [type(item) for item in items] == [Target, Target]
    (error,) = reader.close()
    assert "it ends in the middle of a report" in str(error)


def test_a_tag_without_end_is_not_kept() -> None:
    reader = target_reader("in", "nmap-xml")
    items = reader.feed(b"<nmaprun><a b='")
    for _ in range(TOKEN_LIMIT // (1 << 20) + 3):
        items += reader.feed(b"x" * (1 << 20))
    (error,) = items
    assert "a tag is longer than 16 MiB" in str(error)


DETECTED = [
    (b"192.0.2.1:80\n", "plain"),
    (b"\n\n# hosts\nwww.example.org:80\n", "plain"),
    (b"[2001:db8::7]:443\n", "plain"),
    (b"[::1]:443\n", "plain"),
    (b'# c\n\n  {"ip"', "ndjson"),
    (b"[\n", "ndjson"),
    (b"[{", "ndjson"),  # however long the line will be
    (b"[2001:", ""),  # as yet: the line may go on in any way
    (b'[{"ip":"192.0.2.1","port":1}]\n', "ndjson"),
    (b"\xef\xbb\xbf  <?xml", "nmap-xml"),
    (b"#masscan\n", "masscan-list"),
    (b"open tcp 80 192.0.2.1 1\n", "masscan-list"),
    (b"# Nmap 7.93 scan initiated Mon as: nmap -oA x\n", ""),  # three forms begin so
    (b"# Nmap 7.93 scan initiated Mon as: nmap -oA x\nHost: 192.0.2.1 ()\tStatus: Up\n", "nmap-grepable"),
    (b"# Nmap 7.93 scan initiated Mon as: nmap -oA x\nNmap scan report for 192.0.2.1\n", "nmap-normal"),
    (b"Host: 192.0.2.1 ()\tPorts: \n", "nmap-grepable"),
    (b"saddr\n", "csv"),
    (b"timestamp-str,saddr,sport\n", "csv"),
    (b"saddr.example.org:80\n", "plain"),
    (b"192.0.2.1:8", ""),
    (b"", ""),
    (b"x" * (LINE_LIMIT + 1), "plain"),
]


@pytest.mark.parametrize(("opening", "form"), DETECTED, ids=[ascii(row[0][:30]) for row in DETECTED])
def test_detect(opening: bytes, form: str) -> None:
    assert detect(Decoder().decode(opening, final=True)) == form


def test_an_empty_input_has_no_targets() -> None:
    assert read("", "auto") == read("# nothing\n", "auto") == []


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown input format 'xml'; expected auto, plain, ndjson"):
        target_reader("in", "xml")


def test_ordinals_go_on_from_one_input_to_the_next() -> None:
    first = target_reader("a", "plain", ordinal=10)
    assert first.feed(b"192.0.2.1:1\n192.0.2.0/24:2\n")[0] == T(10, "192.0.2.1", 1)
    second = target_reader("b", ordinal=first.ordinal)
    assert second.feed(b"192.0.2.1:3\n") == [T(267, "192.0.2.1", 3)]
    assert second.ordinal == 268


LINES = st.sampled_from(
    ["192.0.2.1:80", "[2001:db8::1]:1/udp", "192.0.2.0/28", "name.example:1", "junk:x", "", "# c", "192.0.2.1:80\r",
     "bücher.example:1", '{"ip":"192.0.2.1","port":1}', "open tcp 80 192.0.2.1 1", "saddr,sport", "192.0.2.1,80",
     "Host: 192.0.2.1 ()\tPorts: 22/open/tcp///", "<nmaprun>", "[", "x" * (LINE_LIMIT + 1)]
)  # fmt: skip


@settings(deadline=None)
@given(lines=st.lists(LINES, max_size=12), cuts=st.lists(st.integers(0, 300), max_size=20), end=st.booleans())
def test_where_the_bytes_are_cut_makes_no_difference(lines: list[str], cuts: list[int], end: bool) -> None:
    data = ("\n".join(lines) + "\n" * end).encode()
    for form in ("auto", *FORMATS):
        whole, pieces = (target_reader("in", form, PortSpec([80])) for _ in range(2))
        expected = whole.feed(data) + whole.close()
        places = [*sorted({min(cut, len(data)) for cut in (*cuts, 0)}), len(data)]
        found = [item for a, b in pairwise(places) for item in pieces.feed(data[a:b])]
        assert shown(found + pieces.close()) == shown(expected)
        assert pieces.ordinal == whole.ordinal


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("::1%1", "::1"),
        ("::1%lo", "::1"),
        ("2001:DB8::7%eth0", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7%2", "192.0.2.7"),
        ("FE80::1%eth0.100", "fe80::1%eth0.100"),
        ("febf::1%br-lan", "febf::1%br-lan"),
        ("192.0.2.7%1", ""),
    ],
)
def test_one_host_has_one_spelling(text: str, canonical: str) -> None:
    """So that its caps and delays are counted once, whatever it was called."""
    assert canonical_address(text) == canonical
