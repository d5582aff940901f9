"""Lines that fit too much: what is listed, of small databases and of Nmap's, where they are."""

import json
from pathlib import Path

import pytest
from test_lint import sample

from matcher import nmap_database, parse_database
from matcher.database.samples import read_samples
from matcher.tools.lint import lint_broad

ROOT = Path(__file__).resolve().parent.parent

BROAD = r"""Probe TCP NULL q||
match alpha m|^ALPHA ([\d.]+)| p/Alpha/ v/$1/
match greedy m|^\w+ ([\d.]+)| p/Greedy/ v/$1/
softmatch beta m|^BETA|
Probe TCP Ask q|a|
match greedy m|^\w+ 1| p/Greedy/
"""
OTHERS = [
    sample("ALPHA 1.0", {"name": "alpha", "product": "Alpha"}),
    sample("BETA 1.0", {"name": "beta"}, source="real: Betaserver 1.0 (made here)"),
    sample("GREEDY 1.0", {"name": "greedy", "product": "Greedy"}),
    sample("OTHER 1.0", None),
    sample("ODD 1.0", {"name": "greedy"}),
]


def test_broad_lines(tmp_path: Path) -> None:
    """What a line wins of others, most first; a line behind a particular one does it no harm, another probe's may."""
    (tmp_path / "s.ndjson").write_text("\n".join(map(json.dumps, OTHERS)))
    samples, _ = read_samples([tmp_path / "s.ndjson"])
    found = [str(one) for one in lint_broad(BROAD.encode(), "db", samples, engine="reference")]
    assert found == [
        "db:6:16: warning: says Greedy of 2 known responses of others (Alpha, Betaserver 1.0), and of 2 of its own"
        " [broad]",
        "db:3:16: warning: says Greedy of 1 known response of others (Betaserver 1.0), and of 2 of its own [broad]",
    ]


def test_broad_lines_of_what_cannot_be_read() -> None:
    assert [one.rule for one in lint_broad(b"Probe TCP NULL q||\nmatch a m|(|\n", "db", [])] == ["grammar"]


@pytest.mark.parametrize(
    ("path", "known"),
    [
        (nmap_database(), {("mongodb", "MongoDB"), ("nagios-nsca", "Nagios NSCA"), ("http-proxy", "sslstrip")}),
        (
            ROOT.parent / "shared" / "data" / "nmap-service-probes-2026-08",
            {
                *(("mongodb", "MongoDB"), ("nagios-nsca", "Nagios NSCA"), ("http-proxy", "sslstrip")),
                ("domain", "Plesk Onyx BIND"),
            },
        ),
    ],
    ids=["installed", "2026"],
)
def test_lines_of_nmap_that_are_known_to_be_broad(path: Path | None, known: set[tuple[str, str]]) -> None:
    """They are found by this project's own samples, and few beside them: less than one line in two hundred."""
    if path is None or not path.exists():
        pytest.skip("that database is not here")
    samples, _ = read_samples([ROOT / "data" / "samples", ROOT / "data" / "known"])
    database = parse_database(path.read_bytes(), "nmap")
    lines = {signature.line: signature for signature in database.signatures()}
    found = [lines[one.line] for one in lint_broad(path.read_bytes(), "nmap", samples)]
    said = {(line.service, line.templates.product.decode()) for line in found}
    assert known <= said
    assert len(found) < len(lines) / 200
