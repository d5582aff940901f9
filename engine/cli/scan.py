"""`probemill scan`: options -> ScanConfig, inputs and sinks; then a Run, watched on stderr."""

import asyncio
import json
import logging
import shlex
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import click
import msgspec
from msgspec.structs import replace

from engine import __version__
from engine.ahead import dismiss
from engine.api import make_runner, reached
from engine.cli import options as groups
from engine.cli.habits import nmap_habits
from engine.cli.help import Command
from engine.cli.outputs import outputs
from engine.cli.progress import NodeTable, follow, plain, summarise
from engine.cli.settings import scan_cluster, scan_config, scan_inputs
from engine.cli.start import INTERRUPTED, Interrupted, heard, interrupt, listen
from engine.cli.stderr import Stderr, open_result
from engine.conversation.plan import Planner
from engine.conversation.timing import TIMINGS
from engine.databases import open_database
from engine.errors import ConfigError, EngineError, InputError, OutputError
from engine.model import ScanConfig, Target
from engine.results.ending import Ending
from engine.results.lake import check_url
from engine.results.sinks import OpenOnly, Sink, Summary
from engine.results.sinks import Run as RunFacts
from engine.run import Inputs, Run
from engine.state.delivery import Deliveries, Terms
from engine.state.journal import Journal
from engine.state.notes import lacking
from engine.state.segments import SEGMENT_S, SEGMENT_SIZE, SegmentSink
from engine.targets import TargetSpec
from engine.text import counted, without_logins
from engine.threads import aside
from matcher import MatcherError

log = logging.getLogger("probemill")

SHOWN_ERRORS = 20  # input errors printed one by one; the rest is counted
COUNTED_HOSTS = 1_000_000  # addresses that a dry run tells apart; beyond it hosts are an upper bound
LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class ScanCommand(Command):
    """Takes what people are used to write for Nmap, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # else somebody is still typing
            args = nmap_habits(args, groups.VALUED)
        return super().parse_args(ctx, args)


@click.command(
    "scan",
    cls=ScanCommand,
    params=[click.Argument(["targets"], nargs=-1, metavar="[TARGET]..."), *groups.ALL_OPTIONS],
    sections=groups.GROUPS,
    brief=groups.BRIEF,
    examples=(
        "probemill scan 192.0.2.7:22 192.0.2.7:443",
        "probemill scan 192.0.2.0/24 -p 22,80,443 --rate 500 -o results.xml",
        "probemill scan -i targets.txt -o results.ndjson",
        "masscan ... -oD - | probemill scan -i - -o - | jq .name",
    ),
)
def scan_command(**options: Any) -> None:
    """Identify the services on each TARGET and on the targets of the input files.

    \b
    A target is one of
      192.0.2.7:22, 192.0.2.7:53/udp, [2001:db8::7]:443
      host.example:25
      192.0.2.7, 192.0.2.0/24, 192.0.2.1-9,20 with -p

    Files hold several (# begins a comment), or what masscan, zmap, naabu, rustscan, Nmap, httpx, Shodan write.

    TIME is 500ms, 30s, 2m or 1h. Ctrl-C writes what is known and ends; twice ends at once.
    Scan only hosts that you own or may scan.
    """
    _refuse_empty(click.get_current_context())
    config = scan_config(options)
    if options["runner"] == "ray" or not config.workers:
        dismiss()
    inputs = scan_inputs(options, config)
    written = outputs(options, config)
    stderr = Stderr(quiet=options["quiet"], traced=options["trace"])
    click.get_current_context().call_on_close(stderr.settle)
    stderr.take_logs(LEVELS[min(options["verbose"], len(LEVELS) - 1)])
    errors = _InputErrors(stderr)
    if options["dry_run"]:
        asyncio.run(_dry_run(config, inputs, errors))
        return
    cluster = scan_cluster(options)
    if config.proxy and cluster is None:
        config = reached(config)
    runner = make_runner(config) if cluster is None else None
    shown = replace(config, proxy=tuple(map(without_logins, config.proxy)))
    log.info("settings: %s", json.dumps(msgspec.to_builtins(shown)))
    segments = _open_segments(options, inputs)
    sinks: list[Sink] = []
    run = None
    try:
        if cluster is not None and segments is not None:
            from engine.cluster import make_cluster_runner

            runner = make_cluster_runner(config, cluster, segments.journal.staging)
            if not options["quiet"]:
                click.echo(f"probemill: the scan is on {cluster.engine.name}", err=True)
        assert runner is not None
        facts = RunFacts(
            __version__,
            " ".join(map(without_logins, sys.argv)),
            time.time(),
            "-" in options["inputs"],
            options["rows"] == "full",
        )
        for output in written:
            sink = open_result(output.form, output.path, facts, stderr)
            sinks.append(OpenOnly(sink) if options["open_only"] else sink)
        run = Run(config, inputs, runner, sinks, errors.report, segments=segments)
        try:
            asyncio.run(_follow(run, stderr, options))
        finally:
            listen(interrupt)  # a loop that closes takes its handlers along, and those before them
    except (Interrupted, EngineError, MatcherError) as error:
        if run is None or isinstance(error, Interrupted):  # nothing was begun
            summary = Summary(time.time(), ending=Ending(why="ended before anything was scanned"))
            for closing in (*sinks, *([segments] if segments is not None else ())):
                with suppress(EngineError):
                    closing.close(summary)
            raise
        if not run.interrupted or not isinstance(error, OutputError):
            raise
        stderr.say(f"probemill: {error}")
    errors.summarise()
    sys.exit(_last_words(run, errors, stderr, options))


def _refuse_empty(context: click.Context) -> None:
    """Raises ConfigError for an option with an empty value: a shell variable that is not set, as a rule."""
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and context.params.get(name) == "":
            raise ConfigError(f"{parameter.opts[0]}: its value is empty; give one, or leave the option out")


def _last_words(run: Run, errors: "_InputErrors", stderr: Stderr, options: groups.Options) -> int:
    """What is to be said of a run that has ended, and the exit code. Raises InputError where there was no target."""
    if run.blocked and not options["quiet"]:
        stderr.say(f"probemill: {counted(run.blocked, 'target')} left out by lists, shard, --proxy, -4 or -6")
    ending = run.ending()
    if stopped := "" if run.unheard else ending.words():
        goes_on = options["state"] and (run.interrupted or ending.is_resumable())
        resume = "; the same command with --resume goes on" if goes_on else ""
        stderr.say(f"probemill: {stopped}{resume}")
    summarise(run, stderr)
    if stderr.is_terminal and not stderr.hushed and options["state"] and not options["outputs"]:
        folder = shlex.quote(options["state"])
        stderr.say(f"probemill: the rows are in {folder}; `probemill convert {folder} rows.ndjson` reads them")
    stderr.settle()
    if run.interrupted:
        return INTERRUPTED
    if run.cancelled:
        return 1 if stopped or errors.count else 0
    if run.read == 0 and not run.blocked and not run.done_before and (errors.count or options["inputs"] != ("-",)):
        raise InputError("input", 0, "no valid target")
    return 1 if stopped or errors.count else 0


def _open_segments(options: groups.Options, inputs: Inputs) -> SegmentSink | None:
    """The state folder, locked and mended. Raises ConfigError, OutputError."""
    folder = options["state"]
    if not folder:
        if options["resume"]:
            raise ConfigError("--resume needs --state DIR: the folder of the run to go on with")
        if (options["segment_size"], options["segment_seconds"]) != (SEGMENT_SIZE, SEGMENT_S):
            raise ConfigError("--segment-size and --segment-seconds need --state DIR: the folder of the segments")
        if options["runner"] == "ray":
            raise ConfigError(
                "--runner ray needs --state DIR: the folder of the run; every node sees it, or name --segments, too"
            )
        if options["sinks"]:
            raise ConfigError("--sink needs --state DIR: a folder where rows are safe before they reach it")
        return None
    if options["segments"] and options["runner"] != "ray":
        raise ConfigError("--segments needs --runner ray: here, segments are written to --state")
    for url in options["sinks"]:  # before anything is made
        check_url(url)
    plan = {**inputs.plan(), "shard": options["shard"] or None}
    journal = Journal.open(folder, plan, resume=options["resume"], segments=options["segments"] or "")
    if options["resume"] and not options["quiet"]:
        done, segments = f"{counted(len(journal.committed), 'target')} done", counted(len(journal.records), "segment")
        begun = (
            f"{done}, {journal.rows:,} rows in {segments}" if journal.committed else "nothing is done yet: a new run"
        )
        click.echo(f"{journal.folder}: {begun}", err=True)
    try:
        deliveries = _open_sinks(options, journal)
    except BaseException:
        journal.close()
        raise
    return SegmentSink(journal, deliveries=deliveries, size=options["segment_size"], seconds=options["segment_seconds"])


def _open_sinks(options: groups.Options, journal: Journal) -> Deliveries | None:
    """Raises ConfigError, OutputError for a sink that cannot be used."""
    terms = Terms(
        options["scan_name"] or "",
        options["sink_size"],
        options["sink_seconds"],
        options["rows"] == "full",
        options["delete_delivered"],
    )
    if not options["sinks"]:
        if replace(terms, full=False) != Terms():
            raise ConfigError("--scan-name, --sink-size, --sink-seconds and --delete-delivered need --sink URL")
        for name in lacking(journal.folder, journal.last):
            log.warning("%s lacks segments of this run; name it with --sink again to deliver them", name)
        return None
    deliveries = aside(lambda: Deliveries(journal, options["sinks"], terms))  # a sink may be slow to answer
    if not options["quiet"]:
        places = ", ".join(deliveries.behind())
        click.echo(f"probemill: the rows go on as scan {deliveries.scan} into {places}", err=True)
    return deliveries


async def _follow(run: Run, stderr: Stderr, options: groups.Options) -> None:
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(run.run())

    def stop() -> None:
        if run.interrupted:
            run.give_up()  # asked twice: do not wait any longer
        run.interrupt()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup has its way
            loop.add_signal_handler(number, stop)
    if heard:
        stop()
    loop.add_signal_handler(signal.SIGUSR1, _answer, run, stderr, NodeTable(run))
    watchers = [asyncio.create_task(follow(run, stderr))]
    if options["stats_every"]:
        watchers.append(asyncio.create_task(_print_stats(run, stderr, options["stats_every"])))
    server = None
    if options["metrics"]:
        from engine.cli.metrics import serve_metrics  # and an HTTP server, which a plain scan does without

        server = serve_metrics(run, stderr.tail, *options["metrics"])
    try:
        await running
    except asyncio.CancelledError:
        if not run.interrupted:
            raise
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        if server is not None:
            server[0].shutdown()
        if options["stats_every"]:
            _print_snapshot(run, stderr)


async def _print_stats(run: Run, stderr: Stderr, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        _print_snapshot(run, stderr)


def _print_snapshot(run: Run, stderr: Stderr) -> None:
    from engine.cli.metrics import snapshot

    stderr.say(json.dumps(snapshot(run)))


def _answer(run: Run, stderr: Stderr, nodes: NodeTable) -> None:
    """What somebody who asks by a signal is told."""
    _print_snapshot(run, stderr)
    if (table := nodes.look()) is not None:
        stderr.say(plain(table))


async def _dry_run(config: ScanConfig, inputs: Inputs, errors: "_InputErrors") -> None:
    """Print what the run would be at most, as JSON. Names are not looked up; each counts as one host."""
    planner = Planner(open_database(config.probes), config.intensity)
    looks_twice = TIMINGS[config.timing]().second_look_s(0.0) > 0
    addresses: set[str] = set()
    hosts = ports = connections = 0
    async for items in inputs.items():
        for item in items:
            if isinstance(item, InputError):
                errors.report(item)
                continue
            if isinstance(item, TargetSpec) and not item.is_name and not inputs.selection.has(item.host):
                continue
            for target, count in _kinds(item, inputs):
                ports += count
                most = planner.most_connections(target.proto, target.port)
                connections += count * (most + (looks_twice and target.proto == "tcp"))
            if isinstance(item, TargetSpec) and item.network is not None:
                hosts += item.hosts
            elif len(addresses) < COUNTED_HOSTS:
                addresses.add(item.host)
            else:
                hosts += 1
    errors.summarise()
    if not ports and (errors.count or inputs.files != ("-",)):
        raise InputError("input", 0, "no valid target")
    click.echo(json.dumps({"hosts": hosts + len(addresses), "ports": ports, "connections_at_most": connections}))
    if errors.count:
        sys.exit(1)


def _kinds(item: Target | TargetSpec, inputs: Inputs) -> Iterable[tuple[Target, int]]:
    """The kinds of targets of an item, and how many of each. Lists apply to single addresses, not inside networks."""
    if isinstance(item, Target):
        return [(item, 1)] if inputs.selection.admit is None or inputs.selection.admit(item) else []
    numbered = (item.ports.at(index) for index in range(len(item.ports)))
    return ((Target(item.ordinal, item.host, port, proto), item.hosts) for port, proto in numbered)


class _InputErrors:
    """Prints the first errors of the input as they come, and how many there were in all."""

    def __init__(self, stderr: Stderr) -> None:
        self.count = 0
        self._stderr = stderr

    def report(self, error: InputError) -> None:
        self.count += 1
        if self.count <= SHOWN_ERRORS:
            self._stderr.warn(str(error))

    def summarise(self) -> None:
        if self.count:
            self._stderr.say(f"probemill: {self.count} input line{'s' * (self.count != 1)} skipped")
