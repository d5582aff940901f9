"""`probemill db`: look at a probe database, check it, explain its answers, compile it."""

import sys
from collections import Counter
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.cli.db_growth import capture_command, new_command, propose_command
from engine.cli.help import Group
from engine.cli.kinds import files
from engine.cli.sets import PROBES_HELP, matcher_option, ready_matcher, sample_folders
from engine.databases import open_database
from engine.errors import ConfigError, InputError
from engine.offline.forms.base import Row
from engine.offline.records import LineReader
from engine.services import ServiceTable
from engine.text import counted
from matcher import Confidences, ProbeDatabase, Proto, builtin_database, find_database, read_file, shown
from matcher.database.load import MAX_SIZE
from matcher.database.samples import FIELDS, Sample, SampleFault, read_samples
from matcher.tools.advice import MOST, advice, few, next_step
from matcher.tools.cost import needs_backtracking
from matcher.tools.explain import Explanation, Fit, explain
from matcher.tools.lint import ERROR, NOTE, WARNING, Finding, lint, lint_broad

SHOWN_BYTES = 400  # of a response or a group, in explanations


@click.group("db", cls=Group)
def db_group() -> None:
    """Check a probe database, and explain what it says."""


db_group.add_command(capture_command)
db_group.add_command(new_command)
db_group.add_command(propose_command)


# -- lint


@db_group.command("lint")
@click.argument("file", required=False, shell_complete=files)
@click.option(
    "--samples",
    multiple=True,
    metavar="FILE|DIR",
    type=click.Path(exists=True, path_type=Path),
    help="Samples to judge by. Repeatable. Default: the folder `samples` beside the database, if there is one.",
)
@matcher_option
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option("--notes", is_flag=True, help="Print notes, too; otherwise they are only counted.")
@click.option(
    "--broad", is_flag=True, help="Only list lines that fit samples of other products, those that take most first."
)
@click.option("--all", "every", is_flag=True, help=f"Print all findings; otherwise {MOST} of a rule are enough.")
def lint_command(
    *,
    file: str | None,
    samples: tuple[Path, ...],
    engine: str,
    strict: bool,
    notes: bool,
    broad: bool,
    every: bool,
) -> None:
    """Check the database FILE (a path, `nmap`, or `builtin`) and its samples.

    Findings are `path:line:column: severity: text [rule]`; how many there are, what helps and the next command come
    behind them. Exit code 0: clean; 1: errors; 2: the database cannot be used.
    """
    path = find_database(file)
    name = shown(str(path))
    try:
        data = read_file(path, MAX_SIZE)
    except OSError as error:
        raise InputError(name, 0, f"cannot be read: {error.strerror}") from error
    read: list[Sample] | None = None
    faults: list[SampleFault] = []
    if folders := samples or sample_folders(path, broad) or (broad and sample_folders(builtin_database(), True)):
        read, faults = read_samples(folders)
    if broad:
        if not read:
            raise ConfigError("--broad needs samples of other products to judge by; name some with --samples")
        findings = lint_broad(data, name, read, engine=engine)
    else:
        services = tuple(ServiceTable.load().rows())
        findings = lint(data, name, read, faults=faults, services=services, engine=engine)
    wanted = [finding for finding in findings if notes or finding.severity != NOTE]
    printed, left = (wanted, 0) if every or broad else few(wanted)
    for finding in printed:
        click.echo(shown(str(finding)))
    count = Counter(finding.severity for finding in findings)
    judged = "no samples" if read is None else counted(len(read), "sample")
    hidden = "" if notes or not count[NOTE] else " (--notes shows them)"
    parts = (counted(count[severity], severity) for severity in (ERROR, WARNING, NOTE))
    click.echo(f"{name}: {judged}; {', '.join(parts)}{hidden}", err=True)
    if left:
        click.echo(f"  {counted(left, 'more finding')} of the same rules (--all shows them)", err=True)
    for text in advice(findings):
        click.echo(f"  {text}", err=True)
    if step := next_step(findings, name):
        click.echo(f"next: {step}", err=True)
    sys.exit(_lint_code(findings, strict))


def _lint_code(findings: list[Finding], strict: bool) -> int:
    if any(finding.rule == "grammar" for finding in findings):
        return 2
    bad = (ERROR, WARNING) if strict else (ERROR,)
    return int(any(finding.severity in bad for finding in findings))


# -- explain


@db_group.command("explain")
@click.argument("file", default="-", shell_complete=files)
@click.option("--probe", "name", metavar="NAME", help="The probe that was answered. Default: NULL, or the row's.")
@click.option("--proto", type=click.Choice(["tcp", "udp"]), help="Default: tcp, or the row's.")
@click.option("--probes", multiple=True, metavar="FILE", shell_complete=files, help=PROBES_HELP)
@click.option("--raw", is_flag=True, help="FILE is a response even if it looks like rows of responses.")
def explain_command(file: str, name: str | None, proto: str | None, probes: tuple[str, ...], raw: bool) -> None:
    """Show which line wins a response, which other lines fit it, and why fields are missing.

    FILE (default: stdin) holds one response as it came, or rows as `probemill match` reads them.
    Exit code 1 when no line fits some response.
    """
    data = _read(file)
    database = open_database(probes)
    confidences = Confidences(database)
    unmatched = False
    for row in ([] if raw else _rows(data)) or [Row("tcp", ("NULL",), data, b"")]:
        kind: Proto = "udp" if (proto or row.proto) == "udp" else "tcp"
        wanted = (name,) if name else row.probes
        probe = next(filter(None, (database.probe(each, kind) for each in wanted)), None)
        if probe is None:
            raise ConfigError(f"{database.name} has no {(proto or row.proto).upper()} probe named {wanted[0]}")
        explanation = explain(database, probe, row.data)
        click.echo(f"response  {len(row.data):,} bytes to {probe.proto.upper()} {probe.name}: {_shown(row.data)}")
        _print_explanation(explanation, confidences)
        unmatched = unmatched or not explanation.fits
    sys.exit(int(unmatched))


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise InputError(file, 0, f"cannot be read: {error.strerror}") from error


def _rows(data: bytes) -> list[Row]:
    """The rows of a file that is nothing but rows."""
    reader = LineReader()
    rows = [row for line in data.split(b"\n") for row in reader.read(line)] + list(reader.close())
    return [] if reader.faults.count or reader.texts.count else rows


def _print_explanation(explanation: Explanation, confidences: Confidences) -> None:
    asked = ", ".join(f"{probe.name} ({lines:,} lines)" for probe, lines in explanation.tried)
    click.echo(f"asked     {asked}")
    if not explanation.fits:
        click.echo("won       no line\n")
        return
    winner, *others = explanation.fits
    click.echo(f"won       {_line(winner)}")
    sure = confidences.of(winner.signature)
    click.echo(f"sure      {sure.value} {' '.join(sure.reasons)}")
    info = winner.match.info
    for field in FIELDS:
        if text := getattr(info, field):
            click.echo(f"          {field:<11}{text}")
    for cpe in info.cpe:
        click.echo(f"          {'cpe':<11}{cpe}")
    for field, reason in winner.dropped:
        click.echo(f"          {field:<11}dropped: {reason}")
    for number, group in enumerate(winner.groups[1:], 1):
        click.echo(f"          ${number:<10}{'unset' if group is None else _shown(group)}")
    for other in others:
        click.echo(f"fits too  {_line(other)}")
    click.echo("")


def _line(fit: Fit) -> str:
    signature = fit.signature
    words = [f"line {signature.line} of {fit.match.probe.name}:", "softmatch" if signature.soft else "match"]
    info = fit.match.info
    return " ".join(filter(None, [*words, signature.service, info.product, info.version]))


def _shown(data: bytes) -> str:
    text = repr(data[:SHOWN_BYTES])[1:]
    return text + (" ..." if len(data) > SHOWN_BYTES else "")


# -- stats, compile


@db_group.command("stats")
@click.argument("file", required=False, shell_complete=files)
@click.option("--top", type=click.IntRange(1), default=12, show_default=True, help="Probes to list, by their lines.")
def stats_command(file: str | None, top: int) -> None:
    """Count what the database FILE (a path, `nmap`, or `builtin`) holds."""
    database = open_database([file] if file else [])
    lines = list(database.signatures())
    backtracking = {line.id for line in lines if needs_backtracking(line.pattern)}
    facts = Table(title=Text(shown(str(find_database(file)))), title_justify="left", show_header=False, box=None)
    facts.add_column()
    facts.add_column(overflow="fold")
    for name, value in _facts(database, len(backtracking)):
        facts.add_row(name, f"{value:,}" if isinstance(value, int) else value)
    table = Table(title="probes with most lines", title_justify="left", box=None)
    for column in ("probe", "proto", "rarity", "lines", "set"):
        table.add_column(column, justify="left" if column in ("probe", "proto") else "right")
    table.add_column("backtracking", justify="right")
    for probe in sorted(database.probes, key=lambda one: -len(one.signatures))[:top]:
        own = sum(line.id in backtracking for line in probe.signatures)
        together = sum(len(database.probes[index].signatures) for index in probe.lists)
        table.add_row(
            Text(probe.name), probe.proto, str(probe.rarity), f"{len(probe.signatures):,}", f"{together:,}", f"{own:,}"
        )
    console = Console()
    console.print(facts)
    console.print(table)
    console.print("[dim]set: lines asked for an answer to the probe, its fallbacks and NULL included[/dim]")


def _facts(database: ProbeDatabase, backtracking: int) -> list[tuple[str, int | str]]:
    lines = list(database.signatures())
    return [
        ("sha256", database.sha256),
        ("TCP probes", sum(probe.proto == "tcp" for probe in database.probes)),
        ("UDP probes", sum(probe.proto == "udp" for probe in database.probes)),
        ("match lines", sum(not line.soft for line in lines)),
        ("softmatch lines", sum(line.soft for line in lines)),
        ("services", len({line.service for line in lines})),
        ("products", len({line.templates.product for line in lines} - {b""})),
        ("lines that need backtracking", backtracking),
    ]


@db_group.command("compile")
@click.option("--probes", multiple=True, metavar="FILE", shell_complete=files, help=PROBES_HELP)
@matcher_option
def compile_command(probes: tuple[str, ...], engine: str) -> None:
    """Plan a database ahead of time, so that the first scan finds everything ready."""
    console = Console(stderr=True)
    matcher = ready_matcher(probes, engine, console, compiled=True)
    database = matcher.database
    lines = sum(len(probe.signatures) for probe in database.probes)
    click.echo(f"{database.name}: {lines:,} lines of {len(database.probes):,} probes are ready for {matcher.engine}")
