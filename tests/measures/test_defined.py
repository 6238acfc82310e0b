"""Measures that a preset defines without code, by an ONNX file of its own or a metric of pyiqa."""

from __future__ import annotations

import gzip
import json
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.engine import Engine
from streamgate.networks import io_binding
from streamgate.networks.device import Device
from streamgate.store.records import score_record
from support.command import Done, inside, lines, streamgate
from support.media import astronaut, astronaut_frames, write_clip

onnx = pytest.importorskip("onnx")


def network(
    path: Path, *, size: int | str = 64, batch: int | str = "n", inputs: int = 1, per_pixel: bool = False,
    of_batch: bool = False, broken: bool = False,
) -> Path:  # fmt: skip
    """An ONNX file: the mean of its float32 picture (batch, 3, size, size) as `value`, and the red channel as `map`."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    axes = helper.make_tensor("axes", onnx.TensorProto.INT64, [3], [1, 2, 3])
    ends = [helper.make_tensor(name, onnx.TensorProto.INT64, [1], [value])
            for name, value in (("zero", 0), ("one", 1))]  # fmt: skip
    over = [2, 3] if per_pixel else [0, 1, 2, 3] if of_batch else [1, 2, 3]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=over, keepdims=0),
        helper.make_node("Log", ["mean"], ["value"]) if broken else helper.make_node("Identity", ["mean"], ["value"]),
        helper.make_node("Slice", ["x", "zero", "one", "one"], ["map"]),
    ]
    given = [helper.make_tensor_value_info(name, kind, [batch, 3, size, size]) for name in ("x", "y")[:inputs]]
    outputs = [helper.make_tensor_value_info("value", kind, None), helper.make_tensor_value_info("map", kind, None)]
    graph = helper.make_graph(nodes, "mean", given, outputs, [axes, *ends][1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def preset(folder: Path, *rows: str, name: str = "bright", file: str = "mean.onnx") -> Path:
    path = folder / "mine.toml"
    path.write_text("\n".join([f"[measures.{name}]", f'onnx = "{file}"', "size = 64", *rows]))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "a.mp4", astronaut_frames(12, (640, 480), zoom=1.6))


@pytest.fixture
def portrait(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "face.png"), cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR))
    return tmp_path / "face.png"


def scored(done: Done, name: str = "bright") -> dict[str, object]:
    assert done.code == 0, done.err
    (face,) = json.loads(done.out)["faces"]
    return face["measures"][name] | {"quality": face["quality"], "gate": face["gate"]}


def test_it_measures_rejects_and_ranks_like_the_others(clip: Path, tmp_path: Path) -> None:
    network(tmp_path / "mean.onnx")
    path = preset(tmp_path, "x0 = 0.4", "w = 0.2", "weight = 0.7", 'label = "Brightness"')
    out = tmp_path / "out"
    done = streamgate("run", clip, "-o", out, "--preset", path)
    assert done.code == 0, done.err
    (face,) = lines(out / "faces.jsonl")
    told = face["measures"]["bright"]
    assert told["status"] == "ok" and 0 < told["raw"] < 1
    assert told["scalar"] == pytest.approx(100 / (1 + np.exp(-(told["raw"] - 0.4) / 0.2)), abs=1e-3)
    summary = json.loads((out / "summary.json").read_text())
    assert "bright" in summary["measure_set"]
    (own,) = [one for one in summary["weights"] if one["name"] == "bright"]
    assert own["file"] == "mean.onnx" and len(own["sha256"]) == 64
    assert "Brightness" in (out / "report.html").read_text()
    with gzip.open(next(out.glob("*/candidates.jsonl.gz")), "rt") as file:
        full = [one for one in map(json.loads, file) if one["quality"] is not None]
    assert full and all(one["evidence"]["bright"] == one["measures"]["bright"]["raw"] for one in full)
    # Judged again without the network, which nothing needs any more.
    (tmp_path / "mean.onnx").unlink()
    done = inside("tune", out, "--set", "measures.bright.min=99", "--pictured")
    assert done.code == 0 and "rejected: Brightness too low" in done.out, done.err
    assert lines(out / "faces.jsonl") == []


def test_without_a_calibration_raw_values_are_shown_and_nothing_changes(clip: Path, tmp_path: Path) -> None:
    network(tmp_path / "mean.onnx")
    assert streamgate("run", clip, "-o", tmp_path / "plain").code == 0
    assert streamgate("run", clip, "-o", tmp_path / "own", "--preset", preset(tmp_path)).code == 0
    (plain,), (own,) = (lines(tmp_path / name / "faces.jsonl") for name in ("plain", "own"))
    told = own["measures"].pop("bright")
    assert told["status"] == "uncalibrated" and told["raw"] > 0 and told["scalar"] is None
    assert plain == own
    done = inside("tune", tmp_path / "plain", "--preset", tmp_path / "mine.toml")
    assert done.code == 2 and "the run did not have the measure bright" in done.err
    # Later it gets one, over what is stored.
    fitted = ("--set", "measures.bright.x0=0.4", "--set", "measures.bright.w=0.2")
    done = inside("tune", tmp_path / "own", *fitted, "--pictured")
    assert done.code == 0, done.err
    (now,) = lines(tmp_path / "own" / "faces.jsonl")
    assert now["measures"]["bright"]["status"] == "ok" and now["quality"] != plain["quality"]


def test_on_a_gpu_it_is_one_of_the_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a GPU, here with the CPU's provider."""
    monkeypatch.setattr(io_binding, "BATCH", 2)
    monkeypatch.setattr(io_binding, "_BATCHES", {})
    network(tmp_path / "mean.onnx")
    raws = []
    for device in (Device("cpu", "used like a GPU", bound=True), Device("cpu", "as requested")):
        with Engine(load_config(preset(tmp_path)), device=device) as engine:
            assert engine.on_gpu == engine.device.bound == device.bound
            (face,) = engine.score(astronaut())
            raws.append(face.measures["bright"].raw)
    assert raws[0] == pytest.approx(raws[1], abs=1e-3)


def test_input_crop_and_direction_are_as_the_card_says(portrait: Path, tmp_path: Path) -> None:
    network(tmp_path / "mean.onnx")

    def raw(*rows: str) -> float:
        return float(scored(inside("score", portrait, "--preset", preset(tmp_path, *rows)))["raw"])  # type: ignore[arg-type]

    plain = raw()
    assert raw("range = [-1, 1]") == pytest.approx(2 * plain - 1, abs=1e-5)
    assert raw("mean = [0.5, 0.5, 0.5]", "std = [0.25, 0.25, 0.25]") == pytest.approx((plain - 0.5) * 4, abs=1e-5)
    crops = {raw('crop = "loose"', "margin = 0.1"), raw('crop = "arcface"'), plain,
             raw('crop = "points"', "points = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.8]]")}  # fmt: skip
    assert len(crops) == 4
    path = preset(tmp_path, 'better = "lower"', "x0 = 0.5", "w = 0.1")
    falls = scored(inside("score", portrait, "--preset", path))
    assert (falls["scalar"] > 50) == (falls["raw"] < 0.5)  # type: ignore[operator]


def test_a_map_is_drawn_beside_the_face(portrait: Path, tmp_path: Path) -> None:
    network(tmp_path / "mean.onnx")
    done = inside(
        "score", portrait, "--preset", preset(tmp_path, 'output = "value"', 'map = "map"'), "--heatmap", tmp_path / "m"
    )
    assert done.code == 0, done.err
    assert sorted(one.name for one in (tmp_path / "m").iterdir()) == ["face_1.png", "face_1_bright.png"]


def test_one_that_gives_nan_is_an_error_of_that_face(portrait: Path, tmp_path: Path) -> None:
    network(tmp_path / "mean.onnx", broken=True)  # a logarithm
    path = preset(tmp_path, "range = [-3, -1]", "x0 = 0.0", "w = 1.0")
    told = scored(inside("score", portrait, "--preset", path))
    assert told["status"] == "error" and told["raw"] is None and told["quality"] is None
    assert not told["gate"]["passed"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("made", "rows", "words"),
    [
        ({"size": 112}, (), "takes pictures of 112x112; set measures.bright.size"),
        ({"inputs": 2}, (), "has 2 inputs"),
        ({"per_pixel": True}, (), "one number per face"),
        ({"of_batch": True}, (), "has shape [] for 2 faces; expected one number per face"),
        ({"batch": 4}, (), "takes batches of 4"),
        ({}, ('output = "quality"',), "has no output 'quality'; it has value, map"),
        ({}, ('colour = "grey"',), "takes 3 channels; set measures.bright.colour"),
    ],
)
def test_a_file_that_does_not_fit_its_card_is_named(
    made: dict[str, object], rows: Sequence[str], words: str, portrait: Path, tmp_path: Path
) -> None:
    network(tmp_path / "mean.onnx", **made)  # type: ignore[arg-type]
    done = inside("score", portrait, "--preset", preset(tmp_path, *rows))
    assert done.code == 4 and words in done.err and "mean.onnx" in done.err, done.err


@pytest.mark.parametrize(("content", "words"), [(None, "does not exist"), (b"no network", "cannot be run")])
def test_a_file_that_is_no_network_is_named(content: bytes | None, words: str, portrait: Path, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "mean.onnx").write_bytes(content)
    done = inside("score", portrait, "--preset", preset(tmp_path))
    assert done.code == 4 and words in done.err and "mean.onnx" in done.err, done.err


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("ifqa", (), "a measure with this name already exists"),
        ("Bright", (), "identifier in lower case"),
        ("bright", ("colour = 3",), "colour"),
        ("bright", ("sise = 64",), "sise"),
        ("bright", ("x0 = 1.0",), "x0 and w, or neither"),
        ("bright", ('crop = "points"',), "requires three points"),
        ("bright", ('pyiqa = "dbcnn"',), "set either onnx or pyiqa"),
        ("bright", ("std = [0.0, 1.0, 1.0]",), "std"),
    ],
)
def test_a_wrong_table_is_refused_in_words(name: str, rows: Sequence[str], words: str, tmp_path: Path) -> None:
    done = inside("measures", "--preset", preset(tmp_path, *rows, name=name))
    assert done.code == 2 and words in done.err and "[measures." in done.err, done.err


def test_it_is_listed_and_its_table_reads_back(tmp_path: Path) -> None:
    path = preset(tmp_path, "x0 = 0.4", "w = 0.2", 'hint = "mean of all pixels"')
    listed = inside("measures", "--preset", path)
    (row,) = [line for line in listed.out.splitlines() if line.startswith("bright")]
    assert "mean of all pixels" in row and "bright_low" in row
    (tmp_path / "again.toml").write_text(inside("measures", "--preset", path, "--toml").out)
    assert inside("measures", "--preset", tmp_path / "again.toml").out == listed.out


def test_what_one_preset_defines_is_nothing_to_another(portrait: Path, clip: Path, tmp_path: Path) -> None:
    network(tmp_path / "mean.onnx")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    one = preset(tmp_path / "one", 'label = "Mean"', file="../mean.onnx")
    two = preset(tmp_path / "two", "range = [-1, 1]", "[measures.second]", 'onnx = "../mean.onnx"', "size = 64",
                 file="../mean.onnx")  # fmt: skip
    with Engine(load_config(one)) as ours, Engine(load_config(two)) as theirs, Engine(load_config()) as plain:
        pixels = astronaut()
        (first,), (other,), (neither,) = (engine.score(pixels) for engine in (ours, theirs, plain))
        assert other.measures["bright"].raw == pytest.approx(2 * (first.measures["bright"].raw or 0) - 1, abs=1e-5)
        assert "second" in other.measures and "second" not in first.measures
        assert not {"bright", "second"} & neither.measures.keys()
        for engine, faces in ((ours, first), (plain, neither)):
            assert list(score_record("", [faces])["faces"][0]["measures"]) == list(engine.config.measures.recorded)
    # A report has the words of its own run, whatever else was read before it is written.
    out = tmp_path / "out"
    assert inside("run", clip, "-o", out, "--preset", one).code == 0
    before = (out / "report.html").read_bytes()
    assert inside("measures", "--preset", two).code == 0 and inside("report", out).code == 0
    assert (out / "report.html").read_bytes() == before


def test_pyiqa_is_asked_for_where_it_is_missing(portrait: Path, tmp_path: Path) -> None:
    with pytest.raises(ImportError):
        import pyiqa  # noqa: F401
    (tmp_path / "mine.toml").write_text('[measures.theirs]\npyiqa = "dbcnn"\n')
    done = inside("score", portrait, "--preset", tmp_path / "mine.toml")
    assert done.code == 2 and "pip install 'streamgate[iqa]'" in done.err


STAND_IN = """
import torch

class Metric:
    lower_better = {lower}
    metric_mode = "NR"
    def __call__(self, batch):
        assert batch.shape[1:] == (3, 128, 128) and 0 <= float(batch.min()) and float(batch.max()) <= 1
        return batch.mean(dim=(1, 2, 3))[:, None]

def create_metric(name, device):
    if name != "dbcnn":
        raise KeyError(name)
    return Metric()
"""
"""The part of pyiqa's interface that is used."""


def test_a_metric_of_pyiqa_is_called_as_its_interface_asks(
    portrait: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    (tmp_path / "mine.toml").write_text('[measures.theirs]\npyiqa = "dbcnn"\nsize = 128\n')

    class Metric:
        """The part of pyiqa's interface that is used."""

        lower_better = False
        metric_mode = "NR"

        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            assert batch.shape[1:] == (3, 128, 128) and float(batch.min()) >= 0 and float(batch.max()) <= 1
            return batch.mean(dim=(1, 2, 3))[:, None]

    def create_metric(name: str, device: object) -> Metric:
        return {"dbcnn": Metric()}[name]

    stand_in = types.ModuleType("pyiqa")
    stand_in.create_metric = create_metric  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyiqa", stand_in)
    told = scored(inside("score", portrait, "--preset", tmp_path / "mine.toml"), "theirs")
    assert told["status"] == "uncalibrated" and 0 < told["raw"] < 1  # type: ignore[operator]
    Metric.lower_better = True
    done = inside("score", portrait, "--preset", tmp_path / "mine.toml")
    assert done.code == 4 and 'better = "lower"' in done.err
    (tmp_path / "mine.toml").write_text('[measures.theirs]\npyiqa = "lpips"\n')
    done = inside("score", portrait, "--preset", tmp_path / "mine.toml")
    assert done.code == 4 and "cannot create the metric 'lpips'" in done.err
