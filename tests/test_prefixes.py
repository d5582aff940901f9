"""Lists of who may be contacted at all: what they hold, what is wrong with them, and what is reserved."""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError, InputError
from engine.targets.prefixes import (
    AddressFilter,
    PrefixSet,
    load_prefixes,
    parse_prefixes,
    reserved_networks,
)

RESERVED = reserved_networks()
NETWORKS = st.one_of(
    st.builds(lambda a, p: ipaddress.ip_network((a, p), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)),
    st.builds(
        lambda a, p: ipaddress.ip_network((a.to_bytes(16, "big"), p), strict=False),
        st.integers(2**125, 2**125 + 2**70) | st.integers(0x20 << 120, 2**128 - 1),
        st.integers(3, 128),
    ),
)


@settings(deadline=None)
@given(networks=st.lists(NETWORKS, max_size=20), others=st.lists(st.integers(0, 2**32 - 1)))
def test_membership_is_that_of_the_networks(
    networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network], others: list[int]
) -> None:
    """At and around both ends of every network, and anywhere else; a set joined of two halves is the same set."""
    prefixes = parse_prefixes(map(str, networks), "list")
    half = len(networks) // 2
    joined = parse_prefixes(map(str, networks[:half]), "list") | parse_prefixes(map(str, networks[half:]), "list")
    hosts: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = [ipaddress.IPv4Address(number) for number in others]
    for network in networks:
        ends = (int(network[0]) - 1, int(network[0]), int(network[-1]), int(network[-1]) + 1)
        hosts += [type(network[0])(end) for end in ends if 0 <= end < 2**network.max_prefixlen]
    for host in hosts:
        expected = any(host in network for network in networks)
        assert (str(host) in prefixes) is expected
        assert (str(host) in joined) is expected
    assert len(joined) == len(prefixes) <= len(networks)


LIST = """\
# comment
192.0.2.0/25
192.0.2.128/25   # touches the line above
  198.51.100.7

203.0.113.5-203.0.113.9
10.1.2.3/8       # host bits do not matter
2001:db8::/64
2001:db8::ffff:0:0:0-2001:db8:0:2::
"""


def test_list() -> None:
    prefixes = parse_prefixes(LIST.splitlines(), "list")
    inside = ["192.0.2.0", "192.0.2.255", "198.51.100.7", "203.0.113.5", "203.0.113.9", "10.255.255.255"]
    inside += ["2001:db8::1", "2001:db8:0:1::9", "2001:db8:0:2::", "::ffff:192.0.2.1"]
    outside = ["192.0.3.0", "192.0.1.255", "198.51.100.6", "203.0.113.4", "203.0.113.10", "11.0.0.0"]
    outside += ["2001:db8:0:2::1", "2001:db7::", "::ffff:11.0.0.0", "::192.0.2.1", "www.example.org", ""]
    assert [host for host in inside if host not in prefixes] == []
    assert [host for host in outside if host in prefixes] == []
    assert len(prefixes) == 5


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("192.0.2", "'192.0.2' is not an IP address; expected one, a CIDR network or a range"),
        ("www.example.org", "'www.example.org' is not an IP address"),
        ("192.0.2.0/33", "bad prefix length '33'; expected a number from 0 to 32"),
        ("192.0.2.0/", "bad prefix length ''"),
        ("192.0.2.0/-1", "is not an IP address"),
        ("2001:db8::/129", "bad prefix length '129'; expected a number from 0 to 128"),
        ("::ffff:192.0.2.0/120", "write a network of IPv4 addresses as IPv4"),
        ("192.0.2.9-192.0.2.1", "is no range from a lower to a higher address"),
        ("192.0.2.9-2001:db8::", "is no range from a lower to a higher address"),
        ("192.0.2.9-", "'' is not an IP address"),
        ("192.0.2.1 192.0.2.2", "is not an IP address"),
    ],
)
def test_a_wrong_line_stops_the_run(line: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text(f"192.0.2.0/24\n{line}\n")
    with pytest.raises(InputError) as error:
        load_prefixes(path)
    assert str(error.value).startswith(f"{path}:2: ")
    assert reason in str(error.value)


def test_a_list_that_cannot_be_read_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: cannot be read: No such file"):
        load_prefixes(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("block", "allow", "permitted"),
    [
        (None, None, {"192.0.2.1", "192.0.2.9", "2001:db8::1"}),
        ("192.0.2.0/30", None, {"192.0.2.9", "2001:db8::1"}),
        (None, "192.0.2.0/24", {"192.0.2.1", "192.0.2.9"}),
        ("192.0.2.0/30", "192.0.2.0/24", {"192.0.2.9"}),
    ],
)
def test_filter(block: str | None, allow: str | None, permitted: set[str]) -> None:
    """The blocklist wins over the allowlist."""

    def made(line: str | None) -> PrefixSet | None:
        return None if line is None else parse_prefixes([line], "list")

    chosen = AddressFilter(block=made(block), allow=made(allow))
    assert {host for host in ("192.0.2.1", "192.0.2.9", "2001:db8::1") if chosen.permits(host)} == permitted


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.31.255.255", "192.168.1.1", "198.19.0.1",
     "224.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2001:db8::1", "2002:7f00:1::",
     "fd00::1", "fe80::1", "fe80::1%eth0", "ff02::1"],
)  # fmt: skip
def test_reserved(host: str) -> None:
    assert host in RESERVED


@pytest.mark.parametrize(
    "host", ["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.128.0.0", "126.255.255.255", "128.0.0.0", "172.32.0.0",
             "223.255.255.255", "2001:200::", "2606:4700::1111", "2a00::1"],
)  # fmt: skip
def test_public(host: str) -> None:
    assert host not in RESERVED


@settings(deadline=None)
@given(st.ip_addresses())
def test_what_is_not_global_is_reserved(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """As Python's own copy of the IANA registries has it; a mapped address is judged as the IPv4 host it reaches."""
    host = getattr(address, "ipv4_mapped", None) or address
    if not host.is_global or host.is_multicast:
        assert str(address) in RESERVED


def made(lines: str) -> PrefixSet:
    return parse_prefixes(lines.splitlines(), "list")


REACHED = [  # an address, what stands for it
    ("127.0.0.1", ["0.0.0.0", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::127.0.0.1", "64:ff9b::127.0.0.1"]),
    ("::1", ["::", "::1", "::1%1"]),
    ("192.0.2.33", ["::ffff:192.0.2.33", "::192.0.2.33", "::ffff:0:192.0.2.33", "64:ff9b::192.0.2.33"]),
    ("192.0.2.33", ["64:ff9b:1::192.0.2.33", "64:ff9b:1:c000:2:2100::", "2002:c000:221::1", "2002:c000:221:5::"]),
    (
        "192.0.2.33",
        ["2001:0:c000:221::1", "2001:0:5efe::3fff:fdde", "fe80::5efe:192.0.2.33", "fe80::200:5efe:c000:221"],
    ),
]


@pytest.mark.parametrize(("address", "form"), [(address, form) for address, forms in REACHED for form in forms])
def test_a_blocklist_reaches_every_form_of_its_addresses(address: str, form: str) -> None:
    """And an allowlist does not: who may scan an address need not want its tunnels."""
    assert not AddressFilter(block=made(address)).permits(form)
    assert not AddressFilter(block=made(address)).permits(address)
    other = made("198.51.100.0/24\n2001:db8::/32")
    assert AddressFilter(block=other).permits(form)
    literally = form.partition("%")[0] in (address, f"::ffff:{address}")
    assert AddressFilter(allow=made(address)).permits(form) == literally


@pytest.mark.parametrize(
    "host",
    [
        "::10.0.0.1",
        "::ffff:0:10.0.0.1",
        "64:ff9b::8.8.8.8",
        "2002:a00:1::",
        "2001:0:a00:1::",
        "::2",
        "2a00::5efe:10.0.0.1",
    ],
)
def test_reserved_networks_know_their_translations(host: str) -> None:
    assert not AddressFilter(block=reserved_networks()).permits(host)


@pytest.mark.parametrize("host", ["8.8.8.8", "2a00:1450::1", "2a00::5efe:8.8.8.8", "::ffff:8.8.8.8"])
def test_public_addresses_are_not_reserved(host: str) -> None:
    assert AddressFilter(block=reserved_networks()).permits(host)
