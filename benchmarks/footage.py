"""A folder of files from anywhere in one batch: what failed, and why?

    python benchmarks/footage.py FOLDER [--out DIR]

Runs `streamgate run` once over FOLDER, in which each subfolder is a collection, decodes each of its videos plainly
beside it, and compares the numbers of frames. Writes its section of benchmarks/RESULTS.md. The files are not part of
this repository: fill the folder with demuxer and decoder samples of other projects.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from common import RESULTS, Machine, command_line, say, table, write_section

NAMES = 4
"""Files that are named of each reason; the others are counted."""
COMMITTED = frozenset({"done", "interrupted"})


def main() -> int:
    given = _arguments()
    if given.plain:
        return _decode_plainly()
    machine = Machine.here()
    with tempfile.TemporaryDirectory(prefix="streamgate-footage-") as folder:
        out = given.out or Path(folder) / "out"
        command = [sys.executable, "-m", "streamgate", "run", str(given.folder), "-o", str(out), "--quiet"]
        began = time.monotonic()
        ran = subprocess.run(command, capture_output=True, text=True)
        seconds = time.monotonic() - began
        if not (out / "summary.json").is_file():
            raise SystemExit(f"no summary; exit {ran.returncode}: {ran.stderr.strip()[-400:]}")
        sources = json.loads((out / "summary.json").read_text())["sources"]
    body = "\n".join(
        [
            "## Footage of other collections", "", f"`{command_line('footage.py', sys.argv[1:])}`", "",
            *machine.lines(), *_facts(sources, ran, seconds), "", *_report(given.folder, sources),
        ]
    )  # fmt: skip
    write_section(given.results, "footage", body)
    print(body)
    say(f"written to {given.results}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    parser.add_argument("--out", type=Path, help="keep the results of the run there")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _facts(sources: Sequence[dict[str, Any]], ran: subprocess.CompletedProcess[str], seconds: float) -> list[str]:
    status = Counter(one["status"] for one in sources)
    odd = [line for line in ran.stderr.splitlines() if "internal error" in line or "Traceback" in line]
    return [
        f"- {len(sources)} sources in one run of {seconds:.0f} s, exit {ran.returncode}: "
        + ", ".join(f"{count} {name}" for name, count in sorted(status.items())),
        f"- internal errors: {len(odd)}; crashes of the worker that cost a source: {status['crashed']}",
    ]


def _report(folder: Path, sources: Sequence[dict[str, Any]]) -> list[str]:
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, list[str]] = defaultdict(list)
    damaged, pictures = 0, Counter[str]()
    for one in sources:
        row = rows[_collection(folder, one)]
        row["sources"] += 1
        row["read"] += one["status"] in COMMITTED
        row["kept"] += one["kept"]
        row["turned"] += bool(one["turned"])
        row["combed"] += bool(one["combed"])
        if one["status"] not in COMMITTED:
            reasons[_reason(one)].append(Path(one["source"]).name)
        if Path(one["source"]).is_dir():
            pictures.update(read=one["frames"], refused=one["decode_errors"])
        else:
            damaged += one["status"] in COMMITTED and one["decode_errors"] > 0
    columns = ("sources", "read", "kept", "turned", "combed")
    lines = [
        table(
            ["collection", *columns],
            [[name, *(str(row[key]) for key in columns)] for name, row in sorted(rows.items())],
        ),
        "",
        table(
            ["why a source failed", "sources", "for example"],
            [
                [reason, str(len(names)), ", ".join(f"`{name}`" for name in sorted(names)[:NAMES])]
                for reason, names in sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
            ],
        ),
        "",
    ]
    lines += [
        f"- videos that were read and have decode errors: {damaged}",
        f"- pictures in folders: {pictures['read']} read, {pictures['refused']} not",
    ]
    return [*lines, *_beside_plain(sources)]


def _collection(folder: Path, source: dict[str, Any]) -> str:
    with suppress(ValueError):
        parts = Path(source["source"]).relative_to(folder).parts
        return parts[0] if parts else folder.name
    return "?"


def _reason(source: dict[str, Any]) -> str:
    error = str(source["error"] or source["status"]).removeprefix(f"{source['source']}: ")
    return error.partition(";")[0].replace("|", "\\|")


def _beside_plain(sources: Sequence[dict[str, Any]]) -> list[str]:
    """How many frames a plain loop over FFmpeg's decoder gives, where that is another number."""
    files = [Path(one["source"]) for one in sources if Path(one["source"]).is_file()]
    plain = dict(_plainly(files))
    fewer, more, refused = [], [], []
    for one in sources:
        frames = plain.get(one["source"])
        if frames is None:
            continue
        if one["status"] not in COMMITTED:
            refused += [[f"`{Path(one['source']).name}`", str(frames), _reason(one)]] if frames else []
        elif one["frames"] != frames:
            row = [f"`{Path(one['source']).name}`", str(one["frames"]), str(frames), str(one["decode_errors"])]
            (fewer if one["frames"] < frames else more).append(row)
    lines = [f"- as many frames as a plain decoding loop: {len(plain) - len(fewer) - len(more) - len(refused)} files"]
    head = ["file", "frames", "plainly", "decode errors"]
    if refused:
        lines += ["", "Failed although a plain loop gives frames:", "", table(["file", "plainly", "reason"], refused)]
    if fewer:
        lines += ["", "Fewer frames than a plain loop gives:", "", table(head, fewer)]
    if more:
        lines += ["", "More frames than a plain loop gives:", "", table(head, more)]
    return lines


def _plainly(files: Sequence[Path]) -> Iterator[tuple[str, int]]:
    """Frames of each file by a child process; one that the decoder dies of is left out."""
    left = [str(file) for file in files]
    while left:
        command = [sys.executable, __file__, "--plain"]
        ran = subprocess.run(command, input="\n".join(left), capture_output=True, text=True)
        answers = [json.loads(line) for line in ran.stdout.splitlines()]
        yield from ((path, frames) for path, frames in zip(left, answers, strict=False))
        left = left[len(answers) + 1 :]


def _decode_plainly() -> int:
    import av

    av.logging.set_level(av.logging.PANIC)
    for path in sys.stdin.read().splitlines():
        frames = 0
        with suppress(av.error.FFmpegError, OSError, ValueError, AttributeError), av.open(path) as container:
            stream = container.streams.best("video")
            for packet in container.demux(stream) if stream is not None else ():
                with suppress(av.error.FFmpegError, OSError, ValueError):
                    frames += len(packet.decode())
        print(frames, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
