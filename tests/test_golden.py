"""The golden corpus: 9,249 responses with Nmap 7.93's own answers. `probemill match` must give every one of them."""

import hashlib
import json
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner

from engine.cli.match import match_command
from matcher import EngineUnavailable, nmap_database
from matcher.patterns import ENGINES, engine

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "nmap-7.93-open.ndjson.zst"
NMAP_7_93 = "293d7b3679d8d09c756840b38bffd32bb45b00a86cb47b9af17029328ca234f1"  # sha256 of its nmap-service-probes


def _why_not() -> str:
    if not GOLDEN.exists():
        return f"no golden corpus: {GOLDEN} is not there"
    path = nmap_database()
    if path is None:
        return "no installed Nmap, and so no database to answer with"
    if hashlib.sha256(path.read_bytes()).hexdigest() != NMAP_7_93:
        return f"{path} is not the database of Nmap 7.93, whose answers these are"
    return ""


@pytest.mark.slow
@pytest.mark.skipif(bool(_why_not()), reason=_why_not() or "present")
@pytest.mark.parametrize("name", ENGINES)
def test_every_row_is_answered_as_nmap_does(name: str, tmp_path: Path) -> None:
    """Every field of every row, through the command, with every engine; a row Nmap cannot name is null."""
    try:
        engine(name)
    except EngineUnavailable as error:
        pytest.skip(str(error))
    out = tmp_path / "out.ndjson"
    arguments = ["-i", str(GOLDEN), "-o", str(out), "--probes", "nmap", "--matcher", name, "--workers", "2"]
    result = CliRunner().invoke(match_command, arguments)
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in out.read_bytes().splitlines()]
    golden = zstandard.ZstdDecompressor().stream_reader(GOLDEN.read_bytes()).read().splitlines()
    assert [{key: row[key] for key in row if key != "match"} for row in rows] == [json.loads(line) for line in golden]
    wrong = [row for row in rows if _comparable(row["match"]) != row["expect"]]
    assert not wrong, f"{len(wrong)} of {len(rows)} rows differ, as {json.dumps(wrong[0])[:2000]}"


def _comparable(match: dict[str, object] | None) -> dict[str, object] | None:
    """The fields that Nmap's own output has."""
    return match and {key: match[key] for key in match if key not in ("probe", "line", "soft")}
