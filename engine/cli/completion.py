"""`probemill completion`: what a shell has to be told so that Tab completes our commands, by click's own machinery.

The shell asks the command itself: `_PROBEMILL_COMPLETE=bash_complete probemill`. Of the commands, only the one whose
options are wanted is imported then.
"""

import click
from click.shell_completion import ShellComplete, get_completion_class

from engine.cli.help import Command

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "probemill"
VARIABLE = "_PROBEMILL_COMPLETE"


@click.command(
    "completion",
    cls=Command,
    examples=(
        'eval "$(probemill completion bash)"',
        "probemill completion fish | source",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> None:
    """Print what makes SHELL complete our commands.

    That is commands, options, their choices, and names of files. To have it in every session, keep it where the
    shell looks:

    \b
    bash  ~/.local/share/bash-completion/completions/probemill
    zsh   a folder of $fpath, as _probemill; compinit has to run after it
    fish  ~/.config/fish/completions/probemill.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    # Not `kind.source`: it starts a bash to see how old it is.
    click.echo(ShellComplete.source(kind(root, {}, PROGRAM, VARIABLE)))
