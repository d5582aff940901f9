"""Compare us with Nmap on a lab of real daemons: `python -m bench.lab [--up] [probemill scan options]`.

Reads the lab's reference (targets, and what `nmap -sV` said of each, with and without its version scripts) from
`../shared/lab` beside the checkout, scans the same targets, and prints every field that differs. `--up` installs and
starts the daemons first, which wants root and apt. Exit code 1 when something differs, 0 when the lab is not there.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LAB = Path(__file__).resolve().parent.parent.parent / "shared" / "lab"
NAME = "open"  # the lab's set of free daemons
FIELDS = ("state", "service", "tunnel", "product", "version", "extrainfo", "ostype", "hostname", "devicetype", "cpe")
ABSENT: dict[str, Any] = {"cpe": []}


def references(options: list[str]) -> list[dict[str, Any]]:
    """What Nmap said of each target; none, and a word why, where there is no lab.

    `--up` among the options is taken out, and obeyed: the daemons are installed and started.
    """
    path = LAB / f"reference-{NAME}.ndjson"
    if not path.exists():
        print(f"no lab at {path}; nothing compared")
        return []
    if "--up" in options:
        options.remove("--up")
        if os.geteuid() != 0:
            print("starting the lab wants root; nothing compared")
            return []
        for step in ("install", "up"):
            subprocess.run([sys.executable, LAB / "lab.py", step, NAME], check=True)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def expected(reference: dict[str, Any], *, scripts: bool) -> dict[str, Any]:
    """What Nmap said, with its version scripts or from its probe file alone."""
    merged = reference if scripts else reference | reference["probes_only"]
    if reference["state"] == "closed":  # of a closed port the reference keeps nothing else
        return {"state": "closed"}
    return {field: merged.get(field, ABSENT.get(field, "")) for field in FIELDS}


def found(row: dict[str, Any]) -> dict[str, Any]:
    """Our row in the same terms. `unknown` stands for no name, as in the reference."""
    ours = {field: row.get(field, ABSENT.get(field, "")) for field in FIELDS}
    ours["service"] = row.get("name", "")
    return ours


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    return [f"{field}: {theirs[field]!r} -> {ours[field]!r}" for field in theirs if theirs[field] != ours[field]]


def main(arguments: list[str]) -> int:
    known = references(arguments)
    if not known:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        targets, results = Path(folder) / "targets", Path(folder) / "results.ndjson"
        lines = (f"{row['ip']}:{row['port']}/{row['proto']}\n" for row in known)
        targets.write_text("".join(lines), encoding="utf-8")
        command = [sys.executable, "-m", "probemill", "scan", "-i", targets, "-o", results, *arguments]
        began = time.monotonic()
        subprocess.run(command, check=True)
        elapsed = time.monotonic() - began
        rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    by_target = {(row["ip"], row["port"], row["proto"]): found(row) for row in rows}
    differing = 0
    for reference in known:
        ours = by_target[reference["ip"], reference["port"], reference["proto"]]
        full, bare = (differences(ours, expected(reference, scripts=scripts)) for scripts in (True, False))
        if full and bare:
            differing += 1
            print(f"{reference['name']:20} {reference['ip']}:{reference['port']}/{reference['proto']}")
            for line in min(full, bare, key=len):
                print(f"    {line}")
    print(f"{len(known) - differing} of {len(known)} targets as Nmap says, in {elapsed:.1f} s")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
