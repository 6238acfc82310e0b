"""Options and argument types that several commands share."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from streamgate.commands.help import section
from streamgate.defaults import DEFAULT_MODELS
from streamgate.store.layout import not_local


class _LocalPath(click.Path):
    """A non-empty path of a local file or folder; with `or_address`, also an address in an object store, as text."""

    def __init__(self, *, or_address: bool = False, path_type: type | None = None) -> None:
        # Click's own check for unreadable files is off, because it exits with another code than the commands do.
        super().__init__(readable=False, path_type=path_type)
        self._or_address = or_address

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = os.fsdecode(value)
        is_address = re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) and not text.lower().startswith(("file://", "http"))
        if self._or_address and is_address:
            return text
        if problem := not_local(text):
            self.fail(problem, param, ctx)
        return super().convert(value, param, ctx)


def timecode(text: str) -> float:
    """Convert a time in a video, such as 90, 1:30 or 1:02:03.5 (seconds, M:S or H:M:S), to seconds."""
    parts = text.split(":")
    numbers = [part for part in parts if re.fullmatch(r"[0-9]{1,7}", part)]
    if len(parts) > 3 or len(numbers) < len(parts) - 1 or not re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,9})?", parts[-1]):
        raise click.BadParameter(f"{text!r} is not a time; write seconds, M:S or H:M:S, such as 90, 1:30 or 1:02:03.5")
    return sum(float(part) * 60.0**power for power, part in enumerate(reversed(parts)))


def job_count(text: str) -> int:
    """Convert a number of jobs, 1 to 64, to an integer; "auto" becomes 0."""
    if text == "auto":
        return 0
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= 64:
        raise click.BadParameter(f"{text!r} is neither a number from 1 to 64 nor 'auto'")
    return int(text)


TEXT_PATH = click.Path(readable=False)
"""A path or pattern, kept as it was typed; shells complete it like a path."""
PATH = _LocalPath(path_type=Path)
PATH_OR_ADDRESS = _LocalPath(or_address=True, path_type=Path)
LOCAL_TEXT = _LocalPath()
"""A local path as text."""


def complete_folders(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete folder names."""
    return [CompletionItem(incomplete, type="dir")]


def complete_models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    known = _words(incomplete, "embedded", "open", "standard", "imported")
    return known or complete_folders(context, parameter, incomplete)


def complete_presets(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _words(incomplete, "studio", "live", "archive") or [CompletionItem(incomplete, type="file")]


def complete_devices(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _words(incomplete, "auto", "cpu", "cuda")


def _words(incomplete: str, *words: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


results_argument = click.argument("out", metavar="OUT", type=PATH, shell_complete=complete_folders)
quiet_option = click.option("--quiet", is_flag=True, help="Print errors only.")

_settings = section("Settings and networks")

models_option = _settings(
    "--models", default=DEFAULT_MODELS, show_default=True, metavar="SET[,SET]",
    shell_complete=complete_models,
    help="Weights to use: embedded, open, standard, imported, or a folder. If several sets are given, the first set "
    "that has a network for a role is used for that role.",
)  # fmt: skip
preset_option = _settings(
    "--preset", default="studio", show_default=True, metavar="NAME|FILE", shell_complete=complete_presets,
    help="Settings to start from: studio, live, archive, or a TOML file.",
)  # fmt: skip
set_option = _settings(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="Override a key of the preset, for example measures.yaw.max=20. Repeatable.",
)  # fmt: skip
device_option = _settings(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", shell_complete=complete_devices,
    help="Where the networks run.",
)  # fmt: skip

_faces = section("Which faces are kept")

min_size_option = _faces(
    "--min-size", type=float, metavar="PX",
    help="Minimum face size: the shorter side of the face's box, in source pixels.",
)  # fmt: skip
max_yaw_option = _faces(
    "--max-yaw", type=float, metavar="DEG", help="Maximum angle by which a kept face is turned sideways."
)

_events = section("Events")

sink_retry_option = _events(
    "--sink-retry", type=click.FloatRange(0, 86400), default=30.0, show_default=True, metavar="SECONDS",
    help="How long to keep retrying a sink that is unreachable or full.",
)  # fmt: skip
