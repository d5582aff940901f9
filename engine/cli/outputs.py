"""What a scan writes: which files, in which forms, and which of them cannot be.

Contract: all of it is said before anything is opened. `Output.option` is how a person named the file.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from engine.cli.files import check_outputs
from engine.cli.options import Options
from engine.databases import database_files
from engine.errors import ConfigError
from engine.model import ScanConfig
from engine.results.sinks import STDOUT
from engine.results.suffixes import FORMS, PACKINGS, read_name


class Output(NamedTuple):
    """form: a key of SINKS, or `parquet`."""

    option: str
    path: str
    form: str


def outputs(options: Options, config: ScanConfig) -> list[Output]:
    """In the order of the options. Raises ConfigError for a name that asks for no form, or that is taken."""
    found = [Output("-o", path, _form(path, options)) for path in _paths(options)]
    found += [Output(f"--output-as {form}", path, form) for form, path in options["outputs_as"]]
    if options["fingerprints"]:
        found.append(Output("--fingerprints", options["fingerprints"], "fingerprints"))
    if options["open_only"] and not found:
        raise ConfigError("--open is for what -o writes; the segments of --state hold every row")
    _check(found, options, config)
    return found


def _paths(options: Options) -> tuple[str, ...]:
    elsewhere = options["state"] or options["outputs_as"]
    return options["outputs"] or (() if elsewhere else (STDOUT,))


def _form(path: str, options: Options) -> str:
    name = read_name(path)
    if name.suffix and not (name.form or options["form"] or _is_no_file(path)):
        known = f"known are {', '.join(FORMS)}, with {' or '.join(PACKINGS)} behind them to compress"
        raise ConfigError(f"-o {path}: no form is known by {name.suffix}; {known}; or say what you want by --format")
    return name.form or options["form"] or ("text" if sys.stdout.isatty() else "ndjson")


def _is_no_file(path: str) -> bool:
    """Whether a name leads to a device or a pipe, whose suffix says nothing."""
    with suppress(OSError):
        return Path(path).exists() and not Path(path).is_file()
    return False


def _check(found: list[Output], options: Options, config: ScanConfig) -> None:
    """Raises ConfigError for an output that is an input or another output, or in the folder of the run."""
    if options["state"]:
        place = os.path.realpath(options["state"])
        for output in found:
            folder = os.path.dirname(os.path.realpath(output.path))  # noqa: PTH120 - it may not exist
            if output.path != STDOUT and folder == place:
                raise ConfigError(
                    f"{output.option} {output.path}: is in the folder of --state, the run's own; name another file"
                )
    inputs = [
        *(("-i", path) for path in options["inputs"]),
        *(("--blocklist", entry) for entry in config.blocklist),
        *(("--allowlist", entry) for entry in config.allowlist),
        *(("--probes", str(path)) for path in database_files(config.probes)),
        *(("--recog", path) for path in (config.recog,) if path),
        *(("--state", path) for path in (options["state"],) if path),
    ]
    check_outputs(((output.option, output.path) for output in found), inputs)
