"""Nmap's XML, valid against its DTD, so that whatever reads `nmap -oX` reads this: ndiff, python-libnmap, and so on.

The DTD knows one scanner only, so `scanner="nmap"` it is, with our version and command line; `xmloutputversion` says
which form of Nmap's this is. Hosts are put together within bounds (`HostBuffer`), so a host of a huge run may appear
twice. Every host goes out in one write, and an interrupted run still gets its tail through `close`. A file whose run
was killed outright lacks only the tail: cut it behind the last `</host>` and add what `tail` returns.
"""

import contextlib
import re
from datetime import datetime

from engine.conversation.fingerprint import unwrap
from engine.model import ServiceResult, Tunnel
from engine.results.columns import has_service, product_column, state_column
from engine.results.sinks.base import HostBuffer, Run, Summary, decode_rows, moment, place, reached, scanned, unresolved
from engine.results.sinks.output import Output

FORM_VERSION = "1.05"

# What made us believe a state, in Nmap's words. Who connects, as we do, sees a handshake, not a flag.
_REASONS = {
    ("tcp", "open"): "syn-ack",
    ("tcp", "closed"): "conn-refused",
    ("udp", "open"): "udp-response",
    ("udp", "closed"): "port-unreach",
}
_NO_ANSWER = "no-response"

_SPECIAL = re.compile(r"[&<>\"']|(?<=-)-|[^\x20-\x7f]")
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;", "-": "&#45;"}
_UNBEARABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # the Char rule of XML 1.0


class NmapXmlSink:
    def __init__(self, output: Output, run: Run) -> None:
        self._output = output
        self._run = run
        self._hosts_written = 0
        self._hosts = HostBuffer(self._write_host)
        self._write(head(run))

    def write(self, blob: bytes, rows: int) -> None:
        for row in decode_rows(blob):
            self._hosts.add(row)

    def close(self, summary: Summary) -> None:
        with contextlib.closing(self._output):
            try:
                self._hosts.drain()
            finally:  # on a full disk too: what failed was taken back, and the tail is small
                self._write(tail(self._run, summary, self._hosts_written))

    def _write_host(self, rows: list[ServiceResult]) -> None:
        if unresolved(rows[0]):
            self._write(f"<target{_attributes(specification=rows[0].host, status='skipped', reason='invalid')}/>\n")
            return
        if known := reached(rows):
            self._write(host(known, len(rows) - len(known)))
            self._hosts_written += 1

    def _write(self, text: str) -> None:
        self._output.write(text.encode("ascii"))


def head(run: Run) -> str:
    """Everything before the first host."""
    started = int(run.started)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE nmaprun>\n'
        f"<nmaprun{_attributes(scanner='nmap', args=run.args, start=started, startstr=moment(started))}"
        f"{_attributes(version=run.version, xmloutputversion=FORM_VERSION)}>\n"
        '<verbose level="0"/>\n<debugging level="0"/>\n'
    )


def tail(run: Run, summary: Summary, hosts: int) -> str:
    """Everything behind the last host. hosts: how many were written."""
    ended = moment(summary.finished)
    elapsed = f"{summary.finished - run.started:.2f}"
    ending = {"exit": "error", "errormsg": summary.trouble} if summary.trouble else {"exit": "success"}
    how = summary.trouble or f"probemill done at {ended}"
    told = f"{how}; {scanned(hosts, run, summary)}"
    return (
        f"<runstats><finished{_attributes(time=int(summary.finished), timestr=ended, summary=told)}"
        f"{_attributes(elapsed=elapsed, **ending)}/>"
        f"<hosts{_attributes(up=hosts, down=0, total=hosts)}/>\n</runstats>\n</nmaprun>\n"
    )


def host(rows: list[ServiceResult], missing: int = 0) -> str:
    """One host with its ports, in the order of `rows`. missing: ports that the run did not reach; only counted."""
    first = rows[0]
    starts = [datetime.fromisoformat(row.started).timestamp() for row in rows]
    ends = [start + row.elapsed_ms / 1000 for start, row in zip(starts, rows, strict=True)]
    name = f"<hostname{_attributes(name=first.host, type='user')}/>\n" if first.host else ""
    ports = "\n".join(map(port, rows))
    extra = f"<extraports{_attributes(state='unknown', count=missing)}/>\n" if missing else ""
    kind = "ipv6" if ":" in first.ip else "ipv4"
    return (
        f"<host{_attributes(starttime=int(min(starts)), endtime=int(max(ends)))}>"
        '<status state="up" reason="user-set" reason_ttl="0"/>\n'
        f"<address{_attributes(addr=place(first), addrtype=kind)}/>\n<hostnames>\n{name}</hostnames>\n"
        f"<ports>{extra}{ports}\n</ports>\n</host>\n"
    )


def port(row: ServiceResult) -> str:
    """One port: its state, and the service if there is anything to say about it."""
    reason = _REASONS.get((row.proto, row.state), _NO_ANSWER)
    return (
        f"<port{_attributes(protocol=row.proto, portid=row.port)}>"
        f"<state{_attributes(state=state_column(row), reason=reason, reason_ttl=0)}/>"
        f"{service(row) if has_service(row) else ''}</port>"
    )


def service(row: ServiceResult) -> str:
    """The `service` element, its attributes in Nmap's order."""
    texts = {
        "product": product_column(row),
        "version": row.version,
        "extrainfo": row.extrainfo,
        "hostname": row.hostname,
        "ostype": row.ostype,
        "devicetype": row.devicetype,
        "servicefp": unwrap(row.fingerprint),
        "tunnel": "ssl" if row.tunnel is Tunnel.SSL else "",
    }
    given = {"name": row.name} | {name: text for name, text in texts.items() if text}
    element = f"<service{_attributes(**given, method=row.method, conf=row.conf)}"
    if not row.cpe:
        return f"{element}/>"
    return f"{element}>{''.join(f'<cpe>{quote(cpe)}</cpe>' for cpe in row.cpe)}</service>"


def quote(text: str) -> str:
    """`text` as attribute or content, in ASCII; a character that XML cannot hold, not even as a number, is a dot."""
    return _SPECIAL.sub(_spell, text)


def _spell(special: re.Match[str]) -> str:
    character = special[0]
    if character in _NAMED:
        return _NAMED[character]
    return "." if _UNBEARABLE.match(character) else f"&#x{ord(character):x};"


def _attributes(**values: str | int) -> str:
    return "".join(f' {name}="{quote(str(value))}"' for name, value in values.items())
