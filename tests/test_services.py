"""The services table: which file is used, and which entry wins."""

from pathlib import Path

import pytest

from engine import services
from engine.errors import ConfigError
from engine.services import ServiceTable, parse_services

NMAP_STYLE = """\
# name, port/protocol, frequency, comments
alpha\t7/tcp\t0.001995\t# first of its port
beta\t7/tcp\t0.001000
alpha-udp\t7/udp\t0.001236
unknown\t8/tcp\t0.000477
gamma\t8/tcp\t0.000100
alto\t9/sctp\t0.1
alphabet\t10/tcp\t0.0
"""
SYSTEM_STYLE = """\
# comment
alpha           7/tcp           sink null       # with aliases
 indented       8/tcp
delta           65535/udp
epsilon         65536/tcp
broken          x/tcp
broken
"""


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without tables; the folder returned is where Nmap's would be."""
    monkeypatch.setattr("matcher.database.load.NMAP_FOLDERS", (str(tmp_path / "nmap"),))
    monkeypatch.setattr(services, "SYSTEM_FILE", tmp_path / "services")
    monkeypatch.delenv("NMAPDIR", raising=False)
    (tmp_path / "nmap").mkdir()
    return tmp_path / "nmap"


def table(text: str) -> ServiceTable:
    return ServiceTable(parse_services(text))


@pytest.mark.parametrize(
    ("text", "port", "proto", "name"),
    [
        (NMAP_STYLE, 7, "tcp", "alpha"),
        (NMAP_STYLE, 7, "udp", "alpha-udp"),
        (NMAP_STYLE, 8, "tcp", "gamma"),
        (NMAP_STYLE, 9, "tcp", ""),
        (NMAP_STYLE, 10, "udp", ""),
        (SYSTEM_STYLE, 7, "tcp", "alpha"),
        (SYSTEM_STYLE, 8, "tcp", ""),
        (SYSTEM_STYLE, 65535, "udp", "delta"),
        (SYSTEM_STYLE, 65536, "tcp", ""),
    ],
)
def test_name(text: str, port: int, proto: services.Proto, name: str) -> None:
    """The first name of a port and protocol counts; `unknown` is none."""
    assert table(text).name(port, proto) == name


def test_no_table_has_no_names(nothing_installed: Path) -> None:
    empty = ServiceTable.load(nothing_installed)
    assert (empty.name(80, "tcp"), empty.source, list(empty.rows())) == ("", "", [])


def test_which_table_is_used(nothing_installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the database, then $NMAPDIR, then Nmap's folders, then the system's; only one of them."""
    places = []
    for folder in ("beside", "env", "nmap"):
        place = tmp_path / folder / "nmap-services"
        place.parent.mkdir(exist_ok=True)
        places.append(place)
    places.append(tmp_path / "services")
    for place in places:
        place.write_text(f"{place.parent.name} 7/tcp\nonly-{place.parent.name} 1/tcp\n")
    monkeypatch.setenv("NMAPDIR", str(tmp_path / "env"))
    for place in places:
        for beside in (tmp_path / "beside", tmp_path / "beside" / "nmap-service-probes"):
            loaded = ServiceTable.load(beside)
            assert loaded.source == str(place)
            assert set(loaded.rows()) == {(place.parent.name, 7, "tcp"), (f"only-{place.parent.name}", 1, "tcp")}
        place.unlink()


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        ServiceTable.read(tmp_path)


@pytest.mark.skipif(not Path("/etc/services").is_file(), reason="this machine has no /etc/services")
def test_the_tables_of_this_machine() -> None:
    """Whichever is used, it knows the two best known ports."""
    loaded = ServiceTable.load()
    assert (loaded.name(22, "tcp"), loaded.name(80, "tcp")) == ("ssh", "http")
