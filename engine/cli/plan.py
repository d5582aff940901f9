"""`probemill plan`: what a scan will take, told before it is begun. Options -> a Question; its Forecast, text or JSON.

How the figures come about stands in engine/forecast/, what they mean in docs/plan.md.
"""

import asyncio
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from engine.cli.counted import NOTHING, Counted, counted
from engine.cli.help import Command, Section
from engine.cli.kinds import Amount, Bytes, Count, Hours, Parts, Seconds, Share
from engine.cli.options import ALL_OPTIONS, Options, option
from engine.cli.planned import show
from engine.cli.settings import post_modules, source_addresses
from engine.conversation.plan import Planner
from engine.conversation.timing import TIMINGS, Pace
from engine.databases import open_database
from engine.errors import ConfigError, InputError
from engine.forecast.constants import KINDS, Constants, read_constants
from engine.forecast.forecast import forecast, machines_for
from engine.forecast.load import ELSE, USUAL, Question, Silence, usual
from engine.model import MAX_WORKERS, ScanConfig, Tunnel

POST = {  # connections that post-processing adds to a service of a kind at most (docs/post.md)
    "web": {"http": 2, "tls": 2},
    "ssh": {"banner": 1},
    "ssh-keys": {"banner": 6},
    "starttls": {"banner": 1},
    "ntlm": {"http": 2, "tls": 2, "banner": 1},
    "rpc-unknown": {"silent": 1},
    "jarm": {"tls": 10},
    "sharing": {"http": 1, "tls": 1, "banner": 1, "silent": 1},
}
SETTINGS = (  # fields of ScanConfig that are given as they are
    *("ports", "blocklist", "allowlist", "exclude_reserved", "probes", "rate", "max_inflight", "per_host"),
    *("intensity", "timing", "connect_timeout_s", "service_timeout_s"),
)


_SCAN = {known.name: known for known in ALL_OPTIONS}


def _as_in_scan(*names: str) -> tuple[click.Option, ...]:
    return tuple(_SCAN[name] for name in names)


SECTIONS = (
    Section(
        "Targets",
        (
            *_as_in_scan("inputs", "input_format", "ports", "blocklist", "allowlist", "exclude_reserved"),
            option(
                "--count",
                type=Parts(),
                metavar="PORT=N,...",
                help="How many targets each port has, in place of targets: `80=62M,443=55M,22=21M`.",
            ),
            option(
                "--answering",
                type=Share(),
                default=1.0,
                show_default="100%",
                metavar="SHARE",
                help="Share of the targets that are open ports.",
            ),
            option(
                "--closed",
                type=Share(),
                default=0.0,
                metavar="SHARE",
                help="Share of the others that refuse at once; the rest of them is silent until the connect timeout.",
            ),
            option(
                "--mix",
                type=Parts(),
                metavar="KIND=N,...",
                help="Kinds of the services, in percent: `banner=40,http=30,tls=25,silent=5`.",
                show_default="by their ports",
            ),
        ),
        "probemill plan 198.51.100.0/24 -p 80,443 --answering 1.5%",
    ),
    Section(
        "How the scan will be run",
        (
            *_as_in_scan("rate", "max_inflight", "per_host", "intensity", "timing", "connect_timeout_s"),
            *_as_in_scan("service_timeout_s", "post", "no_post", "probes", "sources"),
        ),
        "probemill plan -i targets.txt --timing adaptive --rate 20k",
    ),
    Section(
        "Machines",
        (
            option("--machines", type=Count(1, 1 << 20), metavar="N", help="So many machines.", show_default="1"),
            option(
                "--hours", type=Hours(), metavar="TIME", help="As many machines as are done by then: `24`, `24h`, `2d`."
            ),
            option("--cores", type=Count(1, 1024), default=4, metavar="N", help="Processor cores of each machine."),
            option(
                "--workers",
                type=Count(0, MAX_WORKERS),
                metavar="N",
                help="Processes that scan, on each machine.",
                show_default="one a core",
            ),
            option(
                "--memory",
                type=Bytes(),
                default=8 << 30,
                metavar="SIZE",
                show_default="8G",
                help="Memory of each machine.",
            ),
            option(
                "--bandwidth",
                type=Amount(),
                default=0.0,
                metavar="N",
                help="Bandwidth of each machine, in bits per second: `1G`.",
                show_default="not a limit",
            ),
            option(
                "--rtt",
                "rtt_s",
                type=Seconds(),
                default=0.1,
                metavar="TIME",
                show_default="100ms",
                help="Round trip from a machine to a target, on the average.",
            ),
            option(
                "--price",
                type=Amount(),
                default=0.0,
                metavar="N",
                help="Price of a machine for an hour, in any currency.",
            ),
        ),
        "probemill plan --count 80=62M,443=55M --hours 24h --price 0.10",
    ),
    Section(
        "Answer",
        (option("--json", "as_json", is_flag=True, help="The same as JSON: times in seconds, sizes in bytes."),),
    ),
)


@click.command(
    "plan",
    cls=Command,
    params=[
        click.Argument(["targets"], nargs=-1, metavar="[TARGET]..."),
        *(known for section in SECTIONS for known in section.options),
    ],
    sections=SECTIONS,
    brief=("inputs", "ports", "count", "answering", "rate", "timing", "machines", "hours", "cores", "price", "as_json"),
    examples=(
        "probemill plan --count 80=62M,443=55M,22=21M --timing adaptive --hours 24h",
        "probemill plan 198.51.100.0/24 -p 80,443,22 --answering 1.5% --machines 2",
        "probemill plan -i targets.txt --timing adaptive --json",
    ),
)
def plan_command(**options: Any) -> None:
    """Tell what a scan of each TARGET, or of so many targets, will take; nobody is contacted.

    --rate and --max-inflight are meant for all machines together; everything else is of each machine.
    """
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"--{name.replace('_', '-')} {value}: not a number that can be planned with")
    if options["machines"] and options["hours"]:
        raise ConfigError("--machines and --hours exclude each other: one follows from the other")
    question, errors = asked(options)
    constants = read_constants()
    machines = options["machines"] or 1
    if options["hours"]:
        machines = machines_for(question, constants, options["hours"])
    answer = forecast(question, constants, machines)
    notes = list(_notes(question, constants))
    if options["as_json"]:
        facts = {**msgspec.to_builtins(answer), "notes": notes, "constants": msgspec.to_builtins(constants.place)}
        click.echo(msgspec.json.format(msgspec.json.encode(facts), indent=2))
    else:
        show(answer, notes[0], notes[1:])
    if errors:
        click.echo(f"probemill: {len(errors):,} input lines skipped; first: {errors[0]}", err=True)
        sys.exit(1)


def asked(options: Options) -> tuple[Question, list[InputError]]:
    """What the options ask, and lines of inputs that could not be read. Raises ConfigError, InputError."""
    config = _config(options)
    if options["count"] is not None:
        given = _given(options)
        found = Counted(given, max(given.values()), [])
    elif not options["targets"] and not options["inputs"]:
        raise ConfigError("no targets: name some, give a file with -i, or say how many by --count")
    else:
        found = asyncio.run(counted(config, options["targets"], options["inputs"], options["input_format"]))
    return _question(options, config, found), found.errors


def _config(options: Options) -> ScanConfig:
    """Raises ConfigError for what a scan would refuse, too."""
    return ScanConfig(
        **{name: options[name] for name in SETTINGS},
        post=post_modules(options),
        workers=options["cores"] if options["workers"] is None else options["workers"],
        sources=source_addresses(options),
    )


def _given(options: Options) -> dict[int, int]:
    """Targets by port, as --count says. Raises ConfigError."""
    if options["targets"] or options["inputs"]:
        raise ConfigError("--count is in place of targets: give one or the other")
    for name in ("ports", "blocklist", "allowlist", "exclude_reserved"):
        if options[name]:
            raise ConfigError(f"--count says all there is to say of the targets: leave {name.replace('_', ' ')} out")
    counts: dict[int, int] = {}
    for port, count in options["count"].items():
        if not re.fullmatch(r"\d{1,5}", port) or not 0 < int(port) <= 0xFFFF:
            raise ConfigError(f"--count {port}=...: a port is 1 to 65535")
        counts[int(port)] = counts.get(int(port), 0) + round(count)
    if not sum(counts.values()):
        raise ConfigError(f"--count: {NOTHING}")
    return counts


def _question(options: Options, config: ScanConfig, found: Counted) -> Question:
    """Raises ConfigError for a mix that is none."""
    mix: dict[str, float] = {}
    if options["mix"] is not None:
        if unknown := options["mix"].keys() - set(KINDS):
            raise ConfigError(f"--mix: no kind {min(unknown)!r}; there are {', '.join(KINDS)}")
        if abs((total := sum(options["mix"].values())) - 100) > 0.01:
            raise ConfigError(f"--mix: its parts are {total:g} together, and not 100")
        mix = {kind: part / 100 for kind, part in options["mix"].items() if part}
    database, timing = open_database(config.probes), TIMINGS[config.timing]()
    planner, null_probe = Planner(database, config.intensity), database.null_probe
    banner_window_s = timing.silence_s(null_probe, Pace(options["rtt_s"])) if null_probe is not None else 0.0
    silence: dict[int, Silence] = {}
    for port in found.counts if "silent" in mix else ():
        queue = planner.plan("tcp", Tunnel.NONE, port).queue
        sent = (probe for probe, listed in queue if planner.allows(probe, listed, None))
        windows = (timing.silence_s(probe, Pace(options["rtt_s"], expired=before)) for before, probe in enumerate(sent))
        silence[port] = Silence(planner.most_connections("tcp", port), banner_window_s + sum(windows))
    post = Counter[str]()
    for module in config.post:
        post.update(POST.get(module, {}))
    return Question(
        targets=found.counts,
        hosts=found.hosts,
        mix=dict.fromkeys(found.counts, mix) if mix else {},
        silence=silence,
        post=dict(post),
        answering=options["answering"],
        closed=options["closed"],
        rtt_s=options["rtt_s"],
        banner_window_s=banner_window_s,
        connect_timeout_s=config.connect_timeout_s,
        service_timeout_s=config.service_timeout_s,
        rate=config.rate,
        slots=config.max_inflight,
        per_host=config.per_host,
        cores=options["cores"],
        workers=max(1, config.workers),
        memory=options["memory"],
        bandwidth=options["bandwidth"],
        sources=max(1, len(config.sources)),
        price=options["price"],
    )


def _notes(question: Question, constants: Constants) -> Iterator[str]:
    """What was assumed."""
    if question.answering == 1:
        yield "Every target is taken for an open port, as it is after a port scan; --answering says otherwise."
    else:
        yield (
            f"{question.answering:.4%} of the targets are taken for open ports; of the others {question.closed:.4%} "
            "refuse, the rest is silent until the connect timeout."
        )
    if not question.mix:
        told = ", ".join(f"{port} {usual(port)}" for port in list(question.targets)[:10])
        yield f"Kinds by port: {told}{', ...' * (len(question.targets) > 10)}; --mix says otherwise."
        if unknown := sum(count for port, count in question.targets.items() if port not in {*USUAL, 80, 8080}):
            yield f"{unknown:,} targets are on ports whose kind is not known here, and are taken for {ELSE}."
    rtt_ms = question.rtt_s * 1000
    yield f"A round trip is taken for {rtt_ms:g} ms (--rtt); a banner window is {question.banner_window_s:g} s."
    yield f"Constants: {constants.place}."
