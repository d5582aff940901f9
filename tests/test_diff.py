"""What a comparison of two scans finds: the rules one by one, against an oracle, the same whatever holds the rows."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from engine.insight.diff.compare import Comparison, Finding, compare
from engine.insight.diff.kinds import ALSO, KINDS, all_kinds
from engine.insight.rows import Workspace, in_workspace
from engine.model import DatabaseRef, Reason, ServiceResult, TlsFacts, Tunnel, Verdict
from engine.results.table import full_rows
from tests.test_convert import packed, state, written
from tests.told import Told

pytest.importorskip("duckdb", reason="needs probemill[report]")
pytest.importorskip("pyarrow", reason="needs probemill[report]")

ROW = ServiceResult(
    ip="192.0.2.7",
    port=443,
    proto="tcp",
    state="open",
    name="http",
    product="nginx",
    version="1.18.0",
    method="probed",
    conf=10,
    verdict=Verdict.HARDMATCHED,
    database=DatabaseRef("builtin", "00"),
    started="2026-11-21T06:38:13.402Z",
)
TLS = TlsFacts(
    subject="CN=a.example",
    issuer="CN=R10,O=Let's Encrypt,C=US",
    names=("a.example", "b.example"),
    not_before="2026-01-01T00:00:00Z",
    not_after="2026-04-01T00:00:00Z",
    sha256="11",
)
LATER = structs.replace(TLS, sha256="22", not_after="2026-07-01T00:00:00Z")


def but(row: ServiceResult = ROW, **changes: Any) -> ServiceResult:
    return structs.replace(row, **changes)


def tls(**changes: Any) -> ServiceResult:
    return but(tunnel=Tunnel.SSL, tls=structs.replace(LATER, **changes))


def lines(rows: Iterable[ServiceResult]) -> bytes:
    return b"".join(row.to_json().encode() + b"\n" for row in rows)


def difference(old: Path, new: Path, also: tuple[str, ...] = ()) -> tuple[Comparison, list[Finding]]:
    def job(place: Workspace) -> tuple[Comparison, list[Finding]]:
        comparison = compare(place, str(old), str(new), Told(), also)
        return comparison, [*comparison.findings(all_kinds(also))]

    return in_workspace("", job)


def of_rows(
    folder: Path, old: Iterable[ServiceResult], new: Iterable[ServiceResult], also: tuple[str, ...] = ()
) -> tuple[Comparison, list[Finding]]:
    return difference(packed(folder / "old.ndjson", lines(old)), packed(folder / "new.ndjson", lines(new)), also)


CLOSED = but(state="closed", name="", product="", version="", verdict=Verdict.INCOMPLETE, reason=Reason.REFUSED)
CANCELLED = but(product="", version="", verdict=Verdict.INCOMPLETE, reason=Reason.CANCELLED)
CERTIFIED = but(tunnel=Tunnel.SSL, tls=TLS)
NOTHING: tuple[str, ...] = ()
CASES: dict[str, tuple[ServiceResult | None, ServiceResult | None, tuple[str, ...]]] = {
    "the same": (ROW, but(started="2026-11-22T00:00:00Z", elapsed_ms=7, database=DatabaseRef("x", "")), NOTHING),
    "new": (None, ROW, ("new",)),
    "gone": (ROW, None, ("gone",)),
    "closed and then not scanned": (CLOSED, None, NOTHING),
    "closed and not scanned before": (None, CLOSED, NOTHING),
    "closed both times": (CLOSED, but(CLOSED, state="filtered", reason=Reason.TIMEOUT), NOTHING),
    "open and closed": (ROW, CLOSED, ("state",)),
    "filtered and open": (but(CLOSED, state="filtered", reason=Reason.TIMEOUT), ROW, ("state",)),
    "silent udp": (but(proto="udp", state="open|filtered", verdict=Verdict.NOMATCH), but(proto="udp"), ("state",)),
    "not reached": (ROW, CANCELLED, NOTHING),
    "not reached before": (CANCELLED, ROW, NOTHING),
    "not reached, though a port scan called it closed": (ROW, but(CANCELLED, state="closed"), NOTHING),
    "out of budget": (ROW, but(CANCELLED, reason=Reason.BUDGET, name=""), NOTHING),
    "reset in the middle": (ROW, but(CANCELLED, reason=Reason.RESET), NOTHING),
    "excluded": (ROW, but(CANCELLED, verdict=Verdict.EXCLUDED, reason=None), NOTHING),
    "only met by the later one, and not reached": (None, CANCELLED, NOTHING),
    "another version": (ROW, but(version="1.24.0"), ("version",)),
    "a version that is not told any more": (ROW, but(version=""), ("version",)),
    "another product": (ROW, but(product="Apache httpd", version="2.4"), ("product",)),
    "the product alone": (ROW, but(product="OpenResty"), ("product",)),
    "another service": (ROW, but(name="ssh", product="OpenSSH", version="9"), ("service", "product")),
    "not recognised any more": (ROW, but(product="", version="", verdict=Verdict.NOMATCH), ("product",)),
    "unknown is no name": (but(name=""), but(name="unknown"), NOTHING),
    "TLS appeared": (ROW, CERTIFIED, ("tls",)),
    "TLS vanished": (CERTIFIED, ROW, ("tls",)),
    "TLS and its product": (ROW, but(CERTIFIED, product="x"), ("product", "tls")),
    "the same certificate": (CERTIFIED, but(CERTIFIED), NOTHING),
    "a certificate that only one has asked for": (CERTIFIED, but(CERTIFIED, tls=None), NOTHING),
    "renewed": (CERTIFIED, tls(), ("renewed",)),
    "renewed, its names in another order": (CERTIFIED, tls(names=("b.example", "a.example")), ("renewed",)),
    "renewed by the authority's next key": (CERTIFIED, tls(issuer="CN=R11,O=Let's Encrypt,C=US"), ("renewed",)),
    "issued by another": (CERTIFIED, tls(issuer="CN=R10,O=Evil,C=US"), ("certificate",)),
    "issued by one without a name": (CERTIFIED, tls(issuer=""), ("certificate",)),
    "a comma that is escaped": (
        but(CERTIFIED, tls=structs.replace(TLS, issuer="CN=x,O=A\\, B")),
        tls(issuer="CN=y,O=A\\, C"),
        ("certificate",),
    ),
    "a comma that only seems to end something": (
        but(CERTIFIED, tls=structs.replace(TLS, issuer="CN=x\\,O=A,O=B")),
        tls(issuer="CN=x\\,O=A,O=C"),
        ("certificate",),
    ),
    "an organisation behind a plus": (
        but(CERTIFIED, tls=structs.replace(TLS, issuer="CN=R10+O=Let's Encrypt")),
        tls(issuer="CN=R11+O=Let's Encrypt"),
        ("renewed",),
    ),
    "another subject": (CERTIFIED, tls(subject="CN=b.example"), ("certificate",)),
    "other names": (CERTIFIED, tls(names=("a.example",)), ("certificate",)),
    "an earlier end": (CERTIFIED, tls(not_after="2026-03-01T00:00:00Z"), ("certificate",)),
    "renewed, and another version": (CERTIFIED, but(tls(), version="1.24.0"), ("version", "renewed")),
    "other forms of an address": (but(ip="2001:db8::1"), but(ip="2001:DB8:0:0::1", version="2"), ("version",)),
    "IPv4 in IPv6": (ROW, but(ip="::ffff:192.0.2.7"), NOTHING),
}


@pytest.mark.parametrize("case", CASES)
def test_each_rule(tmp_path: Path, case: str) -> None:
    old, new, kinds = CASES[case]
    comparison, findings = of_rows(tmp_path, filter(None, [old]), filter(None, [new]))
    assert [finding.kinds for finding in findings] == ([kinds] if kinds else [])
    assert comparison.counts == {kind: int(kind in kinds) for kind in KINDS}


@pytest.mark.parametrize("field", ALSO)
def test_further_fields_are_kinds_of_their_own(tmp_path: Path, field: str) -> None:
    """Only where they are asked for."""
    changed = but(**{field: ("cpe:/a:x:y",) if field == "cpe" else "x"})
    assert not of_rows(tmp_path, [ROW], [changed])[1]
    comparison, (finding,) = of_rows(tmp_path, [ROW], [changed], (field,))
    assert (finding.kinds, comparison.counts[field]) == ((field,), 1)
    assert finding.new is not None and finding.new.get(field)


def test_what_is_counted(tmp_path: Path) -> None:
    """Targets that both reached are compared; those that were not reached are told by side."""
    ports = [but(port=port) for port in range(1, 6)]
    cancelled = [but(CANCELLED, port=port) for port in (1, 2)]
    comparison, findings = of_rows(tmp_path, [*ports, but(CANCELLED, port=9)], [*cancelled, *ports[2:]])
    assert (comparison.targets, comparison.old.unreached, comparison.new.unreached) == (3, 1, 2)
    assert not findings


def test_names_of_an_address_are_compared_with_themselves(tmp_path: Path) -> None:
    """Each may have its own certificate, in whatever order they come; what has no fellow stands for the rest."""
    a, b = but(CERTIFIED, host="a.example"), but(tls(subject="CN=b.example"), host="b.example")
    assert of_rows(tmp_path, [a, b], [b, a])[1] == []
    comparison, (finding,) = of_rows(tmp_path, [a, b], [but(a, version="2", host="A.example"), b])
    assert (finding.host, finding.kinds, comparison.new.doubled) == ("A.example", ("version",), 0)
    assert of_rows(tmp_path, [a], [but(a, host="other.example")])[1] == []


def test_a_zone_is_part_of_an_address(tmp_path: Path) -> None:
    one, other = but(ip="fe80::1%eth0"), but(ip="FE80::1%eth1", version="2")
    assert of_rows(tmp_path, [one, other], [other, one])[1] == []
    assert [finding.kinds for finding in of_rows(tmp_path, [one], [other])[1]] == [("gone",), ("new",)]


def test_of_several_rows_for_a_target_the_last_counts(tmp_path: Path) -> None:
    """The one begun last, and of those begun together the last in the file."""
    early, late = but(version="0", started="2026-11-20T00:00:00Z"), but(version="2", started="2026-11-23T00:00:00Z")
    comparison, (finding,) = of_rows(tmp_path, [ROW], [ROW, late, early, ROW])
    assert (comparison.new.doubled, finding.kinds, finding.new.values["version"]) == (3, ("version",), "2")  # type: ignore[union-attr]
    _, (finding,) = of_rows(tmp_path, [ROW], [but(version="3"), but(version="4")])
    assert finding.new is not None and finding.new.get("version") == "4"


def test_a_name_that_could_not_be_resolved_is_not_gone(tmp_path: Path) -> None:
    """Its address is unknown, so nobody has looked; another port of the name is."""
    unresolved = but(CANCELLED, ip="", host="A.example", state="", reason=Reason.UNRESOLVED)
    named = but(host="a.example")
    for old, new in (([named], [unresolved]), ([unresolved], [named])):
        assert not of_rows(tmp_path, old, new)[1]
    _, (finding,) = of_rows(tmp_path, [named, but(named, port=80)], [unresolved])
    assert (finding.port, finding.kinds) == (80, ("gone",))


def test_rows_without_an_address_are_known_by_their_name(tmp_path: Path) -> None:
    """As stored responses may come."""
    old = [but(ip="", host=name) for name in ("a.example", "b.example", "sixteen.letters!")]
    _, (finding,) = of_rows(tmp_path, old, [old[0], but(old[1], version="2"), old[2]])
    assert (finding.ip, finding.host, finding.kinds) == ("", "b.example", ("version",))


def test_the_order_is_that_of_addresses(tmp_path: Path) -> None:
    keys = [
        ("9.0.0.1", 80),
        ("10.0.0.1", 9),
        ("10.0.0.1", 80),
        ("100.0.0.1", 1),
        ("2001:db8::2", 1),
        ("2001:db8::10", 1),
    ]
    rows = [but(ip=ip, port=port) for ip, port in keys]
    _, findings = of_rows(tmp_path, [], rows[::-1])
    assert sorted(((f.ip, f.port) for f in findings), key=lambda key: ":" in key[0]) == keys


def test_findings_of_some_kinds(tmp_path: Path) -> None:
    """Others are left out, of a finding that has both, too."""

    def job(place: Workspace) -> list[tuple[int, tuple[str, ...]]]:
        comparison = compare(place, str(tmp_path / "old.ndjson"), str(tmp_path / "new.ndjson"), Told())
        assert len([*comparison.findings(("version",), 1)]) == 1
        return [(finding.port, finding.kinds) for finding in comparison.findings(("version", "new"))]

    of_rows(tmp_path, [CERTIFIED, but(port=2)], [but(tls(), version="2"), but(port=2, version="2"), but(port=3)])
    assert in_workspace("", job) == [(2, ("version",)), (3, ("new",)), (443, ("version",))]


OLD = [but(ip=f"10.0.{n >> 8}.{n & 255}", port=80 + n % 3, version=f"1.{n % 5}") for n in range(600)]
NEW = [
    *(but(row, version="2") if n % 10 == 0 else row for n, row in enumerate(OLD) if n % 7),
    *(but(row, port=22, name="ssh", product="OpenSSH") for row in OLD[::50]),
    *(but(CLOSED, ip=row.ip, port=row.port) for row in OLD[::14]),
]
FORMS: dict[str, Callable[[Path, bytes], Path]] = {
    "ndjson": lambda folder, rows: packed(folder / "rows.ndjson", rows),
    "full": lambda folder, rows: packed(folder / "rows.jsonl", full_rows(rows)),
    "zst": lambda folder, rows: packed(folder / "rows.ndjson.zst", rows),
    "gz": lambda folder, rows: packed(folder / "rows.ndjson.gz", rows),
    "state": lambda folder, rows: state(folder / "state", rows),
    "parquet": lambda folder, rows: written("parquet", folder / "rows.parquet", rows),
    "xml": lambda folder, rows: written("xml", folder / "rows.xml", rows),
    "folder": lambda folder, rows: packed(folder / "rows.ndjson.zst", rows).parent,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", ["old", "new"])
def test_any_form_against_any_other(tmp_path: Path, form: str, side: str) -> None:
    """What holds the rows makes no difference."""
    for name in ("old", "new", "plain"):
        (tmp_path / name).mkdir()
    wanted = of_rows(tmp_path / "plain", OLD, NEW)[1]
    assert {kind for finding in wanted for kind in finding.kinds} == {"new", "gone", "state", "version"}
    forms = {name: FORMS[form] if name == side else FORMS["zst"] for name in ("old", "new")}
    found = difference(forms["old"](tmp_path / "old", lines(OLD)), forms["new"](tmp_path / "new", lines(NEW)))[1]
    assert found == wanted


@pytest.mark.parametrize(("damaged", "kind"), [("old", "new"), ("new", "gone")])
def test_what_a_damaged_side_lacks_is_doubtful(tmp_path: Path, damaged: str, kind: str) -> None:
    """It may stand in the part that could not be read."""
    paths = {name: packed(tmp_path / f"{name}.ndjson.zst", lines(OLD)) for name in ("old", "new")}
    halves = (zstandard.compress(lines(half)) for half in (OLD[:300], OLD[300:]))
    paths[damaged].write_bytes(b"".join(halves)[:-9])
    comparison, findings = difference(paths["old"], paths["new"])
    side = comparison.old if damaged == "old" else comparison.new
    assert "read" in side.damage and findings
    assert {(finding.kinds, finding.doubtful) for finding in findings} == {((kind,), True)}
    assert len(findings) == len(OLD) - side.rows == 300


WORDS = st.sampled_from(["", "a", "b"])
ROWS = st.builds(
    lambda ip, port, state, verdict, reason, name, product, version, tunnel, digest, end, second: but(
        ip=ip,
        port=port,
        state=state,
        verdict=verdict,
        reason=reason if verdict is Verdict.INCOMPLETE else None,
        name=name,
        product=product,
        version=version,
        tunnel=tunnel,
        tls=structs.replace(TLS, sha256=digest, not_after=end) if digest else None,
        started=f"2026-11-21T00:00:0{second}Z",
    ),
    st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1"]),
    st.integers(1, 3),
    st.sampled_from(["open", "open", "open", "closed", "filtered", "open|filtered", ""]),
    st.sampled_from([Verdict.HARDMATCHED] * 4 + list(Verdict)),
    st.sampled_from([None, *Reason]),
    *(WORDS, WORDS, WORDS),
    st.sampled_from(Tunnel),
    st.sampled_from(["", "11", "22"]),
    st.sampled_from(["", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"]),
    st.integers(0, 9),
)
SCANS = st.lists(ROWS, max_size=12)


def standing(row: ServiceResult | None) -> str:
    if row is None:
        return "absent"
    lost = row.reason in {Reason.CANCELLED, Reason.BUDGET, Reason.CRASHED, Reason.UNRESOLVED, Reason.PROXY}
    if lost or row.verdict is Verdict.EXCLUDED:
        return "unreached"
    if row.state in {"closed", "filtered", "open|filtered"}:
        return "silent"
    return "unreached" if row.verdict is Verdict.INCOMPLETE else "open"


def expected(old: ServiceResult | None, new: ServiceResult | None) -> list[str]:
    """The rules once more, plainly. Certificates here differ in digest and end alone."""
    match standing(old), standing(new):
        case "absent", "open":
            return ["new"]
        case "open", "absent":
            return ["gone"]
        case ("open", "silent") | ("silent", "open"):
            return ["state"]
        case "open", "open":
            assert old and new
        case _:
            return []
    kinds = ["service"] * (old.name != new.name)
    kinds += ["product"] if old.product != new.product else ["version"] * (old.version != new.version)
    if old.tls and new.tls and old.tls.sha256 != new.tls.sha256:
        ends = old.tls.not_after, new.tls.not_after
        kinds.append("renewed" if all(ends) and ends[0] < ends[1] else "certificate")
    return kinds + ["tls"] * (old.tunnel is not new.tunnel)


def last(rows: list[ServiceResult]) -> dict[tuple[str, int], ServiceResult]:
    return {(row.ip, row.port): row for row in sorted(rows, key=lambda row: row.started)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=SCANS, new=SCANS)
def test_the_rules_written_twice_agree(tmp_path: Path, old: list[ServiceResult], new: list[ServiceResult]) -> None:
    comparison, findings = of_rows(tmp_path, old, new)
    before, after = last(old), last(new)
    wanted = {
        key: kinds for key in before.keys() | after.keys() if (kinds := expected(before.get(key), after.get(key)))
    }
    assert {(finding.ip, finding.port): [*finding.kinds] for finding in findings} == wanted
    assert comparison.old.doubled == len(old) - len(before)
    reached = [
        key for key in before.keys() & after.keys() if "unreached" not in map(standing, (before[key], after[key]))
    ]
    assert comparison.targets == len(reached)
    assert comparison.counts == {kind: sum(kind in kinds for kinds in wanted.values()) for kind in KINDS}
