"""The options of `probemill scan`, in the groups that docs/options.md explains, and what becomes of them.

Nmap's names are accepted wherever we have the same thing. `scan_config` and the other functions here turn what click
parsed into the engine's own types; everything that cannot be obeyed is a ConfigError naming the option.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from engine.errors import ConfigError
from engine.model import ScanConfig, Target
from engine.post import module_names
from engine.results.sinks import SINKS
from engine.run import Inputs
from engine.state.segments import SEGMENT_S, SEGMENT_SIZE
from engine.targets import FORMATS, Unreadable, parse_ports
from engine.targets.permutation import parse_shard
from engine.targets.prefixes import AddressFilter, PrefixSet, load_allowlist, load_prefixes, reserved_networks

Options = dict[str, Any]
_Command = TypeVar("_Command", bound=Callable[..., Any])

# Nmap's timing templates: (conversations at once, seconds between two connections to a host, seconds for a host).
# Conversations of T3 and faster are our own default: the templates' 20 to 40 are what we are here to get past.
TEMPLATES = {
    0: (1, 300.0, 0.0),
    1: (1, 15.0, 0.0),
    2: (1, 0.4, 0.0),
    3: (0, 0.0, 0.0),
    4: (0, 0.0, 0.0),
    5: (0, 0.0, 900.0),
}
_SUFFIXES = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


class Seconds(click.ParamType[float]):
    """A time as Nmap writes it: 500ms, 30s, 2m, 1h; a bare number is seconds. Gives seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float | int):
            return float(value)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", value)
        if not found:
            self.fail(f"{value!r} is not a time; write 500ms, 30s, 2m or 1h", param, ctx)
        return float(found[1]) * _SUFFIXES[found[2]]


class Bytes(click.ParamType[int]):
    """A size: 65536, 64k, 8M, 1G. Gives bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+)([kMG]?)", value)
        if not found:
            self.fail(f"{value!r} is not a size; write 65536, 64k, 8M or 1G", param, ctx)
        return int(found[1]) << {"": 0, "k": 10, "M": 20, "G": 30}[found[2]]


def _options(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_flag: Options = {"is_flag": True}
_seconds: Options = {"type": Seconds(), "metavar": "TIME"}
_count: Options = {"type": click.IntRange(0), "metavar": "N"}

input_options = _options(
    click.option("-i", "--input", "inputs", multiple=True, metavar="FILE", help="Read targets from FILE, - for stdin."),
    click.option("--input-format", default="auto", type=click.Choice(["auto", *FORMATS]), help="Form of the inputs."),
    click.option("-p", "--ports", metavar="PORTS", help="For targets without one: 22,80,1000-2000,U:53,T:443."),
    click.option("--blocklist", multiple=True, metavar="FILE", help="Never contact these networks (CIDR lines)."),
    click.option("--allowlist", multiple=True, metavar="FILE", help="Contact only these networks (CIDR lines)."),
    click.option("--exclude-reserved", **_flag, help="Never contact private, loopback and other reserved addresses."),
    click.option("--shard", metavar="I/N", help="Scan only the I-th of N equal shares; hosts stay whole."),
    click.option("--seed", type=int, metavar="N", help="Visit networks in a pseudo-random order with this seed."),
    click.option("--dry-run", **_flag, help="Say how many hosts, ports and connections it would be; contact nobody."),
)

output_options = _options(
    click.option(
        "-o",
        "--output",
        "outputs",
        multiple=True,
        metavar="FILE",
        help="Write to FILE, - for stdout (default). Repeatable; a known suffix decides the form.",
    ),
    click.option("--format", "form", type=click.Choice([name for name in SINKS if name != "fingerprints"])),
    click.option("--fingerprints", metavar="FILE", help="Collect the fingerprints of unknown services in FILE."),
    click.option("--post", metavar="NAME,...", help="Ask more: ssh, starttls, web, smb2, rpc-unknown; all."),
    click.option("--no-post", **_flag, help="No post-processing of identified services, and no RPC grinding."),
)

state_options = _options(
    click.option("--state", metavar="DIR", help="Write the rows to segments in DIR; survives every way to be killed."),
    click.option("--resume", **_flag, help="Go on with the run in DIR: the same inputs, scanning what is missing."),
    click.option("--segment-size", type=Bytes(), default=SEGMENT_SIZE, metavar="SIZE", help="At most. [64M]"),
    click.option("--segment-seconds", **_seconds, default=SEGMENT_S, show_default=True, help="Until it is written."),
)

question_options = _options(
    click.option("--probes", metavar="FILE", multiple=True, help="Database: a file, nmap or builtin. Repeatable."),
    click.option("--recog", metavar="DIR", help="Recog's XML fingerprints, for a second opinion; see docs/recog.md."),
    click.option("--matcher", default="auto", show_default=True, help="auto, hyperscan, re2 or reference."),
    click.option(
        "--intensity",
        "--version-intensity",
        type=click.IntRange(0, 9),
        default=7,
        show_default=True,
        metavar="N",
        help="0 (banner and probes that name the port) to 9 (every probe).",
    ),
    click.option("--light", "--version-light", "light", **_flag, help="The same as --intensity 2."),
    click.option("--all", "--version-all", "everything", **_flag, help="The same as --intensity 9."),
    click.option("--allports", **_flag, help="Scan ports that the database excludes (printers), too."),
    click.option("--spare-fragile", **_flag, help="Send nothing to printer and industrial ports; only listen."),
    click.option(
        "--timing", type=click.Choice(["nmap", "adaptive"]), default="nmap", show_default=True, help="Response windows."
    ),
    click.option("--version-trace", "trace", **_flag, help="Tell every step of every conversation on stderr."),
)

speed_options = _options(
    click.option(
        "--workers", type=click.IntRange(0), metavar="N", help="Processes; 0: none of its own. Default: cores."
    ),
    click.option("--max-inflight", **_count, default=0, help="Conversations at once, over all workers."),
    click.option("--max-parallelism", **_count, default=0, help="Nmap's name for --max-inflight."),
    click.option("--min-parallelism", **_count, default=0, help="Accepted; ours adapts by itself."),
    click.option("-T", "template", type=click.IntRange(0, 5), metavar="0-5", help="Nmap's timing templates."),
    click.option("--rate", type=click.FloatRange(0), default=0.0, metavar="N", help="Connections per second."),
    click.option("--per-host", **_count, default=16, show_default=True, help="Conversations at once with one address."),
    click.option("--per-prefix", **_count, default=0, help="Conversations at once with one /24 or /64."),
    click.option("--host-delay", **_seconds, default=0.0, help="Between two connections to one address."),
    click.option("--source", metavar="ADDR,...", help="Local addresses to connect from, in turn."),
    click.option("--reset", **_flag, help="End connections with RST: spares ports in TIME_WAIT."),
    click.option(
        "--pseudo-ports", **_count, default=30, show_default=True, help="Equal answers that make a pseudo host."
    ),
)

budget_options = _options(
    click.option("--connect-timeout", **_seconds, default=5.0, show_default=True, help="For a TCP connection."),
    click.option("--tls-timeout", **_seconds, default=8.0, show_default=True, help="For connection and handshake."),
    click.option("--service-timeout", **_seconds, default=600.0, show_default=True, help="For one service."),
    click.option("--host-timeout", **_seconds, default=0.0, help="For all services of one address."),
    click.option("--deadline", **_seconds, default=0.0, help="For the run; what is in flight is written then."),
    click.option("--max-bytes", type=Bytes(), default=1 << 23, metavar="SIZE", help="Received per service. [8M]"),
)

report_options = _options(
    click.option("--stats-every", **_seconds, default=0.0, help="Print the run's numbers as JSON on stderr."),
    click.option("--metrics", type=click.IntRange(1, 65535), metavar="PORT", help="Prometheus metrics on loopback."),
    click.option("-v", "--verbose", count=True, help="More on stderr; twice for debugging."),
    click.option("-q", "--quiet", **_flag, help="No live line and no summary."),
)


def scan_config(options: Options) -> ScanConfig:
    """Everything that concerns the scan itself. Raises ConfigError for options that contradict each other."""
    if options["light"] and options["everything"]:
        raise ConfigError("--light and --all exclude each other")
    inflight, host_delay_s, host_timeout_s = (
        TEMPLATES[options["template"]] if options["template"] is not None else (0,) * 3
    )
    asked = options["max_inflight"] or options["max_parallelism"]
    if options["min_parallelism"] > asked > 0:
        raise ConfigError("--min-parallelism is greater than --max-parallelism")
    ceiling = asked or (max(inflight, options["min_parallelism"]) if inflight else 0)
    workers = options["workers"]
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    return ScanConfig(
        probes=options["probes"],
        recog=options["recog"] or "",
        matcher=options["matcher"],
        intensity=2 if options["light"] else 9 if options["everything"] else options["intensity"],
        allports=options["allports"],
        timing=options["timing"],
        spare_fragile=options["spare_fragile"],
        post=post_modules(options),
        trace=options["trace"],
        workers=min(workers, ceiling) if ceiling else workers,
        max_inflight=ceiling,
        rate=options["rate"],
        per_host=options["per_host"],
        per_prefix=options["per_prefix"],
        host_delay_s=options["host_delay"] or host_delay_s,
        sources=tuple(options["source"].split(",")) if options["source"] else (),
        reset=options["reset"],
        connect_timeout_s=options["connect_timeout"],
        tls_timeout_s=options["tls_timeout"],
        service_timeout_s=options["service_timeout"],
        host_timeout_s=options["host_timeout"] or host_timeout_s,
        max_bytes=options["max_bytes"],
        pseudo_ports=options["pseudo_ports"],
    )


def post_modules(options: Options) -> tuple[str, ...]:
    """The default modules, those that were named, or none. Raises ConfigError for a name that no module has."""
    named = tuple(options["post"].split(",")) if options["post"] else ()
    if named and options["no_post"]:
        raise ConfigError("--post and --no-post exclude each other")
    return () if options["no_post"] else module_names(("default", *named))


def inputs(options: Options) -> Inputs:
    """The targets that were named. Raises ConfigError, InputError for lists that cannot be used."""
    try:
        ports = parse_ports(options["ports"]) if options["ports"] else None
    except Unreadable as error:
        raise ConfigError(f"--ports {options['ports']}: {error}") from error
    if not options["targets"] and not options["inputs"]:
        raise ConfigError("no targets: name some, or give a file with -i (see probemill scan --help)")
    return Inputs(
        options["targets"], options["inputs"], options["input_format"], ports, admission(options), options["seed"]
    )


def admission(options: Options) -> Callable[[Target], bool] | None:
    """Which targets may be contacted at all, by lists, reserved networks and shard; None: every one."""
    blocked = [load_prefixes(Path(path)) for path in options["blocklist"]]
    if options["exclude_reserved"]:
        blocked.append(reserved_networks())
    allowed = [load_allowlist(Path(path)) for path in options["allowlist"]]
    shard = parse_shard(options["shard"]) if options["shard"] else None
    if not blocked and not allowed:
        return None if shard is None else lambda target: shard.keeps(target.name or target.host)
    filtering = AddressFilter(_union(blocked), _union(allowed))
    if shard is None:
        return lambda target: filtering.permits(target.host)
    return lambda target: shard.keeps(target.name or target.host) and filtering.permits(target.host)


def _union(sets: list[PrefixSet]) -> PrefixSet | None:
    result = None
    for prefixes in sets:
        result = prefixes if result is None else result | prefixes
    return result
