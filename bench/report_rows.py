"""Rows of a made-up scan, as a report meets them: products in many versions, TLS, what nobody knows, the rest.

Nothing in them is anybody's: addresses of networks for documentation and of private ones, names under `example`.
`rows(count)` gives the same ones each time, a plain dict each.
"""

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

Row = dict[str, Any]

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
DATABASE = {"name": "builtin", "sha256": hashlib.sha256(b"made up").hexdigest()}
PORTS_A_HOST = 5

# name, product, versions (the more often, the further behind in the list), port, inside TLS, system
KNOWN = (
    ("ssh", "OpenSSH", ("7.4", "8.4p1 Debian 5+deb11u3", "8.9p1 Ubuntu 3ubuntu0.10", "9.2p1 Debian 2+deb12u3",
                        "9.2p1 Debian 2+deb12u7", "9.6p1 Ubuntu 3ubuntu13.14", "9.10"), 22, False, "Linux"),
    ("http", "nginx", ("1.14.2", "1.18.0", "1.22.1", "1.24.0", "1.26.2", "1.9.9"), 80, False, ""),
    ("http", "nginx", ("1.18.0", "1.22.1", "1.24.0", "1.26.2"), 443, True, ""),
    ("http", "Apache httpd", ("2.2.15", "2.4.6", "2.4.41", "2.4.52", "2.4.57", "2.4.62"), 443, True, "Unix"),
    ("http", "Apache httpd", ("2.4.6", "2.4.52", "2.4.57", "2.4.62"), 8080, False, "Unix"),
    ("http", "Microsoft IIS httpd", ("7.5", "8.5", "10.0"), 80, False, "Windows"),
    ("smtp", "Postfix smtpd", ("",), 25, False, ""),
    ("smtp", "Exim smtpd", ("4.94.2", "4.96", "4.97.1", "4.98.1"), 587, False, ""),
    ("imap", "Dovecot imapd", ("",), 993, True, ""),
    ("mysql", "MySQL", ("5.7.44", "8.0.33-0ubuntu0.22.04.1", "8.0.43-0ubuntu0.24.04.1", "8.4.3"), 3306, False, ""),
    ("mysql", "MariaDB", ("5.5.5-10.3.39-MariaDB", "5.5.5-10.11.6-MariaDB", "11.4.3-MariaDB"), 3306, False, ""),
    ("redis", "Redis key-value store", ("5.0.14", "6.0.16", "7.0.15", "7.2.5"), 6379, False, ""),
    ("domain", "dnsmasq", ("2.80", "2.85", "2.90"), 53, False, ""),
    ("netbios-ssn", "Samba smbd", ("3.X - 4.X", "4.6.2"), 445, False, "Unix"),
    ("ftp", "vsftpd", ("2.3.4", "3.0.3", "3.0.5"), 21, False, "Unix"),
    ("telnet", "BusyBox telnetd", ("1.14.0 or later",), 23, False, "Linux"),
)  # fmt: skip
DEVICES = {"telnet": "broadband router", "domain": "router"}
UNKNOWN = (
    (9100, "GetRequest", "HTTP/1\\.1\\x20401\\r\\nDate:\\x20%a,\\x20%d\\x20%b\\x20%Y\\r\\nServer:\\x20unit-%n\\r\\n"),
    (4444, "NULL", "\\x02READY\\x20%n\\x20node-%n\\r\\n"),
    (7001, "GenericLines", "ERR\\x20unknown\\x20command\\x20at\\x20%d\\x20%b\\r\\n"),
    (5555, "NULL", "hello\\x20from\\x20%n\\r\\n"),
)
REFUSALS = ("refused", "refused", "timeout", "timeout", "reset", "unreachable")


def rows(count: int, seed: int = 1) -> Iterator[Row]:
    """About seven in ten recognised, one not, two never reached."""
    chance = random.Random(seed)
    for number in range(count):
        begun = START + timedelta(seconds=number * 3600 / max(count, 1), milliseconds=chance.randrange(1000))
        row: Row = {
            "ip": _address(number // PORTS_A_HOST),
            "port": 0,
            "proto": "tcp",
            "database": DATABASE,
            "started": f"{begun:%Y-%m-%dT%H:%M:%S}.{begun.microsecond // 1000:03}Z",
            "elapsed_ms": chance.randrange(20, 6500),
            "connections": 1,
            "bytes": chance.randrange(20, 4000),
        }
        kind = chance.random()
        if kind < 0.7:
            _known(row, chance, number)
        elif kind < 0.8:
            _unknown(row, chance)
        else:
            _closed(row, chance)
        yield row


def _address(host: int) -> str:
    if host % 50 == 49:
        return f"2001:db8::{host >> 16:x}:{host & 0xFFFF:x}"
    return f"10.{host >> 16 & 255}.{host >> 8 & 255}.{host & 255}"


def _known(row: Row, chance: random.Random, number: int) -> None:
    line = min(int(chance.expovariate(0.22)), len(KNOWN) - 1)
    name, product, versions, port, inside, system = KNOWN[line]
    version = versions[min(int(len(versions) * chance.random() ** 0.6), len(versions) - 1)]
    row |= {"port": port, "state": "open", "name": name, "product": product, "method": "probed", "conf": 10}
    row |= {
        "verdict": "hardmatched",
        "evidence": {"probe": "NULL" if port < 80 else "GetRequest", "line": 100 + line * 7},
    }
    row |= {key: value for key, value in (("version", version), ("ostype", system)) if value}
    if name in DEVICES and chance.random() < 0.4:
        row["devicetype"] = DEVICES[name]
    if product == "OpenSSH":
        row["extrainfo"] = "protocol 2.0"
    if inside:
        _certificate(row, chance, number)


def _certificate(row: Row, chance: random.Random, number: int) -> None:
    own = chance.random() < 0.15
    server = number // 40 if chance.random() < 0.5 else number
    name = f"srv{server}.example"
    ends = START + timedelta(days=random.Random(server).choice((-400, -20, 3, 12, 25, 45, 60, 80, 85, 200, 300, 700)))
    kept = {"not_before": ends - timedelta(days=90), "not_after": ends}
    row |= {"tunnel": "ssl", "hostname": name}
    row["tls"] = {
        "protocol": chance.choice(("TLSv1.3", "TLSv1.3", "TLSv1.3", "TLSv1.2", "TLSv1")),
        "cipher": "TLS_AES_256_GCM_SHA384",
        "subject": f"CN={name}",
        "issuer": f"CN={name}" if own else "CN=Example CA,O=Example",
        "names": [name, f"www.{name}"],
        **{key: f"{value:%Y-%m-%dT%H:%M:%SZ}" for key, value in kept.items()},
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "key": chance.choice(("ec secp256r1", "rsa 2048", "rsa 2048", "rsa 4096")),
        "self_signed": own,
    }
    row["post"] = {"http": {"title": f"Welcome to {name}", "status": 200}}


def _unknown(row: Row, chance: random.Random) -> None:
    port, probe, answer = UNKNOWN[min(int(chance.expovariate(0.9)), len(UNKNOWN) - 1)]
    day = START - timedelta(days=chance.randrange(300))
    said = f"{day:{answer.replace('%n', str(chance.randrange(10_000)))}}"
    row |= {"port": port, "state": "open", "verdict": "nomatch"}
    text = (
        f'SF-Port{port}-TCP:V=0.1.0%I=7%D=11/20%Time=6B0135D5%P=x86_64-pc-linux-gnu%r({probe},{len(said):X},"{said}");'
    )
    row["fingerprint"] = "\nSF:".join(text[at : at + 71] for at in range(0, len(text), 71))


def _closed(row: Row, chance: random.Random) -> None:
    reason = chance.choice(REFUSALS)
    row |= {"port": chance.choice((21, 25, 110, 443, 8443)), "verdict": "incomplete", "reason": reason}
    row |= {"state": "closed" if reason == "refused" else "filtered", "bytes": 0}
