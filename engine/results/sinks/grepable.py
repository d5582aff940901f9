"""Nmap's grepable form: a comment, two lines per host, a comment. Superseded even at Nmap's, but scripts live on it.

    Host: 192.0.2.1 (example.org)\tPorts: 22/open/tcp//ssh//OpenSSH 9.2p1/, 80/open/tcp//http///

Ports that the run did not reach are counted as `Ignored State: unknown (5)`. A `/` inside a field is
written as `|`. Hosts are put together within bounds (`HostBuffer`).
"""

import contextlib

from engine.model import ServiceResult
from engine.results.columns import has_service, service_column, state_column, version_column
from engine.results.sinks.base import HostBuffer, Run, Summary, decode_rows, moment, place, reached, scanned, unresolved
from engine.results.sinks.output import Output


class GrepableSink:
    def __init__(self, output: Output, run: Run) -> None:
        self._output = output
        self._run = run
        self._hosts_written = 0
        self._hosts = HostBuffer(self._write_host)
        self._write(f"# probemill {run.version} scan initiated {moment(run.started)} as: {run.args}\n")

    def write(self, blob: bytes, rows: int) -> None:
        for row in decode_rows(blob):
            self._hosts.add(row)

    def close(self, summary: Summary) -> None:
        with contextlib.closing(self._output):
            self._hosts.drain()
            told = scanned(self._hosts_written, self._run, summary)
            trouble = f" ({summary.trouble})" if summary.trouble else ""
            self._write(f"# probemill done at {moment(summary.finished)} -- {told}{trouble}\n")

    def _write_host(self, rows: list[ServiceResult]) -> None:
        if failure := unresolved(rows[0]):
            self._write(f"# {failure}\n")
            return
        known = reached(rows)
        if not known:
            return
        host = f"Host: {place(rows[0])} ({rows[0].host})"
        missing = len(rows) - len(known)
        ignored = f"\tIgnored State: unknown ({missing})" if missing else ""
        self._write(f"{host}\tStatus: Up\n{host}\tPorts: {', '.join(map(port, known))}{ignored}\n")
        self._hosts_written += 1

    def _write(self, text: str) -> None:
        self._output.write(text.encode(errors="backslashreplace"))


def port(row: ServiceResult) -> str:
    """One port: number, state, protocol, owner, service, RPC information, version; owner and RPC are always empty."""
    service = service_column(row) if has_service(row) else ""
    fields = (str(row.port), state_column(row), row.proto, "", service, "", version_column(row), "")
    return "/".join(field.replace("/", "|") for field in fields)
