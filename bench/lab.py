"""Compare us with Nmap on a lab of real daemons: `python -m bench.lab [--up] [--relay] [probemill scan options]`.

Reads the lab's reference (targets, and what `nmap -sV` said of each, with and without its version scripts) from
`../shared/lab` beside the checkout, scans the same targets, and prints every field that differs. `--up` installs and
starts the daemons first, which wants root and apt. `--relay` puts a far, lossy network in front of them (relay.py).
Exit code 1 when something differs, 0 when the lab is not there.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.figures import Figure, tell
from bench.relay import Address, relayed

LAB = Path(__file__).resolve().parent.parent.parent / "shared" / "lab"
NAME = "open"  # the lab's set of free daemons
MOMENTARY = 5  # rows that may hold what changes by itself: users, kernels; with more the time says nothing
GOAL_S = 20.0  # with adaptive timing
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


def scanned(places: list[Address], options: list[str]) -> tuple[dict[Address, dict[str, Any]], float]:
    """Our row of each place, in the reference's terms, and the seconds that the command took."""
    with tempfile.TemporaryDirectory() as folder:
        targets, results = Path(folder) / "targets", Path(folder) / "results.ndjson"
        targets.write_text("".join(f"{host}:{port}/{proto}\n" for host, port, proto in places), encoding="utf-8")
        command = [sys.executable, "-m", "probemill", "scan", "-i", targets, "-o", results, *options]
        began = time.monotonic()
        subprocess.run(command, check=True)
        elapsed = time.monotonic() - began
        rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    return {Address(row["ip"], row["port"], row["proto"]): found(row) for row in rows}, elapsed


def main(arguments: list[str]) -> int:
    relay = "--relay" in arguments
    options = [argument for argument in arguments if argument != "--relay"]
    known = {Address(row["ip"], row["port"], row["proto"]): row for row in references(options)}
    if not known:
        return 0
    with ExitStack() as stack:
        places = {server: server for server in known}
        if relay:
            served = [server for server in known if known[server]["state"] != "closed"]
            places |= stack.enter_context(relayed(served))
        rows, elapsed = scanned(list(places.values()), options)
    differing = 0
    for server, reference in known.items():
        ours = rows[places[server]]
        full, bare = (differences(ours, expected(reference, scripts=scripts)) for scripts in (True, False))
        if full and bare:
            differing += 1
            print(f"{reference['name']:20} {server.host}:{server.port}/{server.proto}")
            for line in min(full, bare, key=len):
                print(f"    {line}")
    print(f"{len(known) - differing} of {len(known)} targets as Nmap says, in {elapsed:.1f} s")
    if ("--timing", "adaptive") in pairwise(options) and differing <= MOMENTARY:
        name = "wait.lab.relay" if relay else "wait.lab"
        tell(Figure(name, elapsed, "s", goal=GOAL_S, corpus=f"{len(known)} targets of the lab"))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
