"""`models import` of recognizers and detectors that are ONNX files already, described by a card."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402

from streamgate.convert import retinaface  # noqa: E402
from streamgate.measures.serfiq import closed_form_spread  # noqa: E402
from streamgate.networks import Networks  # noqa: E402
from streamgate.networks.detector import Detector  # noqa: E402
from streamgate.networks.device import Device  # noqa: E402
from streamgate.networks.recognizer import Recognizer  # noqa: E402
from streamgate.networks.sessions import RowSession, Session  # noqa: E402
from streamgate.weights import store  # noqa: E402
from support.command import inside  # noqa: E402
from support.media import astronaut_frames  # noqa: E402
from support.real_weights import shared_part  # noqa: E402


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMGATE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def saved(
    network: nn.Module,
    path: Path,
    shape: tuple[int, ...],
    *,
    opset: int = 11,
    open_axes: Any = None,
    outputs: list[str] | None = None,
) -> Path:
    """An ONNX file as other exporters write it: fixed axes, unless some are named, and an older operator set."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network.eval(), (torch.zeros(shape),), buffer, dynamo=False, opset_version=opset,
                          input_names=["data"], output_names=outputs, dynamic_axes=open_axes)  # fmt: skip
    path.write_bytes(buffer.getvalue())
    return path


def imported(file: Path, models: Path, **card: Any) -> store.Weights:
    (file.with_suffix(".json")).write_text(json.dumps(card))
    done = inside("models", "import", file, "--card", file.with_suffix(".json"))
    assert done.code == 0, done.err
    found = store.from_receipt(models / "imported" / file.stem, "imported")
    assert found is not None
    return found


class Backbone(nn.Module):
    """Ends as ready recognizers do: an affine layer, batch norm or none, sometimes a normalisation."""

    def __init__(self, ending: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.ending = ending
        self.body = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.PReLU(8), nn.AvgPool2d(3, 3))
        self.layer = nn.Conv2d(32, 16, 1) if ending == "conv" else nn.Linear(32, 16, bias=ending != "matmul")
        self.norm = nn.BatchNorm1d(16)
        with torch.no_grad():
            for tensor in (self.norm.weight, self.norm.bias, self.norm.running_mean, self.norm.running_var):
                tensor.copy_(torch.rand(16) + 0.5)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).reshape(1, -1) if len(x) == 1 else self.body(x).flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        x = self.layer(x[:, :, None, None]).flatten(1) if self.ending == "conv" else self.layer(x)
        if self.ending == "relu":
            return torch.relu(x)
        x = self.norm(x) if self.ending != "conv" else x
        return x / x.norm(dim=1, keepdim=True) if self.ending == "matmul" else x


@pytest.mark.parametrize("ending", ["gemm", "matmul", "conv"])
def test_a_ready_recognizer_gets_serfiqs_head(ending: str, tmp_path: Path, models: Path) -> None:
    network = Backbone(ending)
    file = saved(network, tmp_path / "w600k.onnx", (1, 3, 112, 112))
    made = imported(file, models, role="recognizer", identity={"threshold": 0.4, "fmr": 1e-6},
                    input={"colour": "BGR", "mean": [10, 20, 30], "scale": [0.01, 0.01, 0.01]})  # fmt: skip
    assert (made.roles, made.name, made.identity_threshold) == (("recognizer",), "w600k", 0.4)
    faces = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    recognizer = Recognizer(Session(made, "cpu"))
    found, (weight, bias) = recognizer.run(faces), recognizer.last_affine()
    planes = (faces[..., ::-1].transpose(0, 3, 1, 2) - np.float32([10, 20, 30])[:, None, None]) * np.float32(0.01)
    with torch.no_grad():
        want = network(torch.from_numpy(np.ascontiguousarray(planes, np.float32))).numpy()
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (found.embedding, want)]
    assert np.abs(unit[0] - unit[1]).max() < 1e-4
    for x, spread in zip(found.features, found.spread, strict=True):
        assert spread == pytest.approx(closed_form_spread(weight, x, bias, 0.5), rel=1e-3)
    # Its batch axis was fixed at one.
    assert RowSession(made, Device("cpu", "as requested")).run(planes.astype(np.float32))["embedding"].shape == (3, 16)


def test_what_is_no_ready_recognizer_is_refused_with_the_reason(tmp_path: Path, models: Path) -> None:
    good, small, relu = (
        saved(Backbone(ending), tmp_path / f"{name}.onnx", (1, 3, side, side))
        for name, ending, side in (("good", "gemm", 112), ("small", "gemm", 96), ("relu", "relu", 112))
    )
    noise = tmp_path / "noise.onnx"
    noise.write_bytes(bytes(range(256)))
    outside = onnx.load(good)
    outside.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    (tmp_path / "outside.onnx").write_bytes(outside.SerializeToString())
    card = {"role": "recognizer"}
    for file, table, code, words in (
        (good, None, 2, "--card"),
        (good, {"role": "ifqa"}, 4, '"role" must be'),
        (good, card | {"layout": "scrfd"}, 4, "only for detectors"),
        (good, card | {"colour": "RGB"}, 4, "with the keys"),
        (good, card | {"outputs": {"embedding": "683"}}, 4, "has no output 683"),
        (good, card | {"input": {"mean": [1, 2]}}, 4, "`input` description"),
        (good, card | {"identity": {"threshold": 3, "fmr": 1e-6}}, 4, "identity threshold"),
        (small, card, 4, "takes pictures of 96x96"),
        (relu, card, 4, "affine"),
        (noise, card, 4, "not an ONNX file"),
        (tmp_path / "outside.onnx", card, 4, "outside the file"),
    ):
        path = tmp_path / "card.json"
        path.write_text(json.dumps(table))
        done = inside("models", "import", file, *(["--card", path] if table else []))
        assert done.code == code and words in done.err and "Traceback" not in done.err, (words, done.err)
    assert not (models / "imported").exists()


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / (float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - shared)


def test_yunet_finds_the_face_that_our_detector_finds(tmp_path: Path, models: Path) -> None:
    file = tmp_path / "yunet.onnx"
    file.write_bytes(shared_part("weights/yunet_n_dynamic.onnx").read_bytes())
    made = imported(file, models, role="detector", layout="yunet",
                    input={"colour": "BGR", "mean": [0, 0, 0], "scale": [1, 1, 1]})  # fmt: skip
    picture = np.asarray(next(iter(astronaut_frames(1, (480, 360), zoom=1.6))))
    pictures = [picture, np.ascontiguousarray(picture[:, ::-1]), np.ascontiguousarray(picture[:300, :400])]
    with Networks.open(device="cpu") as networks:
        expected = networks.detector.detect(pictures)
    for (face, *others), (want, *_) in zip(Detector(Session(made, "cpu")).detect(pictures), expected, strict=True):
        assert not others and overlap(face.box, want.box) > 0.7
        assert np.abs(face.landmarks - want.landmarks).max() < 0.1 * (want.box[2] - want.box[0])


class BrightCells(nn.Module):
    """SCRFD's layout: a face where a cell is bright, all of the same size in strides, and no batch axis."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores, boxes, points = [], [], []
        for stride in (8, 16, 32):
            bright = torch.sigmoid(nn.functional.avg_pool2d(x, stride).mean(dim=1, keepdim=True) * 20 - 10)
            both = torch.cat([bright, bright * 0.2], dim=1)
            scores.append(both.permute(2, 3, 0, 1).reshape(-1, 1))
            boxes.append(scores[-1] * 0 + torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
            points.append(scores[-1] * 0 + torch.arange(10.0)[None] / 10)
        return (*scores, *boxes, *points)


def test_scrfd_without_a_batch_axis_is_decoded(tmp_path: Path, models: Path) -> None:
    file = saved(BrightCells(), tmp_path / "scrfd.onnx", (1, 3, 64, 64), open_axes={"data": {2: "h", 3: "w"}})
    made = imported(file, models, role="detector", layout="scrfd", input={"mean": [0] * 3, "scale": [1 / 255] * 3})
    pictures = [np.zeros((96, 160, 3), np.uint8) for _ in range(3)]
    pictures[0][16:24, 40:48] = 255
    pictures[2][32:64, 96:128] = 255
    for bound in (False, True):  # True: the way of a GPU
        session = Session(made, Device("cpu", "as requested", bound=bound))
        assert session.batch == 1
        found = Detector(session, nms_iou=0.99).detect(pictures, threshold=0.9)
        (face,), none, many = found
        assert none == [] and len(many) == 1 + 4 + 16
        assert face.box.tolist() == [40 - 8, 16 - 16, 40 + 24, 16 + 32]
        assert np.allclose(face.landmarks, np.array([40, 16]) + np.arange(10).reshape(5, 2) / 10 * 8)
        assert any(np.allclose(one.box, [96 - 32, 32 - 64, 96 + 96, 32 + 128]) for one in many)


class Pixels(nn.Module):
    """The layout `boxes`: a face of 40 x 50 px wherever a block of 16 px is bright."""

    def __init__(self, change: Callable[..., tuple[torch.Tensor, ...]] = lambda *outputs: outputs) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        bright = nn.functional.avg_pool2d(x, 16).mean(dim=1)
        scores = torch.sigmoid(bright * 20 - 10).flatten(1)
        ones = torch.ones_like(bright)
        corner = (torch.stack([ones.cumsum(2), ones.cumsum(1)], 3) - 1).flatten(1, 2) * 16
        places = torch.tensor([[10.0, 15], [30, 15], [20, 25], [12, 38], [28, 38]])
        boxes = torch.cat([corner, corner + torch.tensor([40.0, 50.0])], 2)
        return self.change(scores, boxes, (corner[:, :, None] + places).flatten(2))


@pytest.mark.parametrize(
    "change",
    [
        lambda s, b, m: (s, b, m),
        lambda s, b, m: (s[..., None], b, m.reshape(1, -1, 5, 2)),
        lambda s, b, m: (s[0], b[0], m[0]),
    ],
    ids=["as documented", "an axis more", "no batch axis"],
)
def test_outputs_in_pixels_are_taken_as_they_are(tmp_path: Path, models: Path, change: Any) -> None:
    file = saved(Pixels(change), tmp_path / "pixels.onnx", (1, 3, 64, 64), open_axes={"data": {2: "h", 3: "w"}})
    made = imported(file, models, role="detector", layout="boxes", input={"mean": [0] * 3, "scale": [1 / 255] * 3})
    picture = np.zeros((96, 160, 3), np.uint8)
    picture[32:48, 64:80] = 255
    empty, (face,) = Detector(Session(made, "cpu")).detect([np.zeros((64, 96, 3), np.uint8), picture], threshold=0.9)
    assert empty == [] and face.box.tolist() == [64, 32, 104, 82]
    assert face.landmarks.tolist() == [[74, 47], [94, 47], [84, 57], [76, 70], [92, 70]]


def chosen(scores: torch.Tensor, *others: torch.Tensor, least: float) -> tuple[torch.Tensor, ...]:
    """As after non-maximum suppression: only the faces with sufficient scores."""
    kept = torch.nonzero(scores[0] >= least).flatten()
    return tuple(each[:, kept] for each in (scores, *others))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s, b, m: (torch.stack([1 - s, s], 2), b, m), "boxes has shape [1, 48, 4]"),
        (lambda s, b, m: (s, b.transpose(1, 2), m), "has shape [1, 4, 48] for a picture of 96x128, but boxes of"),
        (lambda s, b, m: (s, torch.cat([b, b[..., :1]], 2), m), "has 48 rows, each with 4 values"),
        (lambda s, b, m: (s, b, m[:, ::2]), "landmarks has shape [1, 24, 10]"),
        (lambda s, b, m: (s, b), "has no output landmarks; it has scores, boxes"),
        (lambda s, b, m: (s, b * float("nan"), m), "values that are not finite"),
        (lambda s, b, m: chosen(s, b, m, least=1e-4), "scores depends on what the picture shows"),
        (lambda s, b, m: chosen(s, b, m, least=2.0), "scores depends on what the picture shows"),
    ],
    ids=["two classes", "transposed", "five values", "fewer landmarks", "no landmarks", "nan", "some", "none"],
)
def test_outputs_in_pixels_that_do_not_fit_are_refused_with_the_reason(
    tmp_path: Path, models: Path, change: Any, words: str
) -> None:
    card = {"role": "detector", "layout": "boxes", "input": {"mean": [0] * 3, "scale": [1 / 255] * 3}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    names = ["scores", "boxes", "landmarks"][: len(change(*torch.zeros(3, 1, 1, 1)))]
    axes = {"data": {2: "h", 3: "w"}}
    file = saved(Pixels(change), tmp_path / "pixels.onnx", (1, 3, 64, 64), open_axes=axes, outputs=names)
    done = inside("models", "import", file, "--card", tmp_path / "card.json")
    assert done.code == 4 and words in done.err and "Traceback" not in done.err, done.err
    assert not list(models.glob("imported/*/receipt.json"))


def test_a_retinaface_of_one_size_and_with_logits_is_opened(tmp_path: Path, models: Path) -> None:
    torch.manual_seed(0)
    network = retinaface.RetinaFace("mobilenet025").eval()
    file = saved(network, tmp_path / "retina.onnx", (1, 3, 64, 64))
    made = imported(file, models, role="detector", layout="retinaface",
                    input={"colour": "BGR", "mean": [104, 117, 123], "scale": [1, 1, 1]})  # fmt: skip
    session = RowSession(made, Device("cpu", "as requested"))
    planes = cv2.GaussianBlur(np.random.default_rng(1).normal(0, 200, (96, 128, 6)).astype(np.float32), (0, 0), 2)
    batch = np.ascontiguousarray(planes.reshape(96, 128, 2, 3).transpose(2, 3, 0, 1))
    found = session.run(batch)
    with torch.no_grad():
        loc, logits, landmarks = network(torch.from_numpy(batch))
    for name, want in (("loc", loc), ("conf", torch.softmax(logits, dim=-1)[..., 1]), ("landm", landmarks)):
        assert np.abs(found[name] - want.numpy()).max() < 1e-4 * max(1, want.abs().max())

    fixed = tmp_path / "fixed.onnx"
    fixed.write_bytes(file.read_bytes())
    (tmp_path / "fixed.json").write_text(json.dumps({"role": "detector", "layout": "yunet"}))
    done = inside("models", "import", fixed, "--card", tmp_path / "fixed.json")
    assert done.code == 4 and 'map them in the card' in done.err, done.err
