"""The `probemill` command with its subcommands, and what becomes of errors: one line and an exit code.

Exit codes: 0 all was used and done; 1 something was skipped or went wrong on the way (lines that are no targets, an
output that failed, a deadline); 2 nothing could be done (an option, a database or an input that cannot be used);
130 somebody ended it.
"""

import os
import sys
from contextlib import suppress
from typing import NoReturn

import click

from engine import __version__
from engine.cli.cluster import cluster_group
from engine.cli.compact import compact_command
from engine.cli.convert import convert_command
from engine.cli.db import db_group
from engine.cli.match import match_command
from engine.cli.plan import plan_command
from engine.cli.report import report_command
from engine.cli.scan import scan_command
from engine.cli.schema import schema_command
from engine.cli.start import INTERRUPTED, LINE, Interrupted, interrupt, listen
from engine.cli.state import state_command
from engine.errors import ConfigError, EngineError, InputError
from engine.results.sinks import SinkClosed
from matcher import MatcherError, shown

STREAMS = (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="probemill")
def cli() -> None:
    """Identify the services behind open ports, with Nmap's answers.

    Scan only hosts that you own or may scan.
    """


cli.add_command(scan_command)
cli.add_command(match_command)
cli.add_command(compact_command)
cli.add_command(convert_command)
cli.add_command(db_group)
cli.add_command(plan_command)
cli.add_command(report_command)
cli.add_command(schema_command)
cli.add_command(state_command)
cli.add_command(cluster_group)


def main() -> NoReturn:
    """Run the command line and exit; errors that we know become one line and an exit code."""
    listen(interrupt)
    try:
        _open_standard_streams()
        cli.main(prog_name="probemill", standalone_mode=False)
    except (click.exceptions.Abort, Interrupted):
        os.write(2, LINE)
        _leave_at_once(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        _leave(error.exit_code)
    except click.exceptions.Exit as done:
        _leave(done.exit_code)
    except SystemExit as done:
        if done.code == INTERRUPTED:
            _leave_at_once(INTERRUPTED)
        _leave(done.code if isinstance(done.code, int) else bool(done.code))
    except (BrokenPipeError, SinkClosed):
        _silence_stdout()
    except (EngineError, MatcherError) as error:
        click.echo(f"probemill: {shown(str(error))}", err=True)
        _leave(2 if isinstance(error, ConfigError | InputError | MatcherError) else 1)
    except OSError as error:  # of the process itself: descriptors, memory, a full disk behind standard output
        with suppress(OSError):
            click.echo(shown(f"probemill: {error.filename or 'system'}: {error.strerror or error}"), err=True)
        _silence_stdout()
        _leave(1)
    _leave(0)


def _leave(code: int) -> NoReturn:
    """Of a cluster that was lost, and so never left, Ray has threads that crash an interpreter which ends."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        _leave_at_once(code)
    sys.exit(code)


def _leave_at_once(code: int) -> NoReturn:
    """Threads that still compile or write are not waited for."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _open_standard_streams() -> None:
    """Streams that the caller has closed: no socket may take their numbers. Writing to such an output is an error."""
    for number, (name, flags) in enumerate(STREAMS):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, flags)
            os.dup2(null, number)
            if null != number:
                os.close(null)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _silence_stdout() -> None:
    """What is still buffered goes nowhere, instead of failing once more when the interpreter ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
