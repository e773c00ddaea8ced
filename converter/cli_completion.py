"""The command that tells shells how to complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from converter.cli_answer import reports

if TYPE_CHECKING:
    from converter.report import Report

_PROGRAMS = ("convert", "checkpoint-convert")


@click.command(
    epilog='Examples:  convert completion fish | source;  eval "$(convert completion bash)"'
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@reports
def completion(shell: str) -> Report:
    """Print what makes SHELL complete commands, options, models and their variants.

    Put the line of the example where your shell starts: ~/.bashrc, ~/.zshrc, or
    ~/.config/fish/config.fish. It holds for the name by which the program was called.
    """
    from converter.report import Report

    root = click.get_current_context().find_root()
    program = root.info_name if root.info_name in _PROGRAMS else _PROGRAMS[0]
    script = script_for(shell, root.command, program)
    return Report("completion", script, {"shell": shell, "program": program, "script": script})


def script_for(shell: str, command: click.Command, program: str) -> str:
    """Return the script of click by which ``shell`` completes the arguments of ``program``."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    made = kind(command, {}, program, variable)
    # Not its source(), which starts a shell to look at its version.
    return (made.source_template % made.source_vars()).strip("\n")
