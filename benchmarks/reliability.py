"""Hostile inputs, outputs and downloads through the real command; writes its tables into docs/reliability.md.

python benchmarks/reliability.py                    # everything, some ten minutes
python benchmarks/reliability.py --only inputs      # one section: inputs, flips, outputs, folders, crashes,
                                                    # weights, redis, service, cameras, secrets

Needs the weights (STREAMGATE_MODELS or ../shared/weights), for `flips` and `weights` the files of ../shared as well;
`crashes` too; `outputs` and a row of `weights` and of `crashes` need root, to mount small file systems.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / one) for one in ("tests", "tests/commands", "benchmarks")]

import hostile_giants  # noqa: E402
import hostile_pictures  # noqa: E402
import hostile_videos  # noqa: E402
from common import SHARED, Machine, say, write_section  # noqa: E402
from kills import crashes  # noqa: E402
from reliability_folders import folder_faults  # noqa: E402
from reliability_redis import redis_faults  # noqa: E402
from reliability_rows import Row, run, table, told  # noqa: E402
from reliability_service import camera_faults, service_faults  # noqa: E402

from support.faulty_server import Answer, faulty  # noqa: E402
from support.hostile import Hostile, Ran, leftovers  # noqa: E402
from support.hostile_archive import TrapServer, WatchedFolder  # noqa: E402
from support.hostile_flips import SMALL_CLIPS, flipped  # noqa: E402
from support.hostile_references import references  # noqa: E402
from support.hostile_videos import clip_bytes  # noqa: E402
from support.real_weights import standard_models  # noqa: E402

RESULTS = REPOSITORY / "docs" / "reliability.md"
COPIES = 200


def outcome(ran: Ran, out: Path, folder: Path) -> str:
    """What became of the one source of a run, from its summary."""
    left = leftovers(out)
    if left:
        return f"**left behind: {', '.join(left)}**"
    try:
        (source,) = json.loads((out / "summary.json").read_text())["sources"]
    except (OSError, ValueError):
        return f"refused: {told(ran, folder)}"
    if source["status"] == "failed":
        return f"refused: {told(ran, folder)}"
    words = f"read: {source['frames']} frames, {source['kept']} kept"
    if source["decode_errors"]:
        words += f", {source['decode_errors']} decode errors counted"
    return words + (f"; {told(ran, folder)}" if told(ran, folder) else "")


def alone(one: Hostile, folder: Path, **environment: str) -> Row:
    """One input in a run of its own."""
    path, out = one.put(folder / "in"), folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    ran = run(["run", path, "-o", out], **environment)
    say(f"{one.name!r}: {ran.code}, {ran.seconds:.1f} s")
    row = Row(one.what, outcome(ran, out, folder), ran.code, ran.seconds, ran.peak_mib)
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    return row


def inputs(folder: Path) -> str:
    """Every hostile and odd input alone, files that point elsewhere under watch."""
    groups = [
        ("Damaged", hostile_videos.DAMAGED + hostile_pictures.BROKEN),
        ("Out of the ordinary", hostile_videos.UNUSUAL + hostile_pictures.UNUSUAL),
        ("Lies about sizes", hostile_videos.LIES + hostile_giants.GIANTS + hostile_pictures.LIES),
    ]
    parts = ["## Hostile and odd inputs", "", "Each input alone: exit code 3 says that nothing could be read."]
    for title, group in groups:
        rows = [alone(one, folder, STREAMGATE_STALL_S="10") for one in group]
        parts += ["", f"### {title}", "", table(rows)]
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "victim.mp4").write_bytes(clip_bytes())
    with TrapServer(clip_bytes(".ts")) as server, WatchedFolder(elsewhere) as watched:
        rows = []
        for one in references(elsewhere, server.port):
            row = alone(one, folder)
            asked, touched = len(server.asked), len(watched.touched())
            server.asked.clear()
            words = f"{row.happened}; {asked} requests, {touched} foreign files opened"
            rows.append(Row(row.what, words, row.code, row.seconds, row.mib))
    parts += ["", "### Files that point at other files or addresses", "", table(rows)]
    parts += [
        "",
        "### What is no plain file, and names",
        "",
        table([*_special(folder / "special"), _names(folder / "names")]),
    ]
    return "\n".join(parts)


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
        ("dangling.mp4", "a link to nothing", lambda path: path.symlink_to("nowhere")),
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
    words = f"read: {totals['sources'].get('done', 0)} of {len(ODD_NAMES)} files, {totals['kept']} kept"
    what = "names with spaces, quotes, dots, a line break, emoji, 255 bytes, no UTF-8, markup, escapes, other cases"
    return Row(what, words, ran.code, ran.seconds, ran.peak_mib)


def flips(folder: Path) -> str:
    """200 copies of real clips with random bytes changed, as one run."""
    source = folder / "in"
    source.mkdir()
    clips = [SHARED / "videos" / name for name in SMALL_CLIPS]
    for number in range(COPIES):
        clip = clips[number % len(clips)]
        (source / f"{clip.stem}_{number:03d}{clip.suffix}").write_bytes(flipped(clip.read_bytes(), number))
    ran = run(["run", source, "-o", folder / "out", "--jobs", 2, "--quiet"])
    summary = json.loads((folder / "out" / "summary.json").read_text())
    lines = ["| clip | copies | read | with decode errors counted | refused | frames read, of those there are |",
             "| --- | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for clip in clips:
        mine = [one for one in summary["sources"] if Path(one["source"]).name.startswith(f"{clip.stem}_")]
        done = [one for one in mine if one["status"] == "done"]
        whole = _frames(clip) * len(mine)
        lines.append(
            f"| {clip.name} | {len(mine)} | {len(done)} | {sum(one['decode_errors'] > 0 for one in done)} | "
            f"{len(mine) - len(done)} | {sum(one['frames'] for one in done) / whole:.1%} |"
        )
    lost = COPIES - len(summary["sources"])
    return "\n".join([
        "## Random bytes changed in real clips", "",
        f"{COPIES} seeded copies, 2 in 100,000 bytes (at least 10) changed in each, in one run: exit code {ran.code}, "
        f"{ran.seconds:.0f} s, at most {ran.peak_mib:.0f} MiB, {lost} copies without a result.", "", *lines,
    ])  # fmt: skip


def _frames(clip: Path) -> int:
    from streamgate.sources import open_source

    with open_source(clip) as source:
        return sum(1 for _ in source.frames())


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Callable[[str], object]]:
    """A tmpfs on `folder`; gives a function that changes its options."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield lambda changed: subprocess.run(["mount", "-o", f"remount,{changed}", folder], check=True)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def outputs(folder: Path) -> str:
    """Output that cannot be written."""
    clip = folder / "clip.mp4"
    clip.write_bytes(clip_bytes())
    rows = []

    def one(what: str, out: Path) -> None:
        ran = run(["run", clip, "-o", out])
        finals = list(out.glob("*/source.json")) if os.path.isdir(out) else []
        words = f"{told(ran, folder)}; {len(finals)} sources under a final name"
        rows.append(Row(what, words, ran.code, ran.seconds, ran.peak_mib))
        say(f"{what}: {ran.code}")

    for size in ("40k", "300k"):
        with mounted(folder / f"disk{size}", f"size={size}"):
            one(f"a disk of {size}B, full soon", folder / f"disk{size}" / "out")
    with mounted(folder / "ro", "size=1m") as change:
        change("ro")
        one("a read-only disk", folder / "ro" / "out")
    (folder / "file").write_text("mine")
    one("a path that is a file", folder / "file")
    one("a path that leads through a file", folder / "file" / "below")
    one("a name of 300 bytes", folder / ("x" * 300))
    return "\n".join(["## Outputs that cannot be written", "", table(rows)])


def killed(folder: Path) -> str:
    """Runs that are killed, and resumed."""
    text, kills, others = crashes(folder, mounted)
    parts = ["## Crashes and resuming", "", text]
    for title, rows in (("Ten kills", kills), ("What else ends a run", others)):
        parts += ["", f"### {title}", "", table([Row(*row) for row in rows])]
    return "\n".join(parts)


def weights(folder: Path) -> str:
    """`models pull` from servers that fail, and `models import` of hostile checkpoints."""
    name = "retinaface_mnet025_foamliu.pth"
    content = (SHARED / "weights" / name).read_bytes()
    size, rows = len(content), []

    def pull(what: str, answers: Sequence[Answer], models: Path | None = None, **environment: str) -> None:
        target = models or folder / f"models{len(rows)}"
        (target / "downloads").mkdir(parents=True, exist_ok=True)
        for other in (SHARED / "weights").iterdir():
            # What else the tier needs is there already: the fault meets one file.
            if models is None and other.suffix in (".pt", ".onnx", ".pth") and other.name != name:
                shutil.copy(other, target / "downloads")
        with faulty(content, answers) as server:
            ran = run(["models", "pull", "--mirror", server.url], STREAMGATE_MODELS=str(target), **environment)
        lines = ran.err.strip().splitlines()
        words = "; ".join(line.removeprefix("streamgate: ") for line in lines if "retinaface" in line)
        words = re.sub(r"http://127\.0\.0\.1:\d+", "http://mirror", words.replace(str(folder), ""))
        half = "" if (target / "downloads" / name).exists() == (ran.code == 0) else "; **half a file is there**"
        rows.append(Row(what, f"{words}; {len(server.requests)} requests{half}", ran.code, ran.seconds, ran.peak_mib))
        say(f"{what}: {ran.code}")

    pull("connection cut after 1 byte, then sound", [Answer(cut=1), Answer()])
    pull("connection cut five times", [*[Answer(cut=size // 6)] * 5, Answer()])
    pull("connection cut, server without ranges", [Answer(cut=size // 2), Answer(ranges=False)])
    kept = folder / "kept"
    pull("connection cut for good", [Answer(cut=size // 2), Answer(cut=0)], kept)
    for other in (SHARED / "weights").glob("*.[po][tn]*"):
        if other.name != name:
            shutil.copy(other, kept / "downloads")
    pull("... and the next pull", [Answer()], kept)
    pull("wrong hash", [Answer(body=bytes(size))])
    pull("one byte too many", [Answer(body=content + b"x")])
    pull("one byte too few", [Answer(body=content[:-1])])
    pull("10 GB, by the header", [Answer(says="10000000000")])
    pull("a body without end and without a length", [Answer(body=content * 3, says="")])
    pull("404", [Answer(status=404)])
    pull("503 twice, then sound", [Answer(status=503), Answer(status=503), Answer()])
    pull("a server that drips a byte every 0.1 s", [Answer(drip=0.1)])
    pull("a server that falls silent", [Answer(drip=500.0)])
    with faulty(content, [Answer()]) as there:
        pull("redirect to another host", [Answer(redirect=f"{there.url}/x")])
    pull("redirect to a file", [Answer(redirect="file:///etc/hostname")])
    with mounted(folder / "small", "size=1m"):
        pull("no space left", [Answer()], folder / "small")
    with mounted(folder / "locked", "size=9m") as change:
        (folder / "locked" / "downloads").mkdir()
        change("ro")
        pull("a read-only folder", [Answer()], folder / "locked")
    rows += _imports(folder)
    return "\n".join(["## Weights", "", table(rows)])


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
        ("import of a zip of 5 GB in 5 MB", bomb),
        ("import of text", lambda path: path.write_text("weights\n" * 100)),
    ]
    rows = []
    for what, make in made:
        make(folder / "hostile.pth")
        ran = run(["models", "import", folder / "hostile.pth"], STREAMGATE_MODELS=str(folder / "imports"))
        ran_code = "; **it ran**" if (folder / "touched").exists() else ""
        rows.append(Row(what, told(ran, folder) + ran_code, ran.code, ran.seconds, ran.peak_mib))
        say(f"{what}: {ran.code}")
    return rows


def secrets(folder: Path) -> str:
    """The tests that search everything written for the secrets of ten forms of addresses."""
    from test_secrets import FORMS

    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/test_secrets.py", "tests/test_errors.py"],
        cwd=REPOSITORY, capture_output=True, text=True,
        env={**os.environ, "STREAMGATE_MODELS": str(standard_models())},
    )  # fmt: skip
    found = re.search(r"(\d+) passed", ran.stdout) or re.search(r"^(\.+)", ran.stdout, re.MULTILINE)
    passed = found.group(1) if found and found.group(1).isdigit() else ran.stdout.count(".")
    lines = [f"- `{form.format(scheme='SCHEME', host='HOST').replace('Qx7', 'SECRET')}`" for form, _ in FORMS]
    return "\n".join([
        "## Secrets in addresses", "",
        f"{passed} tests, exit code {ran.returncode}, {time.monotonic() - began:.0f} s: sources, sinks, mirrors and "
        "live "
        "connections are given each form; messages, exception chains with their arguments, logs, both outputs, "
        "every file written and every file's name are searched.", "", *lines,
    ])  # fmt: skip


SECTIONS: dict[str, Callable[[Path], str]] = {
    "inputs": inputs,
    "flips": flips,
    "outputs": outputs,
    "folders": folder_faults,
    "crashes": killed,
    "weights": weights,
    "redis": redis_faults,
    "service": service_faults,
    "cameras": camera_faults,
    "secrets": secrets,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=SECTIONS, help="one section, repeatable [all]")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    for name in options.only or SECTIONS:
        facts = "\n".join(Machine.here().lines())
        with tempfile.TemporaryDirectory(prefix="streamgate-reliability-") as folder:
            body = SECTIONS[name](Path(folder))
        write_section(options.results, name, f"{body}\n\n{facts}\n- written by `benchmarks/reliability.py`")


if __name__ == "__main__":
    main()
