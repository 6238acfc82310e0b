"""The section on `serve` in docs/reliability.md: the service as a process of its own, attacked while it runs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import say

from hostile import high_water
from hostile_settings import BAD_FILES, remove
from serve_process import Serving, serving


@dataclass(frozen=True)
class Attack:
    """One line of a table: what was done to the service, what came of it, and its largest memory until then."""

    what: str
    happened: str
    seconds: float
    mib: float

    def line(self) -> str:
        return f"| {_cell(self.what)} | {_cell(self.happened)} | {self.seconds:.1f} | {self.mib:.0f} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def service_faults(folder: Path) -> str:
    """Every kind of attack on a service of its own, a table a kind."""
    kinds: list[tuple[str, Callable[[Path], list[Attack]]]] = [("The file of streams, read again (SIGHUP)", _reloads)]
    parts = ["## The service under attack", "", "Seconds count until the service had dealt with it."]
    for title, attack in kinds:
        place = folder / attack.__name__.strip("_")
        place.mkdir()
        parts += ["", f"### {title}", "", _table(attack(place))]
    return "\n".join(parts)


def _table(rows: Sequence[Attack]) -> str:
    head = ["| what was done | what happened | seconds | peak MiB |", "| --- | --- | ---: | ---: |"]
    return "\n".join([*head, *(row.line() for row in rows)])


def _told(service: Serving, folder: Path) -> str:
    """The service's last line without its time and this script's folder."""
    return service.said().splitlines()[-1].partition(" ")[2].replace(f"{folder}/", "")


def _reloads(folder: Path) -> list[Attack]:
    config, sound = folder / "streams.toml", '[streams.door]\nurl = "rtsp://127.0.0.1:1/x"\n'
    config.write_text(sound)
    rows = []
    with serving(folder, "--config", config, "--http", "off") as service:

        def reloaded(what: str, condition: Callable[[], bool]) -> None:
            began = time.monotonic()
            service.process.send_signal(signal.SIGHUP)
            service.until(condition, what)
            seconds = time.monotonic() - began
            rows.append(Attack(what, _told(service, folder), seconds, high_water(service.process.pid)))
            say(f"{what}: {seconds:.1f} s")

        service.until(lambda: "watching" in service.said(), "its start")
        for number, bad in enumerate(BAD_FILES, 1):
            remove(config)
            bad.put(config)
            reloaded(bad.what, lambda number=number: service.said().count("not taken") == number)
        remove(config)
        config.write_text(sound.replace("door", "hall"))
        reloaded("a sound file after all of them", lambda: "1 new, 0 changed, 1 gone" in service.said())
    return rows
