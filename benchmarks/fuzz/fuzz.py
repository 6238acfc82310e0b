"""Fuzzes every target of `targets.py` with atheris for its share of the time, starting from the corpus in `corpus/`.

pip install atheris
python benchmarks/fuzz/fuzz.py --seconds 600            # all targets
python benchmarks/fuzz/fuzz.py --target card            # one of them

Findings are written to --work as crash-...; add them to the corpus together with the fix. The table is written to
docs/reliability.md.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

CHILD = "STREAMGATE_FUZZ_TARGET"


def fuzz(target: str) -> None:
    """Run libFuzzer on one target in this process, with this process's arguments; never returns."""
    import atheris

    with atheris.instrument_imports(include=["streamgate", "targets", "tomllib", "json"]):
        from targets import TARGETS
    atheris.Setup(sys.argv, TARGETS[target])
    atheris.Fuzz()


def one(target: str, seconds: int, work: Path) -> tuple[str, list[str]]:
    """Fuzz a target in a child process; returns a row of a Markdown table, and the names of the files with findings."""
    found = work / target
    grown = found / "corpus"
    grown.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, __file__, str(grown), str(HERE / "corpus" / target), f"-max_total_time={seconds}",
        "-timeout=10", "-rss_limit_mb=2048", "-max_len=8192", "-print_final_stats=1", f"-artifact_prefix={found}/",
    ]  # fmt: skip
    ran = subprocess.run(command, env={**os.environ, CHILD: target}, capture_output=True, text=True)
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", ran.stderr))
    crashes = sorted(path.name for path in found.iterdir() if path.is_file())
    (work / f"{target}.log").write_text(ran.stderr)
    if ran.returncode and not crashes:
        crashes = [f"ended with {ran.returncode}, see {target}.log"]
    outcome = "none" if not crashes else f"**{len(crashes)}**"
    row = f"| {target} | {int(stats.get('number_of_executed_units', 0)):,} | {seconds} | {outcome} |"
    print(row, flush=True)
    return row, crashes


def main() -> int:
    from common import write_section

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="time for all targets together [600]")
    parser.add_argument("--target", action="append", help="only this target; repeatable [all]")
    parser.add_argument("--work", type=Path, default=HERE.parent / "work" / "fuzz", help="folder for the findings")
    parser.add_argument("--results", type=Path, default=HERE.parents[1] / "docs" / "reliability.md")
    options = parser.parse_args()
    from targets import TARGETS

    chosen = options.target or list(TARGETS)
    options.work.mkdir(parents=True, exist_ok=True)
    share = max(1, options.seconds // len(chosen))
    rows = [one(target, share, options.work) for target in chosen]
    if not options.target:
        words = {name: (function.__doc__ or "").splitlines()[0] for name, function in TARGETS.items()}
        head = ["| target | inputs tried | seconds | findings |", "| --- | ---: | ---: | --- |"]
        meaning = [f"- {name}: {text}" for name, text in words.items()]
        body = "\n".join(
            [
                "## Fuzzing",
                "",
                "Each target passes bytes to code that reads untrusted data. A finding is an input with which this "
                "code crashes, hangs, needs more than 2 GiB of memory or raises an undocumented exception.",
                "",
                *head,
                *(row for row, _ in rows),
                "",
                *meaning,
                "",
                "Written by `benchmarks/fuzz/fuzz.py`.",
            ]
        )
        write_section(options.results, "fuzzing", body)
    return 1 if any(crashes for _, crashes in rows) else 0


if __name__ == "__main__":
    if CHILD in os.environ:
        fuzz(os.environ[CHILD])
    else:
        sys.exit(main())
