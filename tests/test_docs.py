"""The pages that are made from the code say what the code says, and every field has its words."""

import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import fields

from engine.cli.options import ALL_OPTIONS
from engine.model import ScanConfig, field_meta

ROOT = Path(__file__).resolve().parent.parent
INTERNAL = {"batch_rows", "batch_s"}  # how rows travel between processes; nobody's to tune


def test_made_parts_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_field_has_its_option_and_its_words() -> None:
    names = {field.name for field in fields(ScanConfig)}
    assert names - INTERNAL == names & {option.name for option in ALL_OPTIONS}
    assert not [name for name in names - INTERNAL if not field_meta(name).description]


@pytest.mark.parametrize("option", ALL_OPTIONS, ids=lambda option: option.opts[0])
def test_an_option_of_a_field_has_the_words_and_the_default_of_the_field(option) -> None:  # type: ignore[no-untyped-def]
    field = {field.name: field for field in fields(ScanConfig)}.get(option.name)
    if field is None or option.name == "post":  # --post adds to the default, the field replaces it
        return
    assert option.help == field_meta(option.name).description
    if option.name not in {"workers", "sources", "alpn"}:  # one a core; named together
        assert option.default == field.default or (option.multiple and not field.default)
