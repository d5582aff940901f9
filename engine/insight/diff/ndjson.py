"""Findings for programs: one JSON object a line, documented in docs/diff.md and by `SCHEMA`.

Nothing is escaped but what JSON escapes, and nothing is cut.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from engine.insight.diff.compare import Comparison, Facts, Finding

_FACTS = {
    "type": "object",
    "description": "What the scan says of the target, as far as it was compared; what is absent is left out.",
    "properties": {
        **{name: {"type": "string"} for name in ("state", "name", "product", "version", "tunnel")},
        **{name: {"type": "string"} for name in ("extrainfo", "hostname", "ostype", "devicetype")},
        "cpe": {"type": "array", "items": {"type": "string"}},
        "tls": {
            "type": "object",
            "properties": {
                **{name: {"type": "string"} for name in ("subject", "issuer", "sha256")},
                "names": {"type": "array", "items": {"type": "string"}},
                "not_after": {"type": "string", "format": "date-time"},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A difference between two scans",
    "type": "object",
    "properties": {
        "ip": {"type": "string", "description": "The address; empty where the rows have none."},
        "port": {"type": "integer", "minimum": 0, "maximum": 65535},
        "proto": {"enum": ["tcp", "udp"]},
        "host": {"type": "string", "description": "The name that the target was given by."},
        "changes": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string"},
            "description": "What differs: kinds in the order of docs/diff.md.",
        },
        "doubtful": {
            "const": True,
            "description": "The scan that lacks the target was not read, or not done, to its end.",
        },
        "old": _FACTS,
        "new": _FACTS,
    },
    "required": ["ip", "port", "proto", "changes"],
    "additionalProperties": False,
}
"""JSON Schema of a line."""

_encode = msgspec.json.Encoder().encode


def lines(comparison: Comparison, kinds: Sequence[str]) -> Iterator[str]:
    for finding in comparison.findings(kinds):
        yield _encode(_row(finding)).decode()


def _row(finding: Finding) -> dict[str, Any]:
    row: dict[str, Any] = {"ip": finding.ip, "port": finding.port, "proto": finding.proto}
    if finding.host:
        row["host"] = finding.host
    row["changes"] = finding.kinds
    if finding.doubtful:
        row["doubtful"] = True
    for name, facts in (("old", finding.old), ("new", finding.new)):
        if facts is not None:
            row[name] = _facts(facts)
    return row


def _facts(facts: Facts) -> dict[str, Any]:
    tls = {name: _plain(value) for name, value in facts.tls.items()}
    return facts.values | ({"tls": tls} if tls else {})


def _plain(value: Any) -> Any:
    return f"{value.isoformat()}Z" if isinstance(value, datetime) else value
