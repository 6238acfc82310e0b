"""How commands end: outputs that take nothing, signals at any moment, and what stays behind of them."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from support.command import streamgate
from support.media import astronaut_frames, write_clip

START = [sys.executable, "-m", "streamgate"]
PATIENCE_S = 120.0

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full does not exist")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = astronaut_frames(150, (640, 480), step=0.3, zoom=1.6)
    return write_clip(tmp_path_factory.mktemp("clips") / "long.mp4", frames)


@pytest.fixture(scope="module")
def results(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "out"
    done = streamgate("run", clip, "-o", out)
    assert done.code == 0, done.err
    return out


@needs_full
@pytest.mark.parametrize("command", [
    "--help", "--version", "run --help", "report OUT", "people OUT", "people OUT list --json", "measures",
    "models list", "models list --json", "tune OUT --max-yaw 2 --dry-run --pictured", "score PICTURE",
    "run CLIP -o NEW --json --quiet",
])  # fmt: skip
def test_a_standard_output_that_is_full_is_exit_code_5(
    command: str, results: Path, clip: Path, tmp_path: Path
) -> None:
    picture = next(results.glob("*/track_*/1.png"))
    words = {"OUT": results, "CLIP": clip, "NEW": tmp_path / "new", "PICTURE": picture}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*START, *(str(words.get(one, one)) for one in command.split(" "))],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S,
        )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if line.startswith("streamgate:")]
    assert done.returncode == 5 and len(told) == 1 and "cannot write to standard output" in told[0], done.stderr
    assert "Exception ignored" not in done.stderr and "Traceback" not in done.stderr


def test_a_standard_output_that_does_not_block_is_waited_for() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    os.write(writing, b"." * 4000)
    with open(reading, "rb") as output:
        process = subprocess.Popen([*START, "run", "--help"], stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)
        time.sleep(1.0)  # it is full by then, or when this begins to read
        text = output.read()
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and err == b"" and len(text) > 4096 + 2000 and text.endswith(b"\n")


@needs_full
def test_a_standard_error_that_is_full_costs_the_messages_alone(results: Path) -> None:
    with open("/dev/full", "w") as full:
        report = [*START, "report", str(results)]
        assert subprocess.run(report, stdout=subprocess.DEVNULL, stderr=full, timeout=PATIENCE_S).returncode == 0
        nothing = [*START, "report", str(results / "nothing")]
        assert subprocess.run(nothing, stderr=full, timeout=PATIENCE_S).returncode == 3


def test_an_encoding_without_the_letters_is_no_error(results: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    named = streamgate("people", results, "name", "p0001", "Zoë Łukasz", **plain)
    assert named.code == 0, named.err
    done = streamgate("people", results, **plain)
    assert done.code == 0 and "Zo\\xeb \\u0141ukasz" in done.out
    data = streamgate("people", results, "list", "--json", **plain)
    assert data.code == 0 and '"name":"Zoë Łukasz"' in data.out, "JSON is UTF-8 wherever it goes"
    missing = streamgate("report", results / "straße", **plain)
    assert missing.code == 3 and "stra" in missing.err


def answers(pid: int) -> bool:
    """Whether a process has begun to answer SIGTERM itself."""
    caught = re.search(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def signalled(
    arguments: Sequence[object],
    ready: Callable[[], bool],
    number: int,
    *,
    after_s: float = 0.0,
    times: int = 1,
    **environment: str,
) -> tuple[int, str]:
    """Start a command and send it a signal, some times in a row, when it answers them and `ready` says so.

    Gives its exit code and its stderr.
    """
    process = subprocess.Popen(
        [*START, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        # Shells let what they start in the background ignore Ctrl-C.
        env={**os.environ, **environment}, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE_S
    while not (answers(process.pid) and ready()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(after_s)
    assert process.poll() is None, process.communicate()
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.01)  # for each to be heard alone
    _, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, err


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice in a row, as `timeout` does"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_clips_that_are_cut_off_leave_nothing(number: int, times: int, results: Path) -> None:
    half = results / ".clips.tmp" / "content"
    code, err = signalled(["clips", results, "--seconds", 1, "--top-k", 3], half.is_dir, number, times=times)
    assert code == 130 and "streamgate: interrupted" in err and "Traceback" not in err, err
    assert not half.parent.exists() and not (results / "clips").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_import_that_is_cut_off_leaves_nothing_unpacked(number: int, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="checkpoints are read with torch")
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.pth", "w", force_zip64=True) as file,
    ):
        for _ in range(400):
            file.write(bytes(1 << 20))
    (tmp_path / "tmp").mkdir()
    code, err = signalled(
        ["models", "import", tmp_path / "a.zip"], lambda: any((tmp_path / "tmp").glob("*/*.pth")), number,
        TMPDIR=str(tmp_path / "tmp"), STREAMGATE_MODELS=str(tmp_path / "models"),
    )  # fmt: skip
    assert code == 130 and list((tmp_path / "tmp").iterdir()) == [], err


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("command", ["score PICTURE PICTURE PICTURE", "clips OUT --seconds 1"])
def test_an_interrupt_at_any_moment_is_one_line_at_most(command: str, after_s: float, results: Path) -> None:
    words = {"OUT": results, "PICTURE": next(results.glob("*/track_*/1.png"))}
    arguments = [words.get(one, one) for one in command.split(" ")]
    code, err = signalled(arguments, lambda: True, signal.SIGINT, after_s=after_s)
    assert code == 130 and "Traceback" not in err and "Error" not in err, err
