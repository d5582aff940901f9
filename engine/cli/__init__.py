"""The `probemill` command: one file per command; the only place that prints or exits.

Exit codes: 0 done; 1 done, but something went wrong on the way (an output failed, rows were refused); 2 nothing could
be done (an option, a database or an input that cannot be used).
"""

import sys

import click

from engine.cli.db import db_group
from engine.cli.match import match_command
from engine.cli.scan import scan_command, schema_command
from engine.cli.state import state_command
from engine.errors import ConfigError, EngineError, InputError
from matcher import MatcherError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="probemill")
def cli() -> None:
    """Identify the services behind open ports, with Nmap's answers.

    Scan only hosts that you own or may scan.
    """


cli.add_command(scan_command)
cli.add_command(match_command)
cli.add_command(db_group)
cli.add_command(schema_command)
cli.add_command(state_command)


def main() -> None:
    """Run the command line; errors that we know become one line and an exit code."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except (EngineError, MatcherError) as error:
        click.echo(f"probemill: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError | InputError | MatcherError) else 1)
    except BrokenPipeError:
        sys.exit(0)
