"""The detector of the set `open` and the training of its head: models/open/openvino_graph, ssd, parts and points."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402

from models.common.images import DataError  # noqa: E402
from models.detector import faces as rows_of  # noqa: E402
from models.open import points  # noqa: E402
from models.open.openvino_graph import IRNetwork  # noqa: E402
from models.open.parts import SIDE, Changes, Faces, PartBatches  # noqa: E402
from models.open.ssd import (  # noqa: E402
    AROUND,
    GROUPS,
    PART,
    SCALE,
    VALUES,
    Found,
    Parts,
    Pixels,
    PointsHead,
    Published,
    corners,
    landmarks,
    shrunk,
)
from streamgate.networks.detector import Detector  # noqa: E402
from streamgate.networks.sessions import Session  # noqa: E402
from streamgate.weights.store import from_card  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "models/open/detector"


class Ir:
    """Writes a small network in OpenVINO's format."""

    def __init__(self) -> None:
        self.layers, self.edges, self.numbers = [], [], b""

    def add(self, name: str, kind: str, data: str = "", *inputs: int) -> int:
        number = len(self.layers)
        self.layers.append(f'<layer id="{number}" name="{name}" type="{kind}">{data}</layer>')
        for port, source in enumerate(inputs):
            self.edges.append(f'<edge from-layer="{source}" from-port="9" to-layer="{number}" to-port="{port}"/>')
        return number

    def constant(self, values: np.ndarray) -> int:
        start, content = len(self.numbers), values.astype("<f2").tobytes()
        self.numbers += content
        shape = ",".join(map(str, values.shape))
        told = f'<data element_type="f16" offset="{start}" shape="{shape}" size="{len(content)}"/>'
        return self.add(f"constant {start}", "Const", told)

    def write(self, folder: Path) -> tuple[Path, str]:
        binary = folder / "net.bin"
        binary.write_bytes(self.numbers)
        layers, edges = "".join(self.layers), "".join(self.edges)
        binary.with_suffix(".xml").write_text(f"<net><layers>{layers}</layers><edges>{edges}</edges></net>")
        return binary, hashlib.sha256(self.numbers).hexdigest()


def convolution(stride: int, pads: str = "1,1", ends: str = "1,1") -> str:
    return f'<data dilations="1,1" pads_begin="{pads}" pads_end="{ends}" strides="{stride},{stride}"/>'


def small_network(rng: np.random.Generator) -> tuple[Ir, dict[str, np.ndarray]]:
    """input -> convolution, bias, ReLU -> depthwise convolution; and a layer of an unsupported type."""
    ir, values = Ir(), {}
    given = ir.add("data", "Parameter")
    for name, shape in (("kernel", (4, 3, 3, 3)), ("bias", (1, 4, 1, 1)), ("deep", (4, 1, 1, 3, 3))):
        values[name] = rng.normal(size=shape).astype("<f2").astype(np.float32)
    first = ir.add("first", "Convolution", convolution(2), given, ir.constant(values["kernel"]))
    moved = ir.add("moved", "Add", "", first, ir.constant(values["bias"]))
    lit = ir.add("lit", "ReLU", "", moved)
    deep = ir.add("deep", "GroupConvolution", convolution(1), lit, ir.constant(values["deep"]))
    ir.add("odd", "SoftMax", "", deep)
    return ir, values


def test_a_network_in_openvinos_format_is_computed(tmp_path: Path) -> None:
    ir, values = small_network(np.random.default_rng(0))
    binary, digest = ir.write(tmp_path)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, 10, 8)).astype(np.float32))
    deep, lit = IRNetwork(binary, digest, ["deep", "lit"])(x)
    kernel, bias, depthwise = (torch.from_numpy(values[name]) for name in ("kernel", "bias", "deep"))
    want = torch.relu(nn.functional.conv2d(x, kernel, bias.flatten(), 2, 1))
    assert torch.allclose(lit, want, atol=1e-5)
    assert torch.allclose(deep, nn.functional.conv2d(want, depthwise[:, 0], None, 1, 1, groups=4), atol=1e-5)


def test_files_that_are_not_the_published_ones_are_refused(tmp_path: Path) -> None:
    ir, _ = small_network(np.random.default_rng(0))
    binary, digest = ir.write(tmp_path)
    described = binary.with_suffix(".xml")
    text = described.read_text()
    with pytest.raises(DataError, match="not the published file"):
        IRNetwork(binary, "0" * 64, ["deep"])
    for wanted, change, line in (
        ("odd", ("", ""), "the operator SoftMax is not supported"),
        ("absent", ("", ""), "not an OpenVINO IR of this network"),
        ("deep", ('pads_end="1,1"', 'pads_end="0,0"'), "uneven padding"),
        ("deep", ("</net>", ""), "not an OpenVINO IR of this network"),
        ("deep", ('size="216"', 'size="2"'), "not an OpenVINO IR of this network"),
    ):
        described.write_text(text.replace(*change))
        with pytest.raises(DataError, match=line):
            IRNetwork(binary, digest, [wanted])
    described.unlink()
    with pytest.raises(DataError, match="the file is missing"):
        IRNetwork(binary, digest, ["deep"])


class Planted(Published):
    """Instead of the published network: one face wherever the picture is bright at the centre of a cell."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, face: torch.Tensor) -> list[Found]:
        bright = face.float().mean(3)
        found = []
        for group in GROUPS:
            step = int(group.step)
            y, x = (torch.arange(step // 2, side, step) for side in face.shape[1:3])
            scores = (bright[:, y][:, :, x] / 255).flatten(1)
            centres = torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], 1).float()
            boxes = torch.cat([centres, torch.full_like(centres, group.low)], 1).expand(len(face), -1, -1)
            found.append(Found(scores, boxes, scores))
        return found


def test_the_values_of_the_head_are_shares_of_the_part_that_it_sees() -> None:
    boxes, values = torch.tensor([[100.0, 50.0, 40.0, 60.0]]), torch.zeros(1, VALUES)
    assert corners(boxes).tolist() == [[80.0, 20.0, 120.0, 80.0]]
    assert landmarks(boxes, values).reshape(5, 2).unique(dim=0).tolist() == [[99.5, 49.5]]
    values[0, 2:4] = torch.tensor([0.25, -0.5]) / SCALE
    side = 60 * AROUND
    assert np.allclose(landmarks(boxes, values)[0, 2:4], [99.5 + side / 4, 49.5 - side / 2])


def test_a_part_shows_the_box_at_every_scale() -> None:
    picture = np.zeros((1, 256, 320, 3), np.uint8)
    picture[:, 96:160, 128:192] = 255  # a square of 64 px
    planes = shrunk(torch.from_numpy(picture))
    boxes = torch.tensor([[[160.0, 128.0, 64.0, 64.0]]])
    bright = round(PART / AROUND)
    for shrink in (1, 2, 4):
        part = Parts()(planes[shrink], boxes, shrink)
        assert part.shape == (1, 3, PART, PART)
        inside = (part[0, 0] > 0).sum(dim=1)
        assert abs(int(inside.max()) - bright) <= 2 and abs(int((inside > 0).sum()) - bright) <= 2, shrink
        assert float(part[0, 0, 0, 0]) == -1.0 and float(part[0, 0, PART // 2, PART // 2]) == 1.0


def test_the_boxes_with_the_highest_scores_get_landmarks_of_their_own() -> None:
    head = PointsHead().eval()
    with torch.no_grad():
        head.layers[-1].bias.fill_(1.0)
    face = torch.zeros(2, 160, 192, 3, dtype=torch.uint8)
    face[:] = 1
    face[0, 8 + 16 * 5, 8 + 16 * 7] = 200  # the centre of a cell of the first group
    scores, boxes, marks = Pixels(Planted(), head, torch.zeros(VALUES))(face)
    assert scores.shape == boxes.shape[:2] == marks.shape[:2] and int(scores[0].argmax()) == 5 * 12 + 7
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2 - 0.5
    own = (marks[..., :2] - middle)[..., 0] > 0.1
    assert bool(own[0, 5 * 12 + 7]) and own[0, :120].sum() == GROUPS[0].seen == 64
    assert bool(((marks - middle.repeat(1, 1, 5))[~own].abs() < 1e-4).all())


def faces(*boxes: tuple[float, float, float, float]) -> torch.Tensor:
    rows = rows_of.rows(len(boxes))
    rows[:, rows_of.BOX] = boxes
    rows[:, rows_of.SCORE] = rows[:, rows_of.HAS_POINTS] = 1
    middle = (rows[:, :2] + rows[:, 2:4]) / 2
    rows[:, rows_of.POINTS] = np.tile(middle, 5) + np.tile([-4, -4, 4, -4, 0, 0, -3, 5, 3, 5], (len(rows), 1))
    return torch.from_numpy(rows)


def test_boxes_are_matched_with_the_face_that_they_show() -> None:
    known = faces((0, 0, 20, 20), (100, 100, 140, 140))
    boxes = torch.tensor([[10.0, 10, 20, 22], [121, 121, 40, 40], [60, 60, 20, 20], [12, 10, 20, 20]])
    scores = torch.tensor([0.9, 0.8, 0.9, 0.1])
    kept, labels = points.matched(scores, boxes, known)
    assert kept.tolist() == boxes[:2].tolist() and torch.equal(labels, known)
    known[1, rows_of.SCORE] = 0  # neither a face nor background
    assert len(points.matched(scores, boxes, known)[0]) == 1
    assert points.matched(torch.zeros(4), boxes, known)[0].shape == (0, 4)


class Drawn:
    """In place of a PictureSet: black pictures, with white spots at the landmarks of a grey face."""

    def __init__(self) -> None:
        self.faces, self.widths = [], []
        for x, y, side in ((100, 90, 60), (140, 100, 24), (60, 60, 110)):
            self.faces.append(faces((x - side / 2, y - side / 2, x + side / 2, y + side / 2)).numpy())
            self.faces[-1][:, rows_of.POINTS] = (spots(side) + np.array([x - 0.5, y - 0.5])).reshape(-1)
            self.widths.append(240)

    def picture(self, index: int) -> np.ndarray:
        picture = np.zeros((200, 240, 3), np.uint8)
        x1, y1, x2, y2 = (int(v) for v in self.faces[index][0, :4])
        picture[max(0, y1) : y2, max(0, x1) : x2] = 90
        for x, y in self.faces[index][0, rows_of.POINTS].reshape(5, 2):
            cv2.circle(picture, (round(float(x)), round(float(y))), max(1, (x2 - x1) // 16), (255, 255, 255), -1)
        return picture


def spots(side: float) -> np.ndarray:
    return side * np.array([[-0.2, -0.15], [0.2, -0.15], [0.0, 0.05], [-0.15, 0.25], [0.15, 0.25]])


TURNED = Changes(1.0, 20.0, toned=0.0, grey=0.0, night=0.0, blurred=0.0, small=0.0, noisy=0.0, coded=0.0)
CHANGED = Changes(1.0, 20.0, toned=0.5, grey=0.2, night=0.1, blurred=0.2, small=0.2, noisy=0.2, coded=0.2)


def test_the_values_of_a_training_part_are_where_the_landmarks_are_seen() -> None:
    known = Faces(Drawn(), range(3))
    assert known.pictures.shape == (3, SIDE, SIDE, 3)
    assert np.allclose(known.points, spots(1.0), atol=1e-5)
    one = PartBatches(known, 60, TURNED, 3)[0]
    for part, values in zip(one["part"], one["values"], strict=True):
        for x, y in np.round(values.reshape(5, 2) * SCALE * PART + PART / 2 - 0.5).astype(int):
            assert part[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].max() > 170, (x, y)
    again = PartBatches(known, 60, TURNED, 3)
    assert np.array_equal(again[0]["part"], one["part"]) and not np.array_equal(again[1]["part"], one["part"])
    usual = known.average_values().reshape(5, 2) * SCALE * AROUND
    assert np.allclose(usual, spots(1.0), atol=1e-4)


def test_the_head_learns_where_the_landmarks_are_and_a_resumed_run_repeats_the_steps() -> None:
    batches = PartBatches(Faces(Drawn(), range(3)), 48, CHANGED, 3)

    def trainer() -> points.PointsTrainer:
        return points.PointsTrainer(points.Settings(60, 5, 3e-3, 0.9, 1e-4), Planted(), 0)

    one, again = trainer(), trainer()
    losses = [one.step(batches[i]) for i in range(30)]
    again.load_state(torch_copy(one.state()))
    rest = [one.step(batches[i]) for i in range(30, 60)]
    assert [again.step(batches[i]) for i in range(30, 60)] == rest
    said = [found["points %"] for found in losses + rest]
    assert np.mean(said[-5:]) < 0.4 * np.mean(said[:5])
    image = np.zeros((1, 160, 192, 3), np.uint8)
    image[:, 30:120, 30:120] = 250
    view = {"image": torch.from_numpy(image), "faces": faces((53, 53, 91, 91))[None]}
    assert "boxes from 24 px: " in one.look([view])


def torch_copy(state: dict[str, Any]) -> dict[str, Any]:
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_without_labels_or_with_another_file_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "other.bin").write_bytes(b"other")
    (tmp_path / "other.xml").write_text("<net/>")
    assert points.main([str(tmp_path / "other.bin"), "--export", "--target", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "not the published file" in said and len(said.strip().splitlines()) == 1
    with pytest.raises(SystemExit) as ended:
        points.main([str(tmp_path / "other.bin")])
    assert ended.value.code == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other.bin", "other.xml"]


def test_the_shipped_detector_does_not_depend_on_the_batch_and_finds_turned_pictures() -> None:
    data = pytest.importorskip("skimage.data")
    weights = from_card(FOLDER, "open")
    assert weights is not None
    detector = Detector(Session(weights, "cpu"))
    portrait = np.ascontiguousarray(data.astronaut())
    empty = np.full((512, 512, 3), 90, np.uint8)
    alone = detector.detect([portrait])[0]
    together = detector.detect([empty, portrait, portrait[:, ::-1].copy()])
    assert len(alone) == 1 and together[0] == []
    assert np.array_equal(alone[0].box, together[1][0].box)
    marks, mirrored = alone[0].landmarks, together[2][0].landmarks
    assert np.abs(marks[[0, 2, 3], 0] - (511 - mirrored[[1, 2, 4], 0])).max() < 6
    left, top, right, bottom = alone[0].box
    assert ((marks > (left, top)) & (marks < (right, bottom))).all() and 80 < right - left < 140
