"""`streamgate models`: pull from a mirror over loopback, list, verify."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import streamgate
from support.faulty_server import Answer, faulty
from support.real_weights import shared_part


@pytest.fixture(scope="module")
def mirror() -> Iterator[str]:
    """The original weight files served by their names, as a mirror would."""
    folder = shared_part("weights")
    pytest.importorskip("torch", reason="converting the standard weights needs torch")
    pytest.importorskip("onnx", reason="converting the standard weights needs onnx")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_pull_makes_the_gate_usable_and_a_second_pull_does_nothing(mirror: str, tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert streamgate("models", "verify", models=models, STREAMGATE_MIRROR=mirror).code in (0, 4)
    first = streamgate("models", "pull", "--mirror", mirror, models=models)
    assert first.code == 0, first.err
    states = json.loads(streamgate("models", "list", "--json", models=models).out)
    standard = [state for state in states if state["tier"] == "standard"]
    assert {state["state"] for state in standard} == {"ready"}
    assert {role for state in standard for role in state["roles"]} == {"detector", "recognizer", "pose"}
    assert all(state["licence"] and state["training_data"] for state in states)
    used = [role for state in states for role in state["in_use"]]
    assert len(used) == len(set(used)) and {"detector", "recognizer", "pose"} <= set(used)
    again = streamgate("models", "pull", models=models, STREAMGATE_MIRROR=mirror)
    assert again.code == 0 and again.err.count("present") == 3
    assert streamgate("models", "verify", models=models).code == 0


def test_changed_weights_are_refused(mirror: str, tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert streamgate("models", "pull", "--mirror", mirror, models=models).code == 0
    (onnx,) = (models / "retinaface-mnet025-foamliu").glob("*.onnx")
    onnx.write_bytes(onnx.read_bytes()[:-1] + b"x")
    assert streamgate("models", "verify", models=models).code == 4
    done = streamgate(
        "run",
        shared_part("videos/lipnet_grid_bbaf2n.mpg"),
        "-o",
        tmp_path / "out",
        "--models",
        "standard",
        models=models,
    )
    assert done.code == 4 and "models pull" in done.err


def test_a_mirror_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = streamgate("models", "pull", "--mirror", "http://127.0.0.1:9", models=tmp_path / "models")
    assert done.code == 4 and "127.0.0.1:9" in done.err
    assert streamgate("models", "pull", "nosuchtier", models=tmp_path / "models").code == 2


def test_a_pull_that_broke_off_goes_on(mirror: str, tmp_path: Path) -> None:
    content = shared_part("weights/retinaface_mnet025_foamliu.pth").read_bytes()
    models = tmp_path / "models"
    with faulty(content, [Answer(cut=1_000_000), Answer(status=404)]) as server:
        broken = streamgate("models", "pull", "--mirror", server.url, models=models)
    told = broken.err.splitlines()
    assert broken.code == 4 and told[0].startswith("downloading") and len(told) == 2, broken.err
    assert [path.name for path in models.rglob("*.pth")] == []
    with faulty(content, [Answer()]) as server:
        streamgate("models", "pull", "--mirror", server.url, "--quiet", models=models)
    assert server.requests[0]["Range"] == "bytes=1000000-"
    done = streamgate("models", "pull", "--mirror", mirror, models=models)
    assert done.code == 0 and "retinaface-mnet025-foamliu: present" in done.err


def test_the_list_fits_100_columns_and_shows_all_terms(tmp_path: Path) -> None:
    shown = streamgate("models", "list", models=tmp_path).out
    states = json.loads(streamgate("models", "list", "--json", models=tmp_path).out)
    lines = shown.splitlines()
    assert max(map(len, lines[:-1])) <= 100  # the last one is a path
    assert all(state["name"] in shown and state["licence"].split(";")[0] in shown for state in states)
