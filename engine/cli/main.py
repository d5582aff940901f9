"""The `probemill` command with its subcommands, and what becomes of errors: one line and an exit code.

Exit codes: 0 all was used and done; 1 something was skipped or went wrong on the way (lines that are no targets, an
output that failed, a deadline); 2 nothing could be done (an option, a database or an input that cannot be used);
130 somebody ended it.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import click

from engine import __version__
from engine.cli.help import Group, coloured
from engine.cli.lazy import Commands, Place
from engine.cli.start import INTERRUPTED, LINE, Interrupted, heard, interrupt, leave_nothing_behind, listen
from engine.errors import ConfigError, EngineError, InputError, SinkClosed
from matcher import MatcherError, shown

LAST_S = 1.0  # for the last words
STREAMS = (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))

# Each command: where it stands, and what it does, as the first sentence of its help.
COMMANDS = {
    "scan": Place(
        "engine.cli.scan:scan_command", "Identify the services on each TARGET and on the targets of the input files."
    ),
    "plan": Place("engine.cli.plan:plan_command", "Tell what a scan of each TARGET, or of so many targets, will take"),
    "top": Place("engine.cli.top.command:top_command", "Watch a running scan from another terminal."),
    "match": Place("engine.cli.match:match_command", "Identify stored responses again, without touching a host."),
    "convert": Place("engine.cli.convert:convert_command", "Bring the rows of scans that are done into another form."),
    "report": Place("engine.cli.report:report_command", "Make a report of what scans found."),
    "diff": Place("engine.cli.diff:diff_command", "Tell how two scans differ, target by target."),
    "learn": Place("engine.cli.learn:learn_command", "Propose match lines for what nobody named."),
    "compact": Place("engine.cli.compact:compact_command", "Merge the small files that sinks have written."),
    "state": Place("engine.cli.state:state_command", "Print what is done in the state folder DIR, as JSON."),
    "schema": Place("engine.cli.schema:schema_command", "Print the schema of a result row."),
    "db": Place("engine.cli.db:db_group", "Check a probe database, and explain what it says."),
    "cluster": Place("engine.cli.cluster:cluster_group", "Look after the machines of a cluster."),
    "completion": Place("engine.cli.completion:completion_command", "Print what makes SHELL complete our commands."),
}


@click.group("probemill", cls=Group, commands=Commands(COMMANDS))
@click.version_option(__version__, prog_name="probemill")
def cli() -> None:
    """Identify the services behind open ports, with Nmap's answers.

    Scan only hosts that you own or may scan.
    """


def main() -> NoReturn:
    """Run the command line and exit; errors that we know become one line and an exit code."""
    try:
        _open_standard_streams()
        _forget_what_means_nothing()
        cli.commands.get("".join(sys.argv[1:2]))  # until it is imported there is nothing to put in order
        gc.enable()
        gc.freeze()
        if "_PROBEMILL_COMPLETE" in os.environ:
            from engine.cli.completion import register

            register()
        listen(interrupt)
        cli.main(prog_name="probemill", standalone_mode=False)
    except (click.exceptions.Abort, Interrupted, KeyboardInterrupt):
        _leave_interrupted()
    except click.exceptions.NoArgsIsHelpError as help_wanted:
        help_wanted.show()
        _leave(help_wanted.exit_code)
    except click.ClickException as error:
        _fail(_usage_fault(error), error.exit_code)
    except click.exceptions.Exit as done:
        _leave(done.exit_code)
    except SystemExit as done:
        if done.code == INTERRUPTED:
            listen(signal.SIG_IGN)
            _leave_at_once(INTERRUPTED)
        _leave(done.code if isinstance(done.code, int) else bool(done.code))
    except (BrokenPipeError, SinkClosed):
        _silence_stdout()
    except (EngineError, MatcherError) as error:
        _fail(shown(str(error)), 2 if isinstance(error, ConfigError | InputError | MatcherError) else 1)
    except OSError as error:  # of the process itself: descriptors, memory, a full disk behind standard output
        _silence_stdout()
        _fail(shown(f"{error.filename or 'system'}: {error.strerror or error}"), 1)
    if heard:  # and what was raised got lost in somebody's bare `except`
        _leave_interrupted()
    _leave(0)


def _usage_fault(error: click.ClickException) -> str:
    """What is wrong with the command as it was typed, and where help is."""
    message = error.message
    if similar := getattr(error, "possibilities", None):
        message = f"{message.rstrip('.')}; did you mean {similar[0]!r}?"
    elif isinstance(error, click.BadParameter):
        message = error.format_message()
    elif isinstance(error, click.UsageError) and error.ctx is not None and error.ctx.command is cli:
        message = f"{message.rstrip('.')}; a scan is `{cli.name} scan ...`"
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"\nTry '{context.command_path} -h' for help." if context is not None else ""
    message = " ".join(message.split())
    return f"{shown(message[:1].lower() + message[1:])}{hint}"


def _fail(line: str, code: int) -> NoReturn:
    """Say what is wrong, and leave."""
    name = click.style("probemill:", fg="red", bold=True) if coloured(sys.stderr) else "probemill:"
    if not _spoken(partial(click.echo, f"{name} {line}", err=True, color=True)):
        os._exit(code)  # streams that take nothing are not flushed
    _leave(code)


def _spoken(words: Callable[[], object]) -> bool:
    """Whether that was written: a terminal that stands still keeps nobody from leaving."""
    from engine.threads import Desk  # and asyncio, which a plain start does without

    desk = Desk()
    desk.post(words)
    return desk.settle(LAST_S)


def _leave(code: int) -> NoReturn:
    """Of a cluster that was lost, and so never left, Ray has threads that crash an interpreter which ends."""
    leave_nothing_behind()
    listen(signal.SIG_IGN)  # all is said and done
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        _leave_at_once(code)
    sys.exit(code)


def _leave_interrupted() -> NoReturn:
    """With one line, however often it is asked for."""
    listen(signal.SIG_IGN)
    _spoken(partial(os.write, 2, LINE))
    _leave_at_once(INTERRUPTED)


def _leave_at_once(code: int) -> NoReturn:
    """Threads that still prepare or write are not waited for."""
    leave_nothing_behind()
    for stream in (sys.stdout, sys.stderr):
        if not _spoken(stream.flush):
            break
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


def _forget_what_means_nothing() -> None:
    """Variables that containers and CI set to 0, where libraries take that for a width, and for a wish."""
    for name in ("COLUMNS", "FORCE_COLOR"):
        if os.environ.get(name) == "0":
            del os.environ[name]


def _silence_stdout() -> None:
    """What is still buffered goes nowhere, instead of failing once more when the interpreter ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
