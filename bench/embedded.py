"""How far our own database gets on a lab of real daemons: `python -m bench.embedded [--up] [probemill scan options]`.

Scans the targets of `../shared/lab` with `--probes builtin` and holds the rows against Nmap 7.93's recorded verdict:

* name: of the daemons that Nmap identifies, how many get the right service name: Nmap's, or the protocol it really is;
* product: of those to which Nmap gives a product, how many get the same one (SAME lists other words for it);
* version: of those whose recorded responses contain the package's version, how many are reported with it, or with the
  version that Nmap reports;
* what Nmap leaves without a name or without a product, and we do not.

Exit code 1 below the floor of a figure; 0 when the lab is not there.
"""

import base64
import gzip
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.lab import LAB, NAME, references

SAME = {  # Nmap's product -> ours, checked by hand
    "MySQL": "MariaDB",  # the lab runs MariaDB, which greets with a MySQL version before its own
    "SNMPv1 server; net-snmp SNMPv3 server": "net-snmp",
    "SNMPv1 server": "net-snmp",
    "Advanced Message Queue Protocol": "RabbitMQ",
    "SimpleHTTPServer": "Python http.server",
    "NTP": "NTPsec",
}
FLOORS = {"name": 0.95, "product": 0.90, "version": 0.90}
NEW_NAMES, NEW_PRODUCTS = 6, 10

Row = dict[str, Any]
Key = tuple[str, int, str]


def key(row: Row) -> Key:
    return row["ip"], row["port"], row["proto"]


def upstream(package_version: str) -> str:
    """`1:9.2p1-2+deb12u10` -> `9.2p1`."""
    text = package_version.partition(":")[2] or package_version
    return re.split(r"[+~]|-\d", text.rpartition("-")[0] or text)[0]


def responses(path: Path) -> dict[Key, bytes]:
    """Everything a target was ever heard to say."""
    heard: dict[Key, bytes] = defaultdict(bytes)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            heard[key(row)] += base64.b64decode(row["data_b64"])
    return heard


def scan(references: list[Row], options: list[str]) -> dict[Key, Row]:
    with tempfile.TemporaryDirectory() as folder:
        targets, results = Path(folder) / "targets", Path(folder) / "results.ndjson"
        targets.write_text("".join(f"{r['ip']}:{r['port']}/{r['proto']}\n" for r in references), encoding="utf-8")
        files = ["-i", str(targets), "-o", str(results)]
        subprocess.run([sys.executable, "-m", "probemill", "scan", *files, "--probes", "builtin", *options], check=True)
        return {key(row): row for row in map(json.loads, results.read_text(encoding="utf-8").splitlines())}


def identified(reference: Row) -> bool:
    return bool(reference.get("method") == "probed" and reference["service"] not in ("tcpwrapped", "unknown"))


def named(row: Row) -> bool:
    return row.get("verdict") in ("hardmatched", "softmatched")


def same_product(theirs: str, ours: str) -> bool:
    return ours == theirs or SAME.get(theirs, "\0") in ours


def measure(references: list[Row], rows: dict[Key, Row], heard: dict[Key, bytes]) -> dict[str, list[tuple[bool, str]]]:
    """Per figure: (reached, what is shown of the target)."""
    figures: dict[str, list[tuple[bool, str]]] = defaultdict(list)
    for reference in references:
        ours = rows[key(reference)]
        name, product, version = (ours.get(field, "") for field in ("name", "product", "version"))
        about = f"{reference['name']} {reference['ip']}:{reference['port']}/{reference['proto']}: "
        said = " ".join(filter(None, (name if named(ours) else "", product, version))) or "nothing"
        if identified(reference):
            right = named(ours) and name in (reference["service"], reference["truth"])
            figures["name"].append((right, f"{about}{reference['service']} -> {said}"))
            if reference["product"]:
                right = same_product(reference["product"], product)
                figures["product"].append((right, f"{about}{reference['product']} -> {said}"))
            release = upstream(reference["package_version"])
            if release.encode() in heard[key(reference)]:
                right = release in version or version == reference["version"] != ""
                figures["version"].append((right, f"{about}{release} -> {said}"))
        elif named(ours):
            figures["new names"].append((True, about + said))
        if product and not reference.get("product"):
            figures["new products"].append((True, about + said))
    return figures


def main(options: list[str]) -> int:
    known = references(options)
    if not known:
        return 0
    began = time.monotonic()
    rows = scan(known, options)
    print(f"{len(rows)} targets in {time.monotonic() - began:.0f} s")
    figures = measure(known, rows, responses(LAB / f"responses-{NAME}.ndjson.gz"))
    low = False
    for figure, floor in FLOORS.items():
        reached = sum(right for right, _ in figures[figure])
        share = reached / max(1, len(figures[figure]))
        low = low or share < floor
        print(f"{figure:8} right for {reached} of {len(figures[figure])}, {share:.1%} (floor {floor:.0%})")
        for right, text in figures[figure]:
            if not right:
                print(f"    {text}")
    for figure, least in (("new names", NEW_NAMES), ("new products", NEW_PRODUCTS)):
        low = low or len(figures[figure]) < least
        print(f"{figure}: {len(figures[figure])} that Nmap does not give (floor {least})")
        for _, text in figures[figure]:
            print(f"    {text}")
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
