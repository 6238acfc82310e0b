"""The command line: selects and runs a command, and turns every error into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence

import click
from click.exceptions import NoArgsIsHelpError
from click.shell_completion import shell_complete

from streamgate import __version__
from streamgate.commands.help import Group, write_sections
from streamgate.commands.signals import INTERRUPTED, answer_signals, was_interrupted
from streamgate.commands.stdio import take_over
from streamgate.errors import SinkError, StreamgateError, UsageError, escaped, unexpected
from streamgate.redaction import scrub

COMMANDS = {
    "Find faces": ("run", "score", "serve", "demo"),
    "Use the results in a run folder OUT": ("people", "tune", "report", "clips", "export", "replay", "merge"),
    "Check measures against human labels": ("label", "fit", "compare"),
    "Show and manage measures and weights": ("measures", "models"),
}
"""The command NAME is the object NAME in the module streamgate.commands.NAME. The top level of that module imports only
what is fast to import."""
COMPLETE = "_STREAMGATE_COMPLETE"
"""Environment variable with which a shell requests completions."""


class _LazyGroup(Group):
    """Imports a command only when it is used, so that it does not wait for the imports of other commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in COMMANDS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = getattr(importlib.import_module(f"streamgate.commands.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections = {
            title: [(name, command.get_short_help_str()) for name in names if (command := self.get_command(ctx, name))]
            for title, names in COMMANDS.items()
        }
        write_sections(formatter, sections)


@click.command(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""
    streamgate run footage/ -o faces
    streamgate demo
    streamgate run --help
    """,
)
@click.version_option(__version__, "-V", "--version", prog_name="streamgate")
def cli() -> None:
    """Find the best frontal, sharp face of every track in your footage, with the scores that explain the choice."""


def main() -> None:
    """Entry point of `streamgate`."""
    take_over()
    answer_signals()
    # Otherwise, OpenCV prints its own warnings about damaged pictures. It reads the variable when it is imported.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    warnings.formatwarning = _format_warning
    if instruction := os.environ.get(COMPLETE):
        sys.exit(_guarded(lambda: shell_complete(cli, {}, "streamgate", COMPLETE, instruction), []))
    code = call(sys.argv[1:])
    if code == INTERRUPTED:
        # Skip Python's shutdown, during which another interrupt would change the exit code. All cleanup is done.
        os._exit(code)
    sys.exit(code)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"streamgate: warning: {escaped(str(message))}\n"


def call(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; returns the exit code. Errors are reported on stderr."""

    def work() -> int:
        # Not cli.main(), which handles interrupts and closed pipes differently.
        with cli.make_context("streamgate", list(arguments)) as context:
            return int(cli.invoke(context) or 0)

    code = _guarded(work, arguments)
    # Flush now, because a failed write could not be reported when the interpreter exits.
    return _guarded(_flush, arguments) or code


def _guarded(work: Callable[[], int], arguments: Sequence[str]) -> int:
    """Return what `work` returns; if it raises an error, report the error in one line and return its exit code."""
    try:
        return work()
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _end_interrupted()
    except NoArgsIsHelpError as error:
        error.show()
        return UsageError.exit_code
    except click.ClickException as error:
        _print_error(error.format_message(), arguments)
        if isinstance(error, click.UsageError):
            command = error.ctx.command_path if error.ctx else "streamgate"
            click.echo(f"Try '{command} --help'.", err=True)
        return UsageError.exit_code
    except StreamgateError as error:
        if was_interrupted():
            return _end_interrupted()
        _print_error(str(error), arguments)
        return error.exit_code
    except BrokenPipeError:
        # The process that read the output has exited, so the error cannot be reported.
        return SinkError.exit_code
    except Exception as error:
        if was_interrupted():
            return _end_interrupted()
        if os.environ.get("STREAMGATE_DEBUG"):
            raise
        _print_error(str(unexpected(error, *arguments)), arguments)
        return 1


def _end_interrupted() -> int:
    click.echo("streamgate: interrupted", err=True)
    return INTERRUPTED


def _print_error(text: str, arguments: Sequence[str]) -> None:
    click.echo(f"streamgate: {escaped(scrub(text, *arguments))}", err=True)


def _flush() -> int:
    if sys.stdout is not None:
        sys.stdout.flush()
    return 0
