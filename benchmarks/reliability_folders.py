"""Rows about output folders from other people, names, full outputs and signals; see `reliability.py`."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from common import say
from reliability_rows import Row, run, sections, told

from support.hostile import high_water
from support.hostile_folders import LINKED_DAYS, LINKS, STORED, Spoiled, contents, live_folder, put
from support.media import astronaut_frames, write_clip
from support.serve_process import serving

START = [sys.executable, "-m", "streamgate"]


def folder_faults(folder: Path) -> str:
    """Damaged output folders, odd names, addresses given as paths, full outputs and signals."""
    frames = astronaut_frames(150, (640, 480), step=0.3, zoom=1.6)
    clips = [write_clip(folder / f"{name}.mp4", frames[number:]) for number, name in enumerate("ab")]
    results = folder / "results"
    run(["run", *clips, "-o", results, "--set", "identity.store=disk"])
    run(["people", results, "name", "p0001", "Ann"])
    run(["tune", results, "--min-size", 2000, "--pictured"])
    run(["tune", results, "--set", "measures.size.min=0.1", "--pictured"])
    links = [_spoiled(one, results, folder / "spoiled", clips[0], watched=True) for one in LINKS]
    links += [_linked_day(what, part, folder / f"live-{what}") for what, part in LINKED_DAYS.items()]
    stored = [_spoiled(one, results, folder / "spoiled", clips[0], watched=False) for one in STORED]
    text = (
        "Exit code 3 means that the results in a folder cannot be read, and 5 that the folder cannot be written. "
        "`tune` ends with 1 if it tuned the other sources, but not the damaged one."
    )
    return sections("Output folders from other people", text, {
        "Links in the folder": links,
        "Stored files": stored,
        "Names, addresses and special files as arguments": [
            *_names(folder / "names", results), *_paths(folder / "paths"),
        ],
        "Full standard output and signals": [*_full(results, clips[0]), *_signals(folder / "signals", results)],
    })  # fmt: skip


def _spoiled(one: Spoiled, results: Path, folder: Path, clip: Path, *, watched: bool) -> Row:
    shutil.rmtree(folder, ignore_errors=True)
    command, elsewhere = put(one, results, folder, clip)
    before = contents(elsewhere)
    ran = run(command)
    words = told(ran, folder) or "done"
    if watched:
        words += "; nothing outside changed" if contents(elsewhere) == before else "; **files outside changed**"
    return Row.of(f"{one.what}: `{one.command.split(' ')[0]}`", words, ran)


def _linked_day(what: str, part: str, folder: Path) -> Row:
    """`serve` with a folder of which one part is a link."""
    began = time.monotonic()
    old = live_folder(folder / "out", folder / "elsewhere", part)
    before = contents(folder / "elsewhere")
    arguments = ("--rtsp", "door=rtsp://127.0.0.1:1/x", "--out", "out", "--max-days", "1", "--http", "off")
    with serving(folder, *arguments) as service:
        service.until(lambda: not old.exists(), "the old face to go")
        mib = high_water(service.process.pid)
        code = service.end()
    changed = contents(folder / "elsewhere") != before
    outside = "**files outside changed**" if changed else "nothing outside changed"
    words = f"the old face next to the link was removed; {outside}"
    say(f"{what} is a link: {code}")
    return Row(f"{what} of a live face is a link: `serve --max-days`", words, time.monotonic() - began, mib, code)


def _row(what: str, command: Sequence[object], folder: Path, also: Callable[[], str] = str, **environment: str) -> Row:
    ran = run(command, **environment)
    words = "; ".join(part for part in (told(ran, folder), also()) if part)
    return Row.of(what, words or "done", ran)


def _names(folder: Path, results: Path) -> list[Row]:
    folder.mkdir()
    formula = '=HYPERLINK("http://x","y")'
    copy = Path(shutil.copytree(results, folder / "copy"))
    run(["people", copy, "name", "p0001", formula])

    def cell() -> str:
        with open(folder / "faces.csv", newline="", encoding="utf-8") as file:
            return f"the cell is `{next(iter(csv.DictReader(file)))['person_name']}`"

    odd = folder / "a\u2028b\x85c.mp4"
    shutil.copy(results.parent / "a.mp4", odd)
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    return [
        _row("`-o ''`", ["run", "x.mp4", "-o", ""], folder),
        _row("`-o s3://bucket/faces`", ["run", "x.mp4", "-o", "s3://bucket/faces"], folder),
        _row("`-o file:///tmp/faces`", ["export", results, "--to", "csv", "-o", "file:///tmp/faces"], folder),
        _row("a name with escapes and a line break", ["report", "a\x1b[31mred\x07\nb"], folder),
        _row("a person named like a formula, exported to CSV",
             ["export", copy, "--to", "csv", "-o", folder / "faces.csv"], folder, cell),
        _row("a clip with U+2028 and U+0085 in its name", ["run", odd, "-o", folder / "odd", "--quiet"], folder,
             lambda: f"{(folder / 'odd' / 'faces.jsonl').read_bytes().count(b'}' + bytes([10]))} face"),
        _row("with LC_ALL=C, a person is named Zoë", ["people", results, "name", "p0001", "Zoë"], folder, **plain),
        _row("with LC_ALL=C, this person is listed", ["people", results], folder, **plain),
    ]  # fmt: skip


def _paths(folder: Path) -> list[Row]:
    folder.mkdir()
    clip = folder.parent / "a.mp4"
    pipe = folder / "pipe.toml"
    os.mkfifo(pipe)
    return [
        _row("`--preset` is a pipe", ["run", clip, "--preset", pipe], folder),
        _row("`--preset /dev/zero`", ["run", clip, "--preset", "/dev/zero"], folder),
        _row("`serve --config` is a pipe", ["serve", "--config", pipe], folder),
        _row("`--only` is a pipe", ["run", clip, "--only", pipe, "-o", folder / "out"], folder),
        _row("`--only /dev/zero`", ["run", clip, "--only", "/dev/zero", "-o", folder / "out"], folder),
        _row("`score` of a pipe", ["score", pipe], folder),
        _row("`--set` with 5,000 digits", ["run", clip, "--set", f"keep.top_k={'9' * 5000}"], folder),
        _row("`--set` with 3,000 brackets", ["run", clip, "--set", f"keep.top_k={'[' * 3000}"], folder),
    ]


def _full(results: Path, clip: Path) -> list[Row]:
    rows = []
    commands = ("--help", "report OUT", "people OUT", "models list", "score PICTURE", "run CLIP -o NEW --json --quiet")
    for words in commands:
        given = {"OUT": results, "CLIP": clip, "NEW": clip.parent / "full", "PICTURE": next(results.glob("*/*/1.png"))}
        began = time.monotonic()
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*START, *(str(given.get(one, one)) for one in words.split(" "))],
                stdout=full, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        happened = done.stderr.strip().replace("streamgate: ", "")
        what = f"standard output is full: `{words.split(' ')[0]}`"
        rows.append(Row(what, happened, time.monotonic() - began, code=done.returncode))
    return rows


def _signals(folder: Path, results: Path) -> list[Row]:
    (folder / "tmp").mkdir(parents=True)
    with (
        zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.pth", "w", force_zip64=True) as file,
    ):
        for _ in range(400):
            file.write(bytes(1 << 20))
    half = results / ".clips.tmp" / "content"
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "STREAMGATE_MODELS": str(folder / "models")}
    cases: list[tuple[str, list[object], Callable[[], bool], Callable[[], bool]]] = [
        ("`clips`", ["clips", results, "--seconds", 1], half.is_dir, half.parent.exists),
        ("`models import` of a zip with 400 MB", ["models", "import", folder / "a.zip"],
         lambda: any((folder / "tmp").glob("*/*.pth")), lambda: any((folder / "tmp").iterdir())),
    ]  # fmt: skip
    rows = []
    for number in (signal.SIGINT, signal.SIGTERM):
        for what, command, ready, left in cases:
            began = time.monotonic()
            process = subprocess.Popen(
                [*START, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                env=environment if "import" in what else None,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip
            while not ready() and process.poll() is None:
                time.sleep(0.002)
            process.send_signal(number)
            _, err = process.communicate()
            last = err.strip().splitlines()[-1].removeprefix("streamgate: ")
            behind = "**files are left behind**" if left() else "no files are left behind"
            name = f"{signal.Signals(number).name} during {what}"
            rows.append(Row(name, f"{last}; {behind}", time.monotonic() - began, code=process.returncode))
    return rows
