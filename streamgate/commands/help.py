"""Layout of `--help`: options in sections, usage examples, and untruncated summaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import click

_WIDEST = 28
"""Names longer than this have their help text on the next line."""


class _Option(click.Option):
    """An option that `--help` lists under the title `section`."""

    def __init__(self, *names: Any, section: str, **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.section = section


def section(title: str) -> Callable[..., Callable[..., Any]]:
    """A decorator like `click.option`, for options that are listed under `title`."""
    return partial(click.option, cls=_Option, section=title)


class Command(click.Command):
    """A command whose `epilog` is a list of examples, one per line."""

    def get_short_help_str(self, limit: int = 45) -> str:
        """The summary in a list of commands: the first paragraph of the help, wrapped instead of truncated."""
        return " ".join((self.help or "").partition("\n\n")[0].split()).removesuffix(".")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options by section, in the order in which they are declared."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or isinstance(parameter, click.Argument):
                continue
            sections.setdefault(getattr(parameter, "section", ""), []).append(record)
        # Options without a section: all options of a small command, or the remaining few of a large one.
        titles = {"": "Options" if next(iter(sections)) == "" else "Other options"}
        write_sections(formatter, {titles.get(title, title): rows for title, rows in sections.items()})

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples unwrapped."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line.strip()}\n")


def write_sections(formatter: click.HelpFormatter, sections: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Write lists of names and help texts under titles, with all help texts aligned in one column."""
    lengths = [len(name) for records in sections.values() for name, _ in records]
    width = max((length for length in lengths if length <= _WIDEST), default=0)
    for title, records in sections.items():
        with formatter.section(title):
            formatter.write_dl([(f"{name:{width}}", text) for name, text in records], col_max=width)


class Group(Command, click.Group):
    """A command group whose help shows usage examples, as does the help of each of its commands."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, then the options."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)
