"""Target files as other programs and people write them: tables of what was met, and what is right for each."""

import base64
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InputError
from engine.model import Target
from engine.targets import Item, TargetSpec, parse_ports, target_reader

TABLES = Path(__file__).parent / "cases" / "field"
FIELD = Path(__file__).resolve().parents[2] / "shared" / "field"
CASES = [case for path in sorted(TABLES.glob("targets-*.toml")) for case in tomllib.loads(path.read_text())["case"]]
FILES = tomllib.loads((TABLES / "targets.toml").read_text())["file"]


def read(data: bytes, form: str = "auto", ports: str = "", cut: int = 1 << 16) -> list[Item]:
    reader = target_reader("in", form, parse_ports(ports) if ports else None)
    items = [item for at in range(0, len(data), cut) for item in reader.feed(data[at : at + cut])]
    return items + reader.close()


def rows(items: list[Item]) -> list[str]:
    """`host port/protocol name state` of each target, in the order of the input; a name stands for its address."""
    found = []
    for item in items:
        if isinstance(item, InputError):
            continue
        spec = item.resolved(item.host) if isinstance(item, TargetSpec) and item.is_name else item
        targets = [spec] if isinstance(spec, Target) else sorted(spec.targets(), key=lambda t: (address(t), t.port))
        found += [f"{t.host} {t.port}/{t.proto} {t.name or '-'} {t.state or '-'}" for t in targets]
    return found


def address(target: Target) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in target.host.replace(":", ".").split(".")]


def errors(items: list[Item]) -> list[str]:
    return [str(item) for item in items if isinstance(item, InputError)]


def check(items: list[Item], case: dict[str, Any]) -> None:
    assert rows(items) == case["targets"]
    faults = case.get("faults", [])
    assert len(errors(items)) == len(faults), errors(items)
    for error, expected in zip(errors(items), faults, strict=True):
        assert expected in error
        assert len(error) < 200
        assert error.isprintable()


@pytest.mark.parametrize("cut", [1, 13, 1 << 16])
@pytest.mark.parametrize("case", CASES, ids=[case["what"] for case in CASES])
def test_case(case: dict[str, Any], cut: int) -> None:
    """What each input says, its form told by its content; wherever the bytes are cut."""
    form, ports = case.get("form", "auto"), case.get("ports", "")
    if "base64" in case:
        check(read(base64.b64decode(case["base64"]), form, ports, cut), case)
    for encoding in case.get("encodings", ["utf-8"] if "text" in case else []):
        check(read(case["text"].encode(encoding), form, ports, cut), case)


@pytest.mark.skipif(not FIELD.is_dir(), reason="the inputs from the field are not here")
@pytest.mark.parametrize("name", sorted(path.name for path in FIELD.glob("*")) if FIELD.is_dir() else [])
def test_file_from_the_field(name: str) -> None:
    """Read as `auto`. A file without an entry of its own is only read: it must not bring anything down."""
    items = read((FIELD / name).read_bytes())
    for case in FILES:
        if name.startswith(case["name"]):
            check(items, case)


@pytest.mark.skipif(not FIELD.is_dir(), reason="the inputs from the field are not here")
@pytest.mark.parametrize("count", [1500, 1700, 20_000])
@pytest.mark.parametrize("cut", [4096, 1 << 16, 1 << 26])
def test_an_array_of_any_size_on_one_line(count: int, cut: int) -> None:
    """All its elements, however a pipe cuts it."""
    (maker,) = FIELD.glob("67-*.py")
    data = subprocess.run([sys.executable, maker, str(count)], capture_output=True, check=True, timeout=60).stdout
    found = read(data, cut=cut)
    assert found == [Target(i, f"127.0.{i // 250}.{i % 250 + 1}", 1) for i in range(count)]
