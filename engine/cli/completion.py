"""`probemill completion`: what a shell has to be told so that Tab completes our commands, by click's own machinery.

The shell asks the command itself: `_PROBEMILL_COMPLETE=bash_complete probemill`. Of the commands, only the one whose
options are wanted is imported then. click's scripts know values behind a blank only; what is here adds
`--option=value`: bash hands over the `=` as a word of its own, zsh and fish as part of the value, which has to keep
what stands before it.
"""

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
)

from engine.cli.help import Command

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "probemill"
VARIABLE = "_PROBEMILL_COMPLETE"


class _Bash(BashComplete):
    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        return (args[:-1] if args[-1:] == ["="] else args), incomplete


class _Zsh(ZshComplete):
    source_template = (
        ZshComplete.source_template.replace(
            "    for type key", "    [[ $PREFIX == --*=* ]] && compset -P 1 '*='\n\n    for type key", 1
        )
        .replace("_with_descriptions -U", '_with_descriptions -U -i "$IPREFIX"')
        .replace("compadd -U", 'compadd -U -i "$IPREFIX"')
    )


class _Fish(FishComplete):
    source_template = FishComplete.source_template.replace(
        "__fish_complete_path $metadata[2];",
        r"""set -l parts (string match -r '^((?:--[^=]*=)?)(.*)' -- $metadata[2]);
            for path in (__fish_complete_path $parts[3]);
                echo $parts[2]$path;
            end;""",
    ).replace('split ","', 'split --max 1 ","')  # a value may be names with commas

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        items = super().get_completions(args, incomplete)
        name, equals, _ = incomplete.partition("=")
        if equals and name.startswith("--"):
            for item in items:
                item.value = f"{name}={item.value}"
        return items


def register() -> None:
    """Have click use these. To be called before a shell is answered."""
    for kind in (_Bash, _Zsh, _Fish):
        add_completion_class(kind)


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
    register()
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    # Not `kind.source`: it starts a bash to see how old it is.
    click.echo(ShellComplete.source(kind(root, {}, PROGRAM, VARIABLE)))
