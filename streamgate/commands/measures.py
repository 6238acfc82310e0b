"""`streamgate measures`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from streamgate.commands.help import Command
from streamgate.commands.options import preset_option, set_option

if TYPE_CHECKING:
    from rich.table import Table

    from streamgate.config import Config


@click.command(
    cls=Command,
    epilog="""
    streamgate measures
    streamgate measures --preset live --toml > mine.toml
    """,
)
@click.option("--toml", "as_toml", is_flag=True, help="Print the measures as TOML tables, to be copied into a preset.")
@preset_option
@set_option
def measures(as_toml: bool, preset: str, settings: tuple[str, ...]) -> int:
    """List the measures of a face with their purposes, limits and weights.

    For a run, set `use`, `min`, `max` and `weight` of a measure with --set measures.NAME.KEY=VALUE.
    """
    from rich.console import Console

    from streamgate.config import load_config

    config = load_config(preset, settings)
    if as_toml:
        click.echo(_toml(config))
        return 0
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    console.print(_table(config))
    return 0


def _table(config: Config) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("measure", "weight", "limit", "rejected as"):
        table.add_column(name, justify="right" if name == "weight" else "left", no_wrap=True)
    table.add_column("purpose")
    for spec in config.measures.specs:
        values = config.measures[spec.name]
        weight = f"{values.weight:g}" if values.use else "not used"
        limits = "\n".join(f"{limit.key} {values.limit(limit.key):g}" for limit in spec.limits)
        reasons = "\n".join(", ".join(limit.reasons) for limit in spec.limits)
        table.add_row(spec.name, weight, limits, reasons, escape(spec.purpose))
    return table


def _toml(config: Config) -> str:
    tables = []
    for spec in config.measures.specs:
        values = config.measures[spec.name].model_dump(mode="json", exclude_none=True)
        text = {key: _value(value) for key, value in values.items() if value != ""}
        tables.append("\n".join([f"[measures.{spec.name}]", *(f"{key} = {value}" for key, value in text.items())]))
    return "\n\n".join(tables)


def _value(value: object) -> str:
    """The value as TOML; JSON writes plain values and lists the same way."""
    return str(value) if isinstance(value, float) else json.dumps(value)
