"""`probemill db capture`, `new` and `propose`: how a database grows, from a service or a folder of its answers."""

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from engine.cli.help import Command
from engine.cli.kinds import files
from engine.cli.sets import PROBES_HELP, progress_bar, ready_matcher, sample_folders
from engine.databases import choices, open_matcher
from engine.errors import ConfigError, EngineError
from engine.text import counted
from matcher import builtin_database, find_database, shown
from matcher.database.samples import FIELDS, Expected, answer, read_samples
from matcher.tools.propose import Proposal, propose


@click.command("capture", cls=Command)
@click.argument("service", metavar="HOST:PORT[/udp]")
@click.option("--probes", multiple=True, metavar="FILE", shell_complete=files, help=PROBES_HELP)
@click.option("--source", default="real: unknown", show_default=True, help="Where the samples come from.")
@click.option("--tls", is_flag=True, help="Ask inside TLS, whatever the certificate.")
@click.option("--every", is_flag=True, help="Keep answers that another probe got, too.")
def capture_command(service: str, probes: tuple[str, ...], source: str, tls: bool, every: bool) -> None:
    """Ask a service every probe and print its answers as samples, with what the database makes of them as `expect`.

    Ask only services that you own or may test. Look through the rows before you keep them: answers may hold names,
    addresses and cookies.
    """
    from engine.offline.capture import capture, parse_service

    where = parse_service(service, tls)
    console = Console(stderr=True)
    matcher = ready_matcher(probes, "auto", console)
    total = sum(probe.proto == where.proto for probe in matcher.database.probes)
    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TextColumn("probes"))
    with progress_bar(console, console.is_terminal, *columns) as bar:
        task = bar.add_task("", total=total)
        rows = capture(where, matcher, source, every=every, told=lambda: bar.advance(task))
        count = 0
        try:
            for row in rows:
                click.echo(json.dumps(row))
                count += 1
        except OSError as error:
            raise EngineError(f"{service}: cannot be asked: {error.strerror or error}") from error
    click.echo(f"{service}: {count} different answers to {total} probes", err=True)


@click.command("new", cls=Command)
@click.argument("samples", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--service", default="", metavar="NAME", help="The service's name where a sample expects none.")
@click.option("--probes", multiple=True, metavar="FILE", shell_complete=files, help=PROBES_HELP)
def new_command(samples: tuple[Path, ...], service: str, probes: tuple[str, ...]) -> None:
    """Propose match lines for the samples in files: literals escaped, what looks like a version captured.

    A sample that an earlier proposal fits gets none of its own. Comments say what the line gives, and what the database
    says today.
    """
    read, faults = read_samples(samples)
    for fault in faults:
        click.echo(f"{fault.path}:{fault.line}: {fault.reason}", err=True)
    matcher = open_matcher(probes, "auto")
    proposed: list[Proposal] = []
    for sample in read:
        if any(one.fits(sample.response) for one in proposed):
            continue
        proposal = propose(sample, service)
        proposed.append(proposal)
        probe = matcher.database.probe(sample.probe, sample.proto)
        today = None if probe is None else matcher.match(probe, sample.response)
        click.echo(f"# {sample.path}:{sample.line}, {sample.proto.upper()} {sample.probe}")
        if today is not None:
            click.echo(f"# today: line {today.signature.line}, {_words(answer(today))}")
        click.echo(f"# gives: {_words(proposal.answer)}")
        click.echo(f"{proposal.line}\n")
    sys.exit(1 if faults else 0)


@click.command("propose", cls=Command)
@click.argument("paths", nargs=-1, required=True, metavar="FOLDER...", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o", "--output", "out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="For review."
)
@click.option("--force", is_flag=True, help="Replace earlier proposals in DIR; other files stay.")
@click.option("--probes", multiple=True, metavar="FILE", shell_complete=files, help=PROBES_HELP)
def propose_command(paths: tuple[Path, ...], out: Path, force: bool, probes: tuple[str, ...]) -> None:
    """Propose a match line for each kind of response in folders, and try it on all samples at hand.

    FOLDER holds samples, captures, rows as `probemill match` reads them, or files that are one response each, whose
    names begin with the probe's (`GetRequest-shelf.raw`). DIR gets `proposed.probes` and `samples/proposed.ndjson`,
    which `probemill db lint` checks.

    Exit code 1 when something speaks against a line, or a file could not be used; 2 when there was nothing to read.
    """
    from engine.insight.learn.drafts import DATABASE, SAMPLES, where_to, write_drafts
    from engine.insight.learn.kinds import propose_kinds
    from engine.insight.learn.stored import read_folder

    if not force and any((out / name).exists() for name in (DATABASE, SAMPLES)):
        raise ConfigError(f"-o {out}: has proposals; name another folder, or say --force to replace them")
    matcher = open_matcher(probes, "auto")
    folder = read_folder(paths, matcher.database)
    for fault in folder.faults:
        click.echo(f"{fault.path}:{fault.line}: {fault.reason}", err=True)
    if not folder.responses:
        raise ConfigError(f"{shown(str(paths[0]))}: no response to a probe of {matcher.database.name}")
    databases = [*(map(find_database, choices(probes)) if probes else [find_database()]), builtin_database()]
    samples, _ = read_samples(dict.fromkeys(folder for path in databases for folder in sample_folders(path, True)))
    kinds = propose_kinds(folder.responses, matcher, samples)
    write_drafts(out, kinds.drafts, matcher.database.name)
    clean = 0
    for one in kinds.drafts:
        clean += not one.faults
        click.echo(f"# {shown(one.samples[0][0].place)}: {counted(len(one.samples), 'response')}; {where_to(one)}")
        for text in one.faults:
            click.echo(f"# against it: {shown(text)}")
        click.echo(f"{one.line}\n")
    left = f", {folder.left:,} beyond the limit" if folder.left else ""
    click.echo(
        f"{counted(len(folder.responses), 'response')} in {counted(folder.files, 'file')}: {kinds.known:,} need no "
        f"line{left}; {counted(len(kinds.drafts), 'line')} proposed, {clean:,} of them clean",
        err=True,
    )
    if kinds.drafts:
        click.echo(f"next: look through {out / DATABASE}, then: probemill db lint {out / DATABASE}", err=True)
    sys.exit(1 if folder.faults or clean < len(kinds.drafts) else 0)


def _words(said: Expected | None) -> str:
    if said is None:
        return "nothing: the line does not fit its own sample, write it by hand"
    texts = [said.name, *(getattr(said, field) for field in FIELDS), *said.cpe]
    return " ".join(filter(None, [*texts, "(soft)" if said.soft else ""]))
