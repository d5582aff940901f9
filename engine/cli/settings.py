"""What becomes of the options of `probemill scan`: its ScanConfig, its inputs, its cluster.

What cannot be obeyed is a ConfigError naming the option.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli.options import DEFAULTS, Options
from engine.errors import ConfigError
from engine.model import ScanConfig
from engine.post import module_names
from engine.run import Inputs
from engine.targets.selection import of_family, select

if TYPE_CHECKING:  # loaded where it is asked for
    from engine.cluster import Cluster

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


def scan_config(options: Options) -> ScanConfig:
    """Everything that concerns the scan itself. Raises ConfigError for options that contradict each other."""
    if options["light"] and options["everything"]:
        raise ConfigError("--light and --all exclude each other")
    inflight, host_delay_s, host_timeout_s = (
        TEMPLATES[options["template"]] if options["template"] is not None else (0, 0.0, 0.0)
    )
    asked = options["max_inflight"] or options["max_parallelism"]
    if options["min_parallelism"] > asked > 0:
        raise ConfigError("--min-parallelism is greater than --max-parallelism")
    ceiling = asked or (max(inflight, options["min_parallelism"]) if inflight else 0)
    workers = options["workers"]
    if options["runner"] == "ray":
        workers = workers or 0  # as many as the cluster has room for
    elif workers is None:
        workers = len(os.sched_getaffinity(0))
    said = {name: options[name] for name in DEFAULTS if name in options}
    return ScanConfig(
        **said
        | {
            "intensity": 2 if options["light"] else 9 if options["everything"] else options["intensity"],
            "post": post_modules(options),
            "workers": min(workers, ceiling) if ceiling else workers,
            "max_inflight": ceiling,
            "host_delay_s": options["host_delay_s"] or host_delay_s,
            "sources": source_addresses(options),
            "alpn": tuple(options["alpn"].split(",")) if options["alpn"] else (),
            "proxy": proxy_chain(options["proxy"]),
            "host_timeout_s": options["host_timeout_s"] or host_timeout_s,
        }
    )


def scan_cluster(options: Options) -> "Cluster | None":
    """The cluster that was asked for. Raises ConfigError."""
    if options["runner"] == "ray":
        if options["trace"]:
            raise ConfigError("--version-trace: not with --runner ray, whose nodes have no terminal")
        from engine.cluster import open_cluster

        return open_cluster(options["ray_address"] or "", options["ray_options"] or "")
    for name in ("ray_address", "ray_options"):
        if options[name]:
            raise ConfigError(f"--{name.replace('_', '-')} needs --runner ray")
    return None


def source_addresses(options: Options) -> tuple[str, ...]:
    return tuple(options["sources"].split(",")) if options["sources"] else ()


def proxy_chain(words: Sequence[str]) -> tuple[str, ...]:
    """The URLs of proxies: as written, or of a file or a variable, so that no password need stand on a command line.

    `@FILE` has one a line, `#` begins a comment; `env:NAME` has them with blanks between. Raises ConfigError.
    """
    urls: list[str] = []
    for word in words:
        if word.startswith("@"):
            try:
                lines = Path(word[1:]).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeError) as error:
                raise ConfigError(f"--proxy {word}: {getattr(error, 'strerror', None) or 'not a text'}") from None
            said = [line for line in map(str.strip, lines) if line and not line.startswith("#")]
        elif word.startswith("env:"):
            said = os.environ.get(word[4:], "").split()
        else:
            said = [word]
        if not said:
            raise ConfigError(f"--proxy {word}: there is no URL in it")
        urls += said
    return tuple(urls)


def post_modules(options: Options) -> tuple[str, ...]:
    """The default modules, those that were named, or none. Raises ConfigError for a name that no module has."""
    named = tuple(options["post"].split(",")) if options["post"] else ()
    if named and options["no_post"]:
        raise ConfigError("--post and --no-post exclude each other")
    return () if options["no_post"] else module_names(("default", *named))


def scan_inputs(options: Options, config: ScanConfig) -> Inputs:
    """The targets that were named. Raises ConfigError, InputError for lists that cannot be used."""
    if not options["targets"] and not options["inputs"]:
        raise ConfigError("no targets: name some, or give a file with -i (see probemill scan -h)")
    selection = select(config)
    if options["ipv4"] or options["ipv6"]:
        if options["ipv4"] and options["ipv6"]:
            raise ConfigError("-4 and -6 exclude each other; without them a target may have either")
        selection = of_family(selection, 4 if options["ipv4"] else 6)
    return Inputs(options["targets"], options["inputs"], options["input_format"], selection)
