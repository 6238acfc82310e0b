"""`run` and `serve` on a GPU, which is the CPU's provider behind the code for GPUs (`support/simulated_gpu.py`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import cv2
import pytest

from support.client import Client
from support.command import Done, lines, streamgate
from support.killing import small_clips
from support.media import astronaut, astronaut_frames, write_clip
from support.rtsp_server import free_port

pytest.importorskip("onnx", reason="a GPU needs it, with float inputs or fp16")
SIMULATED = Path(__file__).parents[1] / "support" / "simulated_gpu.py"


LOST = "cannot be run (CUDA failure 719: unspecified launch failure ; GPU=0); check `nvidia-smi`"


def on_gpu(*arguments: object, **environment: str) -> Done:
    done = subprocess.run(
        [sys.executable, SIMULATED, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, env=os.environ | environment,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    av1 = write_clip(folder / "clip1.mkv", astronaut_frames(12, (320, 240), zoom=1.6), codec="libsvtav1")
    return [*small_clips(folder, 1), av1]


@pytest.fixture(scope="module")
def on_cpu(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a run on the CPU keeps."""
    out = tmp_path_factory.mktemp("cpu") / "out"
    assert streamgate("run", *clips, "-o", out).code == 0
    return lines(out / "faces.jsonl")


def test_a_run_that_loses_its_card_and_is_resumed_picks_what_a_run_on_the_cpu_picks(
    clips: list[Path], on_cpu: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "gpu"
    on_card = ("run", *clips, "-o", out, "--resume", "--device", "cuda", "--jobs", "2")
    lost = on_gpu(*on_card, LOST_AFTER="12")
    assert lost.code == 6 and LOST in lost.err, lost.err
    done = on_gpu(*on_card)
    assert done.code == 0 and "device: cpu (used like a GPU)" in done.err, done.err
    ours = lines(out / "faces.jsonl")
    assert len(ours) == len(clips)
    for one, other in zip(ours, on_cpu, strict=True):
        assert (one["id"], one["pts_seconds"], one["gate"]) == (other["id"], other["pts_seconds"], other["gate"])
        for name, measure in other["measures"].items():
            assert one["measures"][name]["status"] == measure["status"]
            assert one["measures"][name]["raw"] == pytest.approx(measure["raw"], rel=1e-3, abs=1e-3), name


def test_half_precision_is_recorded_and_resumed_only_as_such(clips: list[Path], tmp_path: Path) -> None:
    half = ("run", clips[0], "-o", tmp_path, "--device", "cuda", "--set", "precision.ifqa=fp16")
    assert on_gpu(*half).code == 0
    weights = {one["role"]: one for one in json.loads((tmp_path / "summary.json").read_text())["weights"]}
    assert weights["ifqa"]["precision"] == "fp16" and "precision" not in weights["detector"]
    other = on_gpu("run", clips[0], "-o", tmp_path, "--device", "cuda", "--resume")
    assert other.code == 2 and "precision.ifqa" in other.err


def test_what_the_card_does_not_decode_the_cpu_does_and_says_so(
    clips: list[Path], on_cpu: list[dict[str, Any]], tmp_path: Path
) -> None:
    done = on_gpu("run", *clips, "-o", tmp_path, "--device", "cpu", "--decode", "cuda")
    assert done.code == 0, done.err
    assert "2 source(s) were decoded on the CPU instead of the GPU" in done.err
    sources = json.loads((tmp_path / "summary.json").read_text())["sources"]
    notes = {one["source"]: one["notes"] for one in sources}
    for path, codec in zip(clips, ("h264", "av1"), strict=True):
        assert f"decoded on the CPU: the GPU cannot decode this {codec} video" in notes[str(path)]
    assert lines(tmp_path / "faces.jsonl") == on_cpu


def test_what_the_card_decodes_gives_the_picks_of_the_cpu_and_no_note(
    clips: list[Path], on_cpu: list[dict[str, Any]], tmp_path: Path
) -> None:
    done = on_gpu("run", *clips, "-o", tmp_path, "--device", "cpu", "--decode", "cuda", DECODES="1000000")
    assert done.code == 0 and "decoded on the CPU" not in done.err, done.err
    assert not any(one["notes"] for one in json.loads((tmp_path / "summary.json").read_text())["sources"])
    same_picks(lines(tmp_path / "faces.jsonl"), on_cpu)


def test_a_run_whose_decoder_is_lost_ends_and_keeps_no_file_that_was_cut_short(
    clips: list[Path], on_cpu: list[dict[str, Any]], tmp_path: Path
) -> None:
    """FFmpeg's errors look like damage, which a file would be read past."""
    run = ("run", *clips, "-o", tmp_path, "--device", "cpu", "--decode", "cuda", "--resume", "--jobs", "1")
    # Of the first file none is missing; the second breaks off.
    lost = on_gpu(*run, DECODES="30")
    assert lost.code == 6 and "FFmpeg cannot open CUDA device 0: it is missing, lost" in lost.err, lost.err
    done = on_gpu(*run, DECODES="1000000")
    assert done.code == 0, done.err
    same_picks(lines(tmp_path / "faces.jsonl"), on_cpu)


def same_picks(ours: list[dict[str, Any]], on_cpu: list[dict[str, Any]]) -> None:
    """The faces of the same tracks. NV12 is sampled in another way, so of two frames as good the other may be taken."""
    assert [one["id"] for one in ours] == [one["id"] for one in on_cpu]
    for one, other in zip(ours, on_cpu, strict=True):
        assert one["quality"] == pytest.approx(other["quality"], abs=1)


SERVE = ("serve", "--http", "off", "--preset", "live")


def test_a_service_that_loses_its_card_ends(clips: list[Path], tmp_path: Path) -> None:
    """It can never use it again; whoever restarts services gives it another process, which can."""
    ended = on_gpu(*SERVE, "--rtsp", clips[0], "-o", tmp_path, "--device", "cuda", "--decode", "cuda", LOST_AFTER="12")
    assert ended.code == 6 and LOST in ended.err, ended.err
    assert "decoded on the CPU: the GPU cannot decode this h264 video" in ended.err


def test_a_service_whose_card_is_lost_by_a_picture_to_score_ends_too(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="the HTTP side needs the serve extra")
    port = free_port()
    idle = ("--rtsp", "rtsp://127.0.0.1:9/nobody", "--http", f"127.0.0.1:{port}", "--preset", "live")
    process = subprocess.Popen(
        [sys.executable, SIMULATED, "serve", *idle, "-o", tmp_path, "--device", "cuda"],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"LOST_AFTER": "12"},
    )  # fmt: skip
    try:
        client = Client(f"http://127.0.0.1:{port}")
        until = monotonic() + 120
        picture = cv2.imencode(".png", astronaut()[..., ::-1])[1].tobytes()
        answers = []
        while process.poll() is None and monotonic() < until:
            with suppress(OSError):
                answers.append(client.send("/api/score", picture))
            sleep(0.1)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 6, said
    finally:
        process.kill()
        process.wait()
    assert LOST in said and "Traceback" not in said, said
    lost = [answer for answer in answers if answer.status == 503 and LOST in answer.json["error"]]
    assert lost and {answer.status for answer in answers} <= {200, 503}


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU to decode on")
def test_a_service_without_the_card_that_it_is_to_decode_on_does_not_start(clips: list[Path], tmp_path: Path) -> None:
    ended = streamgate(*SERVE, "--rtsp", clips[0], "-o", tmp_path, "--decode", "cuda")
    assert ended.code == 6 and "--decode cpu" in ended.err
