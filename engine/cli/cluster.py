"""`probemill cluster`: whether the nodes of a cluster are fit for a scan, said before anything is sent."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.cli import options as groups
from engine.cli.help import Group, Section
from engine.cli.kinds import Count
from engine.cli.progress import plain
from engine.cli.settings import source_addresses
from engine.model import MAX_WORKERS, ScanConfig
from engine.results.lake.base_place import canonical
from engine.state.attempt import Staging
from engine.state.elsewhere import Elsewhere, chosen_place
from engine.state.folder import Folder, told
from engine.state.journal import read_journal

if TYPE_CHECKING:  # loaded where it is asked for
    from engine.cluster import ClusterReport

_SCAN = {known.name: known for known in groups.ALL_OPTIONS}


def _as_in_scan(*names: str) -> tuple[click.Option, ...]:
    """Options of `probemill scan` that a node's fitness depends on."""
    return tuple(_SCAN[name] for name in names)


SECTIONS = (
    Section(
        "Cluster",
        (
            *_as_in_scan("ray_address", "ray_options"),
            groups.option(
                "--workers",
                type=Count(0, MAX_WORKERS),
                metavar="N",
                help="Actors that the scan will have on all nodes together.",
                show_default="one a core of the cluster",
            ),
        ),
        "probemill cluster check --ray-address auto",
    ),
    Section(
        "Where the rows go",
        (
            groups.option(
                "--state",
                metavar="DIR",
                help="The state folder of the scan, to see whether every node can put its rows there.",
            ),
            *_as_in_scan("segments"),
        ),
        "probemill cluster check --state run --segments s3://bucket/run",
    ),
    Section("What the scan will ask of each node", _as_in_scan("max_inflight", "rate", "sources")),
    Section(
        "Files that every node needs",
        _as_in_scan("probes", "recog", "matcher", "blocklist", "allowlist", "exclude_reserved"),
    ),
    Section("Answer", (groups.option("--json", "as_json", is_flag=True, help="All facts, as JSON."),)),
)
STYLES = {"ok": "green", "warning": "yellow", "bad": "bold red"}


@click.group("cluster", cls=Group)
def cluster_group() -> None:
    """Look after the machines of a cluster."""


@cluster_group.command(
    "check",
    params=[known for section in SECTIONS for known in section.options],
    sections=SECTIONS,
    brief=("ray_address", "ray_options", "state", "segments", "workers", "probes", "as_json"),
    examples=(
        "probemill cluster check --ray-address auto",
        "probemill cluster check --ray-address auto --state run",
    ),
)
def check_command(**options: object) -> None:
    """Ask every node whether a scan could run there, and say how to mend what is missing.

    Give it the options that the scan will be given: a node is looked at with these in mind. It tells, for each fact,
    what was found on which nodes: versions, the database, processor cores, open files, local ports, zones, and, with
    --state or --segments, whether every node can put its rows there. Nothing is scanned, and nothing is left behind.

    Exit code 0: nothing is bad; 1: something is.
    """
    from engine.cluster import check_cluster, open_cluster

    config = _config(options)
    cluster = open_cluster(str(options["ray_address"] or ""), str(options["ray_options"] or ""))
    with _staging(str(options["state"] or ""), str(options["segments"] or "")) as staging:
        report = asyncio.run(check_cluster(cluster, config, staging))
    if options["as_json"]:
        click.echo(msgspec.json.encode(report).decode())
    else:
        console, table = Console(), report_table(report)
        if console.is_terminal:
            console.print(table)
        else:
            click.echo(plain(table))
    sys.exit(1 if report.verdict == "bad" else 0)


def report_table(report: "ClusterReport") -> Table:
    """A line for each fact, and once for all nodes of which the same is true."""
    said: dict[str, dict[tuple[str, str, str], list[str]]] = {}
    for node in report.nodes:
        for finding in node.findings:
            key = finding.value, finding.verdict.value, finding.mend
            said.setdefault(finding.name, {}).setdefault(key, []).append(node.node)
    nodes = sum(node.facts is not None for node in report.nodes)
    table = Table(
        title=f"{report.cluster}, {nodes} node{'s' * (nodes != 1)}: {report.verdict}", title_justify="left", box=None
    )
    for column in ("fact", "nodes", "found", "verdict", "to mend it"):
        table.add_column(column, overflow="fold")
    for name, values in said.items():
        for (value, verdict, mend), where in values.items():
            who = "all" if len(where) == nodes > 1 else ", ".join(where)
            table.add_row(Text(name), Text(who), Text(value), Text(verdict, style=STYLES[verdict]), Text(mend))
    return table


def _config(options: groups.Options) -> ScanConfig:
    said = {name: options[name] for name in groups.DEFAULTS if name in options}
    return ScanConfig(**said | {"workers": options["workers"] or 0, "sources": source_addresses(options)})


@contextmanager
def _staging(state: str, segments: str) -> Iterator[Staging | None]:
    """Where a scan would have its actors put their segments, under a name that no run has; None where nobody says.

    A folder that is not there is made as a scan would make it, and removed again. Raises ConfigError, OutputError.
    """
    if not state and not segments:
        yield None
        return
    folder = Path(os.path.realpath(state)) if state else None
    header = read_journal(folder)[0] if folder is not None else None
    place = header.segments if header is not None else ""
    if segments:
        place = chosen_place(segments, folder) if folder is not None else canonical(segments)
    staging = Staging(place, token_hex(8)) if place else Staging(str(folder))
    made = "://" not in staging.where and not Path(staging.where).exists()
    if place:
        Elsewhere(place, staging.run).make()
    else:
        with told(Path(staging.where)):
            Folder.open(Path(staging.where), make=True).close()
    try:
        yield staging
    finally:
        if made:
            with suppress(OSError):
                Path(staging.where).rmdir()
