"""`probemill scan`: options -> ScanConfig, Inputs and sinks; then a Run, watched on stderr."""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from importlib.metadata import version
from pathlib import PurePath

import click
from rich.console import Console
from rich.logging import RichHandler

from engine.api import make_runner
from engine.errors import ConfigError, InputError
from engine.inputs import FORMATS, Unreadable, parse_ports
from engine.model import ScanConfig
from engine.progress import LiveLine, summary_table
from engine.run import Inputs, Run
from engine.sinks import SINKS, STDOUT, Sink, open_sink
from engine.sinks import Run as RunFacts

SUFFIXES = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".txt": "text",
    ".nmap": "text",
    ".xml": "xml",
    ".gnmap": "grepable",
}
SHOWN_ERRORS = 20  # input errors printed one by one; the rest is counted


@click.command("scan")
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option(
    "-i", "--input", "inputs", multiple=True, metavar="FILE", help="Read targets from FILE, or - for stdin. Repeatable."
)
@click.option(
    "--input-format",
    default="auto",
    type=click.Choice(["auto", *FORMATS]),
    help="Form of the inputs; auto looks at them.",
)
@click.option("-p", "--ports", metavar="PORTS", help="Ports of targets without one: 22,80,1000-2000,U:53,T:443.")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    metavar="FILE",
    help="Write to FILE, or - for stdout (the default). Repeatable. The form follows the suffix where it has one.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(SINKS)),
    help="Form of outputs whose suffix does not say. Default: text on a terminal, else ndjson.",
)
@click.option(
    "--probes",
    metavar="FILE",
    multiple=True,
    help="Probe database: a file, `nmap`, or `builtin`. Default: as docs say.",
)
@click.option("--matcher", default="auto", show_default=True, help="Engine: auto, hyperscan, re2, reference.")
@click.option(
    "--intensity",
    "--version-intensity",
    type=click.IntRange(0, 9),
    default=7,
    show_default=True,
    metavar="N",
    help="0 (banner and probes that name the port) to 9 (every probe).",
)
@click.option("--light", "--version-light", "light", is_flag=True, help="The same as --intensity 2.")
@click.option("--all", "--version-all", "everything", is_flag=True, help="The same as --intensity 9.")
@click.option("--allports", is_flag=True, help="Scan ports that the database excludes (printers, as a rule), too.")
@click.option(
    "--workers", type=click.IntRange(0), metavar="N", help="Processes; 0 = none of its own. Default: one a core."
)
@click.option("--max-inflight", type=click.IntRange(1), metavar="N", help="Conversations at once, over all workers.")
@click.option("-q", "--quiet", is_flag=True, help="No live line and no summary.")
def scan_command(  # noqa: PLR0917 - click passes them by name
    targets: tuple[str, ...],
    inputs: tuple[str, ...],
    input_format: str,
    ports: str | None,
    outputs: tuple[str, ...],
    form: str | None,
    probes: tuple[str, ...],
    matcher: str,
    intensity: int,
    light: bool,
    everything: bool,
    allports: bool,
    workers: int | None,
    max_inflight: int | None,
    quiet: bool,
) -> None:
    """Identify the services on each TARGET and on the targets of the input files.

    \b
    A target is one of
      192.0.2.7:22        192.0.2.7:53/udp       [2001:db8::7]:443      host.example:25
      192.0.2.7           192.0.2.0/24           (with -p)
    Files hold one a line (# begins a comment), or NDJSON, masscan, zmap, naabu or Nmap output.

    \b
    probemill scan 192.0.2.7:22 192.0.2.7:443
    probemill scan -i targets.txt -o results.ndjson
    masscan ... -oD - | probemill scan -i - -o - | jq .name

    Scan only hosts that you own or may scan.
    """
    if light and everything:
        raise ConfigError("--light and --all exclude each other")
    try:
        spec = parse_ports(ports) if ports else None
    except Unreadable as error:
        raise ConfigError(f"--ports {ports}: {error}") from error
    if not targets and not inputs:
        raise ConfigError("no targets: name some, or give a file with -i (see probemill scan --help)")
    config = ScanConfig(
        probes=probes,
        matcher=matcher,
        intensity=2 if light else 9 if everything else intensity,
        allports=allports,
        workers=len(os.sched_getaffinity(0)) if workers is None else workers,
        max_inflight=max_inflight or 0,
    )
    console = Console(stderr=True)
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)]
    )
    errors = _InputErrors()
    runner = make_runner(config)
    sinks = _open_sinks(outputs or (STDOUT,), form)
    run = Run(config, Inputs(targets, inputs, input_format, spec), runner, sinks, errors.report)
    asyncio.run(_follow(run, console, quiet))
    errors.summarise()
    if not quiet and console.is_terminal:
        console.print(summary_table(run))
    if run.read == 0:
        raise InputError("input", 0, "no valid target")
    if run.cancelled:
        sys.exit(130)


def _open_sinks(outputs: tuple[str, ...], form: str | None) -> list[Sink]:
    facts = RunFacts(version=version("probemill"), args=" ".join(sys.argv), started=time.time())
    default = form or ("text" if sys.stdout.isatty() else "ndjson")
    return [open_sink(SUFFIXES.get(PurePath(path).suffix, default), path, facts) for path in outputs]


async def _follow(run: Run, console: Console, quiet: bool) -> None:
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(run.run())

    def stop() -> None:
        if run.cancelled:
            running.cancel()  # asked twice: do not wait any longer
        run.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    watching = asyncio.create_task(asyncio.sleep(0) if quiet else LiveLine(console).follow(run))
    try:
        await running
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class _InputErrors:
    """Prints the first errors of the input as they come, and how many there were in all."""

    def __init__(self) -> None:
        self._count = 0

    def report(self, error: InputError) -> None:
        self._count += 1
        if self._count <= SHOWN_ERRORS:
            click.echo(str(error), err=True)

    def summarise(self) -> None:
        if self._count:
            click.echo(f"probemill: {self._count} input line{'s' * (self._count != 1)} skipped", err=True)


@click.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of a result row."""
    from engine.schema import result_schema

    click.echo(json.dumps(result_schema(), indent=2))
