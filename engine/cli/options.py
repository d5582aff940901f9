"""The options of `probemill scan`, in groups; settings.py says what becomes of them.

An option that sets a field of ScanConfig has the field's words, bounds and default (`field`); what only the command
knows is told here (`option`). Help, man pages and docs/options.md are made from this table. Nmap's names are accepted
wherever we have the same thing; how else Nmap's users write is in habits.py.
"""

from typing import Any

import click
from msgspec.structs import fields

from engine.cli.help import Section
from engine.cli.kinds import Amount, Bytes, Count, Endpoint, Seconds, files, folders, told_time
from engine.model import ScanConfig, field_choices, field_meta
from engine.results.sinks import SINKS
from engine.state.delivery import Terms
from engine.state.segments import SEGMENT_S, SEGMENT_SIZE
from engine.targets import FORMATS

Options = dict[str, Any]


def field(name: str, *flags: str, metavar: str | None = None, many: bool = False, **other: Any) -> click.Option:
    """The option of a field of ScanConfig: its words, its bounds and its default are the field's. many: repeatable."""
    default, meta = DEFAULTS[name], field_meta(name)
    facts: Options = {"help": meta.description, "metavar": metavar, "default": default, "show_default": bool(default)}
    if isinstance(default, bool):
        facts["is_flag"] = True
    elif name.endswith("_s"):
        facts |= {"type": Seconds(), "metavar": "TIME", "show_default": told_time(default) if default else False}
    elif name.endswith("_bytes"):
        facts |= {"type": Bytes(), "metavar": "SIZE", "show_default": f"{default >> 20}M"}
    elif choices := field_choices(name):
        facts["type"] = click.Choice(choices)
    elif isinstance(default, int | float):
        bounds: Any = meta.ge, meta.le
        facts |= {"type": Count(*bounds) if isinstance(default, int) else Amount(), "metavar": "N"}
    elif many:
        facts["multiple"] = True
    elif default == ():
        facts["default"] = None  # named together, separated by commas
    elif default is None:
        facts |= {"type": int, "metavar": "N"}
    return click.Option([*flags, name], **_completed(facts | other))


def option(*flags: str, **facts: Any) -> click.Option:
    """An option of the command alone."""
    if facts.get("is_flag"):
        return click.Option(flags, **facts)
    return click.Option(flags, **_completed({"show_default": bool(facts.get("default"))} | facts))


def _completed(facts: Options) -> Options:
    """With what a shell can know of the values: names of files and folders."""
    for word, complete in (("FILE", files), ("DIR", folders)):
        if (facts.get("metavar") or "").endswith(word):
            return {"shell_complete": complete} | facts
    return facts


DEFAULTS: Options = {field.name: field.default for field in fields(ScanConfig)}

# In the order in which help and docs/options.md show them.
GROUPS: tuple[Section, ...] = (
    Section(
        "Targets",
        (
            option(
                *("-i", "--input", "inputs"),
                multiple=True,
                metavar="FILE",
                help="Read targets from FILE, `-` for standard input. Repeatable; files follow one another. A pipe is "
                "read as it comes, at the speed of the scan. zstd and gzip are told by their first bytes.",
            ),
            option(
                "--input-format",
                default="auto",
                type=click.Choice(["auto", *FORMATS]),
                help="Form of the inputs, or the program that wrote them, in any of its forms; with `auto` the first "
                "line that is recognisable decides.",
            ),
            field("ports", "-p", "--ports", metavar="PORTS"),
            option(
                *("-4", "--ipv4"),
                is_flag=True,
                help="Only IPv4: names are looked up for such addresses, other targets are left out and counted.",
            ),
            option(*("-6", "--ipv6"), is_flag=True, help="Only IPv6, likewise."),
            field("blocklist", "--blocklist", metavar="FILE", many=True),
            field("allowlist", "--allowlist", metavar="FILE", many=True),
            field("exclude_reserved", "--exclude-reserved"),
            field("shard", "--shard", metavar="I/N"),
            field("seed", "--seed", metavar="N"),
            option(
                "--dry-run",
                is_flag=True,
                help="Print how many hosts, ports and connections it would be at most, as JSON, and contact nobody.",
            ),
        ),
        "probemill scan -i hosts.txt -p 22,80,443 --blocklist never.txt",
    ),
    Section(
        "Output",
        (
            option(
                *("-o", "--output", "outputs"),
                multiple=True,
                metavar="FILE",
                help="Write to FILE, `-` for standard output (the default). Repeatable. The suffixes `.ndjson`, "
                "`.jsonl`, `.csv`, `.parquet`, `.txt`, `.nmap`, `.xml` and `.gnmap` decide the form; `.zst` or `.gz` "
                "behind them compresses it.",
            ),
            option(
                *("--format", "form"),
                type=click.Choice([name for name in SINKS if name != "fingerprints"]),
                help="For outputs whose suffix says nothing or is unknown.",
                show_default="text on a terminal, else ndjson",
            ),
            option(
                *("--output-as", "outputs_as"),
                multiple=True,
                type=(click.Choice([*SINKS, "parquet"]), str),
                metavar="FORM FILE",
                help="Write to FILE in that form, whatever its suffix. Repeatable. Nmap's `-oX FILE`, `-oN FILE`, "
                "`-oG FILE` and `-oA BASE` are taken as this.",
            ),
            option(
                *("--open", "open_only"),
                is_flag=True,
                help="Write only rows of ports that are `open` or `open|filtered`. Segments of `--state` hold all.",
            ),
            option(
                "--fingerprints", metavar="FILE", help="Collect the SF-Port fingerprints of unknown services in FILE."
            ),
            option(
                "--state",
                metavar="DIR",
                help="Write the rows to compressed segments in DIR, which survive any crash; see docs/state.md.",
            ),
            option("--resume", is_flag=True, help="Go on with the run in `--state DIR`, given the same inputs."),
            option(
                *("--sink", "sinks"),
                multiple=True,
                metavar="URL",
                help="Bring the rows of `--state DIR` on, each exactly once, to `parquet:PATH`, `ndjson+zstd:PATH`, "
                "`delta:PATH`, `iceberg:CATALOG/NAMESPACE.TABLE`, `kafka:BROKER:PORT/TOPIC` or `postgres:TABLE`. A "
                "PATH may be `s3://`, `gs://` or `az://`. Repeatable; see docs/lake.md.",
            ),
            option(
                "--scan-name",
                metavar="NAME",
                help="The scan's name in tables.",
                show_default="its time and a random part",
            ),
            option(
                "--sink-size",
                type=Bytes(),
                default=Terms().size,
                metavar="SIZE",
                show_default="128M",
                help="Size of the files that a sink writes, about.",
            ),
            option(
                "--sink-seconds",
                type=Seconds(),
                default=Terms().seconds,
                metavar="TIME",
                show_default=told_time(Terms().seconds),
                help="Longest time until rows that are committed are seen at a sink; shorter makes smaller files.",
            ),
            option(
                "--delete-delivered",
                is_flag=True,
                help="Delete each segment of the state folder once every `--sink` has it.",
            ),
            option(
                *("--rows", "rows"),
                type=click.Choice(["lean", "full"]),
                default="lean",
                help="NDJSON rows without what is absent, or with every field: null where absent, zeros written.",
            ),
            option(
                "--segment-size",
                type=Bytes(),
                default=SEGMENT_SIZE,
                metavar="SIZE",
                show_default="64M",
                help="Largest size of a segment.",
            ),
            option(
                "--segment-seconds",
                type=Seconds(),
                default=SEGMENT_S,
                metavar="TIME",
                show_default=told_time(SEGMENT_S),
                help="Longest time until a segment is closed.",
            ),
        ),
        "probemill scan -i targets.txt -o rows.ndjson.zst -o report.xml",
    ),
    Section(
        "What to ask",
        (
            field("probes", "--probes", metavar="FILE", many=True),
            field("recog", "--recog", metavar="DIR"),
            field("second_opinion", "--second-opinion", metavar="FILE"),
            field("matcher", "--matcher"),
            field("generation", "--generation"),
            field("intensity", "--intensity", "--version-intensity"),
            option("--light", "--version-light", "light", is_flag=True, help="The same as `--intensity 2`."),
            option("--all", "--version-all", "everything", is_flag=True, help="The same as `--intensity 9`."),
            option(
                "--post",
                metavar="NAME,...",
                help="More post-processing, which costs further connections: `ssh`, `ssh-keys`, `starttls`, "
                "`rdp`, `ntlm`, `smb2`, `web`, `http2`, `quic`, `jarm`, `sharing`, `rpc-unknown`, or `all`; and `ja4`, "
                "which costs none. See docs/post.md.",
            ),
            option("--no-post", is_flag=True, help="No post-processing and no RPC grinding."),
            field("alpn", "--alpn", metavar="NAME,..."),
            field("allports", "--allports"),
            field("spare_fragile", "--spare-fragile"),
            field("timing", "--timing"),
            field("trace", "--version-trace"),
        ),
        "probemill scan 192.0.2.7:8080 --intensity 9 --version-trace",
    ),
    Section(
        "How fast",
        (
            field("workers", "--workers", default=None),
            field("max_inflight", "--max-inflight"),
            option(
                "--max-parallelism", type=click.IntRange(0), default=0, metavar="N", help="Nmap's `--max-inflight`."
            ),
            option(
                "--min-parallelism",
                type=click.IntRange(0),
                default=0,
                metavar="N",
                help="Accepted for Nmap's sake; it raises a timing template's parallelism.",
            ),
            option(
                *("-T", "template"),
                type=click.IntRange(0, 5),
                metavar="0-5",
                help="Nmap's timing templates: 0 to 2 hold one conversation at a time with Nmap's delays, 3 and 4 are "
                "the defaults here, 5 gives a host 15 minutes.",
            ),
            field("rate", "--rate"),
            field("per_host", "--per-host"),
            field("per_prefix", "--per-prefix"),
            field("host_delay_s", "--host-delay"),
            field("sources", "--source", metavar="ADDR,..."),
            field("source_port", "-g", "--source-port"),
            field("interface", "-e", "--interface", metavar="NAME"),
            field("proxy", "--proxy", metavar="URL", many=True),
            field("reset", "--reset"),
            field("pseudo_ports", "--pseudo-ports"),
        ),
        "probemill scan -i targets.txt --rate 2k --per-host 4",
    ),
    Section(
        "Many machines",
        (
            option(
                "--runner",
                type=click.Choice(["local", "ray"]),
                default="local",
                help="Where the work is done: processes of this machine, or actors on the nodes of a Ray cluster, "
                "which needs `--state DIR` and the extra `ray`; see docs/cluster.md. `--workers` are its actors then, "
                "by default one a core of the cluster; limits hold for the cluster as a whole.",
            ),
            option(
                "--ray-address",
                metavar="HOST:PORT",
                help="The head of the cluster, or `auto` for one that this machine is part of.",
                show_default="$RAY_ADDRESS, else a Ray of this machine alone, started for the scan",
            ),
            option("--ray-options", metavar="FILE", help="Zones, patience and what Ray is told: a TOML file."),
            option(
                "--segments",
                metavar="PLACE",
                help="Where actors put the rows: a folder that every node sees, or `s3://`, `gs://`, `az://`.",
                show_default="the folder of --state, which every node has to see then",
            ),
        ),
        "probemill scan -i targets.txt --state run --runner ray",
    ),
    Section(
        "How patient",
        (
            field("connect_timeout_s", "--connect-timeout"),
            field("tls_timeout_s", "--tls-timeout"),
            field("service_timeout_s", "--service-timeout"),
            field("host_timeout_s", "--host-timeout"),
            field("deadline_s", "--deadline"),
            field("max_bytes", "--max-bytes"),
        ),
        "probemill scan -i targets.txt --connect-timeout 3s --deadline 2h",
    ),
    Section(
        "Seeing it run",
        (
            option(
                "--stats-every",
                type=Seconds(),
                default=0.0,
                metavar="TIME",
                help="The run's numbers as a JSON line on standard error. `SIGUSR1` prints one at any time.",
            ),
            option(
                "--metrics",
                type=Endpoint(),
                metavar="[ADDR:]PORT",
                help="Prometheus metrics at `http://127.0.0.1:PORT/metrics`, or at another address of this machine, "
                "for whoever reaches it; IPv6 in brackets.",
            ),
            option(
                *("-v", "--verbose"),
                count=True,
                help="More on standard error: the settings in full, what of Recog cannot be used; twice for debugging.",
            ),
            option("-q", "--quiet", is_flag=True, help="No live line and no summary."),
        ),
        "probemill scan -i targets.txt -o rows.ndjson --metrics 9100",
    ),
)
# What `-h` shows.
BRIEF = ("inputs", "ports", "outputs", "state", "rate", "intensity", "timing", "blocklist", "quiet", "dry_run")
ALL_OPTIONS = [option for group in GROUPS for option in group.options]
# How many arguments follow the name of an option that has a value.
VALUED = {name: option.nargs for option in ALL_OPTIONS if not (option.is_flag or option.count) for name in option.opts}
