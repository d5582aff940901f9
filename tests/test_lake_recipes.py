"""The recipes of docs/lake.md: each is run as it stands, on a small lake of two scans, and gives what it should."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.model import DatabaseRef, ServiceResult, TlsFacts, Tunnel, Verdict

pytest.importorskip("pyarrow", reason="needs probemill[lake]")
duckdb = pytest.importorskip("duckdb", reason="needs probemill[lakedev]")
pl = pytest.importorskip("polars", reason="needs probemill[lakedev]")

from engine.results.lake import Batch, Delivery, open_lake

DOCUMENT = (Path(__file__).parent.parent / "docs" / "lake.md").read_text()
RECIPES = {
    title: (sql, python)
    for title, sql, python in re.findall(
        r"^### (.+?)\n(?:(?!^#).)*?```sql\n(.*?)```\n\n```python\n(.*?)```", DOCUMENT, re.DOTALL | re.MULTILINE
    )
}
NOW = datetime.now(UTC).replace(microsecond=0)
SOON = NOW + timedelta(days=10)


def service(ip: str, port: int, name: str, product: str = "", version: str = "", **more: Any) -> str:
    cpe = (f"cpe:/a:x:{product.lower()}:{version}",) if product else ()
    return (
        ServiceResult(
            ip=ip,
            port=port,
            proto="tcp",
            state="open",
            name=name,
            product=product,
            version=version,
            cpe=cpe,
            verdict=Verdict.HARDMATCHED,
            database=DatabaseRef("builtin", "00"),
            started=NOW.isoformat().replace("+00:00", "Z"),
            **more,
        ).to_json()
        + "\n"
    )


def certificate(not_after: datetime) -> dict[str, Any]:
    facts = TlsFacts(protocol="TLSv1.3", subject="CN=a", not_after=not_after.isoformat().replace("+00:00", "Z"))
    return {"tls": facts, "tunnel": Tunnel.SSL}


SCANS = {
    "week-1": [
        service("192.0.2.1", 22, "ssh", "OpenSSH", "9.2"),
        service("192.0.2.1", 80, "http", "httpd", "2.4.9"),
        service("192.0.2.2", 22, "ssh", "OpenSSH", "10.0"),
        service("192.0.2.3", 25, "smtp"),
    ],
    "week-2": [
        service("192.0.2.1", 22, "ssh", "OpenSSH", "9.2"),
        service("192.0.2.1", 80, "http", "httpd", "2.4.57"),
        service("192.0.2.4", 443, "http", "httpd", "2.4.57", **certificate(SOON)),
        service("192.0.2.5", 443, "http", "httpd", "2.4.57", **certificate(NOW + timedelta(days=400))),
    ],
}
EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    "Top products": [("httpd", 4, 3), ("OpenSSH", 3, 2)],
    "Versions behind the newest that was seen": [
        ("192.0.2.1", 22, "OpenSSH", "9.2", "10.0"),
        ("192.0.2.1", 22, "OpenSSH", "9.2", "10.0"),
        ("192.0.2.1", 80, "httpd", "2.4.9", "2.4.57"),
    ],
    "Certificates that expire within 30 days": [("192.0.2.4", 443, "CN=a", SOON)],
    "Ports and services": [(22, 0, 0, 3), (25, 0, 1, 0), (80, 2, 0, 0), (443, 2, 0, 0)],
    "What changed between two scans": [
        ("192.0.2.1", 80, "tcp", "httpd", "2.4.9", "httpd", "2.4.57", "changed"),
        ("192.0.2.2", 22, "tcp", "OpenSSH", "10.0", None, None, "gone"),
        ("192.0.2.3", 25, "tcp", None, None, None, None, "gone"),
        ("192.0.2.4", 443, "tcp", None, None, "httpd", "2.4.57", "new"),
        ("192.0.2.5", 443, "tcp", None, None, "httpd", "2.4.57", "new"),
    ],
    "Services on the list of known-exploited products": [
        ("192.0.2.1", 22, "OpenSSH", "9.2", "CVE-2"),
        ("192.0.2.1", 80, "httpd", "2.4.9", "CVE-1"),
        ("192.0.2.2", 22, "OpenSSH", "10.0", "CVE-2"),
    ],
}


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, (scan, lines) in enumerate(SCANS.items()):
        made = open_lake("parquet:lake", Delivery(f"run-{number:08}", scan, str(tmp_path)))
        made.write("".join(lines).encode())
        made.commit(Batch(1, 1))
        made.close()
    Path("exploited.csv").write_text("cve,cpe\nCVE-1,cpe:/a:x:httpd:2.4.9\nCVE-2,cpe:/a:x:openssh\n")
    return tmp_path


def test_every_recipe_is_checked() -> None:
    """And each is told for both engines."""
    assert list(RECIPES) == list(EXPECTED) == re.findall(r"^### (.+)$", DOCUMENT, re.MULTILINE)


@pytest.mark.parametrize("title", EXPECTED)
def test_a_recipe_for_duckdb(lake: Path, title: str) -> None:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute(RECIPES[title][0]).fetchall()
    assert found == EXPECTED[title]


@pytest.mark.parametrize("title", EXPECTED)
def test_a_recipe_for_polars(lake: Path, title: str) -> None:
    names: dict[str, Any] = {"pl": pl, "datetime": datetime, "timedelta": timedelta, "UTC": UTC}
    exec(RECIPES[title][1], names)
    assert names["result"].rows() == EXPECTED[title]
