"""Runs the real command with hostile inputs, outputs and downloads, and writes the tables of docs/reliability.md.

python benchmarks/reliability.py                    # everything, about ten minutes
python benchmarks/reliability.py --only inputs      # one section: inputs, flips, outputs, folders, crashes or weights

All sections need the standard weights (in STREAMGATE_MODELS or ../shared/weights); `flips`, `crashes` and `weights`
also need the files in ../shared. `outputs`, `crashes` and `weights` need root, because they mount small file systems.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from common import REPOSITORY, SHARED, Machine, arguments, table, write_section
from kills import crashes
from reliability_folders import folder_faults
from reliability_rows import Row, run, sections, told

from clips import count_frames
from support import hostile_giants, hostile_pictures, hostile_videos
from support.faulty_server import Answer, faulty
from support.hostile import Hostile, Ran, leftovers
from support.hostile_archive import TrapServer, WatchedFolder
from support.hostile_flips import SMALL_CLIPS, flipped
from support.hostile_references import references
from support.hostile_videos import clip_bytes

COPIES = 200


def outcome(ran: Ran, out: Path, folder: Path) -> str:
    """The result of a run's only source, according to its summary."""
    left = leftovers(out)
    if left:
        return f"**left behind: {', '.join(left)}**"
    try:
        (source,) = json.loads((out / "summary.json").read_text())["sources"]
    except (OSError, ValueError):
        return f"refused: {told(ran, folder)}"
    if source["status"] == "failed":
        return f"refused: {told(ran, folder)}"
    words = f"read; frames: {source['frames']}, kept faces: {source['kept']}"
    if source["decode_errors"]:
        words += f", decode errors: {source['decode_errors']}"
    return words + (f"; {told(ran, folder)}" if told(ran, folder) else "")


def alone(one: Hostile, folder: Path, **environment: str) -> Row:
    """One input in a separate run."""
    path, out = one.put(folder / "in"), folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    ran = run(["run", path, "-o", out], **environment)
    row = Row.of(one.what, outcome(ran, out, folder), ran)
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    return row


def inputs(folder: Path) -> str:
    """Every hostile and odd input in a separate run; files that refer to other files or addresses are watched."""
    groups = {
        "Damaged": hostile_videos.DAMAGED + hostile_pictures.BROKEN,
        "Unusual but valid": hostile_videos.UNUSUAL + hostile_pictures.UNUSUAL,
        "Very large or false sizes": hostile_videos.LIES + hostile_giants.GIANTS + hostile_pictures.LIES,
    }
    tables = {title: [alone(one, folder, STREAMGATE_STALL_S="10") for one in group] for title, group in groups.items()}
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "victim.mp4").write_bytes(clip_bytes())
    with TrapServer(clip_bytes(".ts")) as server, WatchedFolder(elsewhere) as watched:
        rows = []
        for one in references(elsewhere, server.port):
            row = alone(one, folder)
            words = f"{row.happened}; requests: {len(server.asked)}, other files opened: {len(watched.touched())}"
            server.asked.clear()
            rows.append(replace(row, happened=words))
    tables["Files that refer to other files or addresses"] = rows
    tables["Special files and odd names"] = [*_special(folder / "special"), _names(folder / "names")]
    text = "Each input was read in a separate run; exit code 3 means that nothing could be read."
    return sections("Hostile and odd inputs", text, tables)


def _special(folder: Path) -> list[Row]:
    folder.mkdir()

    def socket_at(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))

    made: list[tuple[str, str, Callable[[Path], object]]] = [
        ("pipe.mp4", "a pipe (FIFO)", os.mkfifo),
        ("pipe.png", "a pipe named like a picture", os.mkfifo),
        ("endless.mp4", "a link to /dev/zero", lambda path: path.symlink_to("/dev/zero")),
        ("endless.png", "a link to /dev/zero, named like a picture", lambda path: path.symlink_to("/dev/zero")),
        ("socket.mp4", "a socket", socket_at),
        ("dangling.mp4", "a link to a missing file", lambda path: path.symlink_to("nowhere")),
        ("circle.mp4", "a link to itself", lambda path: path.symlink_to("circle.mp4")),
        ("folder.mp4", "an empty folder named like a video", Path.mkdir),
    ]
    return [
        alone(Hostile(name, what, lambda path, make=make: (make(path), None)[1]), folder) for name, what, make in made
    ]


def _names(folder: Path) -> Row:
    from test_hostile_inputs import ODD_NAMES

    source = folder / "in"
    source.mkdir(parents=True)
    for number, name in enumerate(ODD_NAMES):
        with open(os.fsencode(source) + b"/" + name, "wb") as file:
            file.write(clip_bytes() + b"\0\0\0\x09free" + bytes([number]))
    ran = run(["run", source, "-o", folder / "out"])
    totals = json.loads((folder / "out" / "summary.json").read_text())["totals"]
    words = f"read; files: {totals['sources'].get('done', 0)}, kept faces: {totals['kept']}"
    what = (
        f"{len(ODD_NAMES)} names: with spaces, quotes, dots, a line break, emoji, 255 bytes, invalid UTF-8, markup, "
        "escape sequences, mixed case"
    )
    return Row.of(what, words, ran)


def flips(folder: Path) -> str:
    """200 copies of real clips with random bytes changed, in one run."""
    source = folder / "in"
    source.mkdir()
    clips = [SHARED / "videos" / name for name in SMALL_CLIPS]
    for number in range(COPIES):
        clip = clips[number % len(clips)]
        (source / f"{clip.stem}_{number:03d}{clip.suffix}").write_bytes(flipped(clip.read_bytes(), number))
    ran = run(["run", source, "-o", folder / "out", "--jobs", 2, "--quiet"])
    summary = json.loads((folder / "out" / "summary.json").read_text())
    rows = []
    for clip in clips:
        mine = [one for one in summary["sources"] if Path(one["source"]).name.startswith(f"{clip.stem}_")]
        done = [one for one in mine if one["status"] == "done"]
        share = sum(one["frames"] for one in done) / (count_frames(clip) * len(mine))
        counts = (len(mine), len(done), sum(one["decode_errors"] > 0 for one in done), len(mine) - len(done))
        rows.append([clip.name, *map(str, counts), f"{share:.1%}"])
    lost = COPIES - len(summary["sources"])
    head = ["clip", "copies", "read", "with decode errors", "refused", "share of frames read"]
    return "\n".join([
        "## Random bytes changed in real clips", "",
        f"One run read {COPIES} copies of real clips. In each copy, 2 out of every 100,000 bytes, but at least 10 "
        f"bytes, were changed at random (seeded) positions. The run ended with exit code {ran.code} after "
        f"{ran.seconds:.0f} s and used at most {ran.peak_mib:.0f} MiB. Copies without a result: {lost}.", "",
        table(head, rows),
    ])  # fmt: skip


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Callable[[str], object]]:
    """Mount a tmpfs on `folder`; yields a function that changes the mount options."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield lambda changed: subprocess.run(["mount", "-o", f"remount,{changed}", folder], check=True)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def outputs(folder: Path) -> str:
    """Outputs that cannot be written."""
    clip = folder / "clip.mp4"
    clip.write_bytes(clip_bytes())
    rows = []

    def one(what: str, out: Path) -> None:
        ran = run(["run", clip, "-o", out])
        finals = list(out.glob("*/source.json")) if os.path.isdir(out) else []
        words = f"{told(ran, folder)}; committed sources: {len(finals)}"
        rows.append(Row.of(what, words, ran))

    for size in ("40k", "300k"):
        with mounted(folder / f"disk{size}", f"size={size}"):
            one(f"a disk of {size}B that fills up", folder / f"disk{size}" / "out")
    with mounted(folder / "ro", "size=1m") as change:
        change("ro")
        one("a read-only disk", folder / "ro" / "out")
    (folder / "file").write_text("mine")
    one("a path that is a file", folder / "file")
    one("a path below a file", folder / "file" / "below")
    one("a name of 300 bytes", folder / ("x" * 300))
    return sections(
        "Outputs that cannot be written",
        "A source is committed when its finished results have been moved to their final place.",
        {"": rows},
    )


def killed(folder: Path) -> str:
    """Runs that are killed and resumed."""
    text, kills, others = crashes(folder, mounted)
    return sections("Crashes and resuming", text, {"Ten kills": kills, "Other interruptions": others})


def weights(folder: Path) -> str:
    """`models pull` from servers that fail, and `models import` of hostile checkpoints."""
    name = "retinaface_mnet025_foamliu.pth"
    content = (SHARED / "weights" / name).read_bytes()
    size, rows = len(content), []

    def pull(what: str, answers: Sequence[Answer], models: Path | None = None, **environment: str) -> None:
        target = models or folder / f"models{len(rows)}"
        (target / "downloads").mkdir(parents=True, exist_ok=True)
        for other in (SHARED / "weights").iterdir():
            # The other files of the tier are present already, so that the fault affects a single file.
            if models is None and other.suffix in (".pt", ".onnx", ".pth") and other.name != name:
                shutil.copy(other, target / "downloads")
        with faulty(content, answers) as server:
            ran = run(["models", "pull", "--mirror", server.url], STREAMGATE_MODELS=str(target), **environment)
        lines = ran.err.strip().splitlines()
        words = "; ".join(line.removeprefix("streamgate: ") for line in lines if "retinaface" in line)
        words = re.sub(r"http://127\.0\.0\.1:\d+", "http://mirror", words.replace(str(folder), ""))
        half = "" if (target / "downloads" / name).exists() == (ran.code == 0) else "; **half a file is left**"
        rows.append(Row.of(what, f"{words}; requests: {len(server.requests)}{half}", ran))

    pull("connection cut after 1 byte, then a good answer", [Answer(cut=1), Answer()])
    pull("connection cut five times", [*[Answer(cut=size // 6)] * 5, Answer()])
    pull("connection cut, server without ranges", [Answer(cut=size // 2), Answer(ranges=False)])
    kept = folder / "kept"
    pull("connection cut, and no data on any retry", [Answer(cut=size // 2), Answer(cut=0)], kept)
    for other in (SHARED / "weights").glob("*.[po][tn]*"):
        if other.name != name:
            shutil.copy(other, kept / "downloads")
    pull("the next pull after that", [Answer()], kept)
    pull("wrong hash", [Answer(body=bytes(size))])
    pull("one byte too many", [Answer(body=content + b"x")])
    pull("one byte missing", [Answer(body=content[:-1])])
    pull("a header that claims 10 GB", [Answer(says="10000000000")])
    pull("an endless body without a length", [Answer(body=content * 3, says="")])
    pull("404", [Answer(status=404)])
    pull("503 twice, then a good answer", [Answer(status=503), Answer(status=503), Answer()])
    pull("a server that sends one byte every 0.1 s", [Answer(drip=0.1)])
    pull("a server that stops answering", [Answer(drip=500.0)])
    with faulty(content, [Answer()]) as there:
        pull("redirect to another host", [Answer(redirect=f"{there.url}/x")])
    pull("redirect to a file", [Answer(redirect="file:///etc/hostname")])
    with mounted(folder / "small", "size=1m"):
        pull("no space left", [Answer()], folder / "small")
    with mounted(folder / "locked", "size=9m") as change:
        (folder / "locked" / "downloads").mkdir()
        change("ro")
        pull("a read-only folder", [Answer()], folder / "locked")
    text = "The table shows `models pull` from servers that fail, and `models import` of hostile files."
    return sections("Weights", text, {"": [*rows, *_imports(folder)]})


def _imports(folder: Path) -> list[Row]:
    import pickle
    import zipfile

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return os.mkdir, (str(folder / "touched"),)

    def bomb(path: Path) -> None:
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("a.pth", "w", force_zip64=True) as f,
        ):
            for _ in range(5 << 10):
                f.write(bytes(1 << 20))

    made: list[tuple[str, Callable[[Path], object]]] = [
        ("import of a pickle that runs code", lambda path: path.write_bytes(pickle.dumps({"D": Evil()}))),
        ("import of a 5 MB zip that expands to 5 GB", bomb),
        ("import of text", lambda path: path.write_text("weights\n" * 100)),
    ]
    rows = []
    for what, make in made:
        make(folder / "hostile.pth")
        ran = run(["models", "import", folder / "hostile.pth"], STREAMGATE_MODELS=str(folder / "imports"))
        ran_code = "; **it ran**" if (folder / "touched").exists() else ""
        rows.append(Row.of(what, told(ran, folder) + ran_code, ran))
    return rows


SECTIONS: dict[str, Callable[[Path], str]] = {
    "inputs": inputs,
    "flips": flips,
    "outputs": outputs,
    "folders": folder_faults,
    "crashes": killed,
    "weights": weights,
}


def main() -> None:
    parser = arguments(__doc__, videos=False, results=REPOSITORY / "docs" / "reliability.md")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="one section, repeatable [all]")
    options = parser.parse_args()
    for name in options.only or SECTIONS:
        facts = "\n".join(Machine.here().lines())
        with tempfile.TemporaryDirectory(prefix="streamgate-reliability-") as folder:
            body = SECTIONS[name](Path(folder))
        write_section(options.results, name, f"{body}\n\n{facts}\n- written by `benchmarks/reliability.py`")


if __name__ == "__main__":
    main()
