"""The columns and the host line that people read."""

from typing import Any

import pytest

from engine.model import DatabaseRef, ServiceResult, Tunnel, Verdict
from engine.results.columns import has_service, service_column, service_info, version_column


def row(**fields: Any) -> ServiceResult:
    given: dict[str, Any] = {
        "ip": "192.0.2.1",
        "port": 23,
        "proto": "tcp",
        "state": "open",
        "method": "probed",
        "conf": 10,
        "verdict": Verdict.HARDMATCHED,
        "database": DatabaseRef("builtin", "00"),
        "started": "2026-11-21T06:38:13.000Z",
    }
    return ServiceResult(**given | fields)


TABLE = {"method": "table", "conf": 3, "verdict": Verdict.NOMATCH}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": "http"}, "http"),
        ({"name": "http", "tunnel": Tunnel.SSL}, "ssl/http"),
        ({"name": "irc"} | TABLE, "irc?"),
        ({"name": "https", "tunnel": Tunnel.SSL} | TABLE, "ssl/https?"),
        ({"name": "upnp", "state": "open|filtered", "proto": "udp"} | TABLE, "upnp"),
        ({"name": "tcpwrapped", "conf": 8}, "tcpwrapped"),
        ({"name": "x", "conf": 5}, "x?"),
        ({"name": "x", "conf": 6}, "x"),
        ({"name": "unknown"} | TABLE, "unknown"),
        ({"name": "unknown", "tunnel": Tunnel.SSL} | TABLE, "ssl/unknown"),
        ({"method": "", "conf": 0}, "unknown"),
        ({"name": "n" * 63}, "n" * 63),
        ({"name": "n" * 64}, ""),
        ({"name": "n" * 60, "tunnel": Tunnel.SSL}, ""),
        ({"name": "n" * 63} | TABLE, ""),
    ],
)
def test_service_column(fields: dict[str, Any], text: str) -> None:
    """B-90 to B-93: `?` marks a guess on an open port, and what is 64 wide or more is not shown at all."""
    assert service_column(row(**fields)) == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ((), ""),
        (("P",), "P"),
        (("", "1.2"), "1.2"),
        (("", "", "info"), "(info)"),
        (("P 1.2", "1.2", "I 1.2"), "P 1.2 1.2 (I 1.2)"),
        (("P", "", "info"), "P (info)"),
        (("a" * 70, "b" * 70, "c" * 200), f"{'a' * 70} {'b' * 70} ({'c' * 12}...)"),
        (("a" * 78, "b" * 74, "c"), f"{'a' * 78} {'b' * 74}"),
        (("a" * 78, "b" * 73, "c"), f"{'a' * 78} {'b' * 73}"),
        (("a" * 78, "b" * 72, "c"), f"{'a' * 78} {'b' * 72} (c)"),
        (("a" * 78, "b" * 72, "c" * 5), f"{'a' * 78} {'b' * 72} ({'c' * 5})"),
        (("a" * 78, "b" * 72, "c" * 6), f"{'a' * 78} {'b' * 72} (cc...)"),
        (("", "", "c" * 157), f"({'c' * 157})"),
        (("", "", "c" * 158), f"({'c' * 154}...)"),
        (("a" * 160, "b", "c"), f"{'a' * 156}..."),
    ],
)
def test_version_column(fields: tuple[str, ...], text: str) -> None:
    """B-60, B-60b: 159 characters in all; a part is cut with `...`, and left out when fewer than eight are left."""
    assert version_column(row(**dict(zip(("product", "version", "extrainfo"), fields, strict=False)))) == text


def test_service_info_of_many() -> None:
    """M-08: five distinct values of a kind at most, further ones dropped silently; application CPEs are not shown."""
    rows = [
        row(
            hostname=f"host{n}",
            ostype=f"OS{n}",
            devicetype=f"dev{n}",
            cpe=("cpe:/a:x:y", "cpe:/h:x:y", f"cpe:/o:x:{n}"),
        )
        for n in range(7)
    ]
    assert service_info(rows) == (
        "Service Info: Hosts: host0, host1, host2, host3, host4; OSs: OS0, OS1, OS2, OS3, OS4;"
        " Devices: dev0, dev1, dev2, dev3, dev4; CPE: cpe:/h:x:y, cpe:/o:x:0, cpe:/o:x:1, cpe:/o:x:2, cpe:/o:x:3"
    )


def test_service_info_of_one() -> None:
    """B-50: the singular where there is one value; `CPE` is never plural."""
    alone = row(hostname="h.example", ostype="Linux", devicetype="router", cpe=("cpe:/o:lin:lin",))
    assert service_info([alone]) == "Service Info: Host: h.example; OS: Linux; Device: router; CPE: cpe:/o:lin:lin"


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(name="http", product="P", cpe=("cpe:/a:x:y",))],
        [row(ostype="Linux", state="open|filtered", proto="udp")],
        [row(host="a.example", hostname="A.Example")],
    ],
    ids=["nothing", "application only", "not open", "the name the user gave"],
)
def test_no_service_info(rows: list[ServiceResult]) -> None:
    """B-62: only open ports count, and what the user said himself is no news."""
    assert service_info(rows) == ""


def test_host_names_differ_by_more_than_case() -> None:
    """One host name in two spellings is shown once, as first seen; operating systems are taken as they are."""
    rows = [row(hostname="Box", ostype="Linux"), row(hostname="BOX", ostype="linux")]
    assert service_info(rows) == "Service Info: Host: Box; OSs: Linux, linux"


def test_whether_there_is_a_service() -> None:
    """A port that nobody knows anything about has no service; one with a guess from the table has."""
    assert not has_service(row(method="", conf=0))
    assert has_service(row(name="irc", **TABLE))
