"""The detector of the set `open` and its head: models/common/openvino_graph.py, models/open/ssd, parts and points."""

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
from models.common.openvino_graph import IRNetwork  # noqa: E402
from models.detector import faces as rows_of  # noqa: E402
from models.open import points, ssd  # noqa: E402
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
        ("odd", ("", ""), "net.xml: the operator SoftMax is not supported"),
        ("absent", ("", ""), "not an OpenVINO IR of this network"),
        ("deep", ('pads_end="1,1"', 'pads_end="0,0"'), "net.xml: convolutions with uneven padding"),
        ("deep", ("</net>", ""), "not an OpenVINO IR of this network"),
        ("deep", ('size="216"', 'size="2"'), "not an OpenVINO IR of this network"),
        ("deep", ('<data element_type="f16" offset="0"', '<none element_type="f16" offset="0"'), "KeyError"),
        ("deep", ('<edge from-layer="0"', '<edge from-layer="4"'), "layer 4 is its own input"),
    ):
        described.write_text(text.replace(*change))
        with pytest.raises(DataError, match=line):
            IRNetwork(binary, digest, [wanted])
    described.unlink()
    with pytest.raises(DataError, match="the file is missing"):
        IRNetwork(binary, digest, ["deep"])


LOCATION = (1.0, -2.0, 0.5, -0.5)


class Blocks(nn.Module):
    """In place of the published network: the third anchor of a cell is a face if the cell's first pixel is red."""

    def __init__(self, binary: Path, sha256: str, wanted: list[str]) -> None:
        super().__init__()
        groups = {group.output: group for group in GROUPS}
        assert wanted == [name + kind for name in groups for kind in ("_loc", "_conf_64")]
        self.groups = list(groups.values())

    def forward(self, planes: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for group in self.groups:
            stride = 128 if group.step == 100.0 else int(group.step)
            red = nn.functional.max_pool2d(planes[:, 2:], 1, stride)  # BGR
            others = 1 + 2 * len(group.ratios)
            maps.append(torch.cat([red * 0 + value for value in LOCATION] * (others + 1), 1))
            away, near = [red * 0, red * 0 - 20], [red * 0, red * 0.1 - 12.7]
            maps.append(torch.cat(away * 2 + near + away * (others - 2), 1))
        return maps


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published network is not in the repository, so that `Blocks` takes its place."""
    monkeypatch.setattr(ssd, "IRNetwork", Blocks)


@pytest.mark.usefixtures("blocks")
def test_the_best_anchor_of_a_cell_is_decoded() -> None:
    face = torch.zeros(2, 256, 384, 3, dtype=torch.uint8)
    face[1, 16 * 5, 16 * 7, 0] = 255
    face[1, ::32, ::32, 2] = 255  # blue
    found = Published(Path("net.bin"))(face)
    sizes = [(16, 24), (16, 24), (8, 12), (4, 6), (2, 3), (2, 3), (1, 2), (1, 2), (1, 1)]
    assert [one.scores.shape for one in found] == [(2, rows * columns) for rows, columns in sizes]
    assert bool((found[0].scores[0] < 1e-4).all()) and (found[0].scores[1] > 0.5).nonzero().tolist() == [[5 * 24 + 7]]
    across, down, width, height = found[0].boxes[1, 5 * 24 + 7].tolist()
    side = 2**0.5 * 16
    assert (across, down) == pytest.approx((7.5 * 16 + 0.1 * side, 5.5 * 16 - 0.2 * side / 2))
    assert (width, height) == pytest.approx((side * np.exp(0.1), side / 2 * np.exp(-0.1)))
    # The same picture scaled down by 4: the last group has one cell, and its boxes are in pixels of the whole picture.
    side = 4 * 2**0.5 * GROUPS[-1].low
    assert found[-1].boxes[0, 0, 2:].tolist() == pytest.approx([side * np.exp(0.1), side / 2 * np.exp(-0.1)])
    assert float(found[-1].boxes[0, 0, 0]) == pytest.approx(4 * 50 + 0.1 * side)


@pytest.mark.usefixtures("blocks")
def test_only_scores_that_no_neighbour_exceeds_are_peaks() -> None:
    face = torch.zeros(1, 96, 96, 3, dtype=torch.uint8)
    face[0, 32, 32:64:16, 0] = torch.tensor([200, 220], dtype=torch.uint8)
    face[0, 80, 80, 0] = 180
    found = Published(Path("net.bin"))(face)[0]
    # The cells without a face have the same score, so that each is a peak if no face is next to it.
    assert found.best[0, [2 * 6 + 2, 1 * 6 + 1]].tolist() == [0.0, 0.0]
    for cell in (2 * 6 + 3, 5 * 6 + 5, 0):
        assert float(found.best[0, cell]) == float(found.scores[0, cell]) > 0


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
    assert bool(own[0, 5 * 12 + 7]) and own[0, :120].sum() == GROUPS[0].seen
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
        self.faces = []
        for x, y, side in ((100, 90, 60), (140, 100, 24), (60, 60, 110)):
            self.faces.append(faces((x - side / 2, y - side / 2, x + side / 2, y + side / 2)).numpy())
            self.faces[-1][:, rows_of.POINTS] = (spots(side) + np.array([x - 0.5, y - 0.5])).reshape(-1)

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
    picture = np.zeros((160, 192, 3), np.uint8)
    picture[30:120, 30:120] = 250
    assert "boxes from 24 px: " in one.look([(picture, faces((53, 53, 91, 91)).numpy())])


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


def trained(**changes: Any) -> dict[str, Any]:
    """What points.py writes into head.pth."""
    whole = {"step": 3, "faces": 2, "average": torch.zeros(VALUES), "head": PointsHead().state_dict()}
    return {name: value for name, value in {**whole, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"broken", [1], {"step": 1}, trained(faces=None), trained(step="three"), trained(average=torch.zeros(4)),
        trained(head={}), trained(head=[1]),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("blocks")
def test_a_broken_head_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture, content: Any) -> None:
    if isinstance(content, bytes):
        (tmp_path / "head.pth").write_bytes(content)
    else:
        torch.save(content, tmp_path / "head.pth")
    assert points.main(["net.bin", "--export", "--target", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "head.pth: not a " in said and len(said.strip().splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["head.pth"]


@pytest.mark.usefixtures("blocks")
def test_training_needs_a_sound_head_or_fresh_and_faces_with_landmarks(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "images").mkdir()
    config = (FOLDER / "config.toml").read_text().replace("minimum_pictures = 200", "minimum_pictures = 1")
    config = config.replace("held_out = 200", "held_out = 1").replace("batch = 192", "batch = 4")
    (tmp_path / "config.toml").write_text(config.replace("held_out_scenes = 96", "held_out_scenes = 1"))
    rng, marks = np.random.default_rng(0), "40 40 0 70 40 0 55 55 0 45 70 0 65 70 0"
    for number in range(3):
        picture = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"images/{number}.png"), picture)

    def run(points_of: str, *more: str) -> tuple[int, str]:
        lines = [f"# {number}.png\n30 30 50 60 {points_of}\n" for number in range(3)]
        (tmp_path / "label.txt").write_text("".join(lines))
        folders = ["--work", str(tmp_path / "work"), "--config", str(tmp_path / "config.toml"), "--steps", "2"]
        code = points.main(["net.bin", "--labels", str(tmp_path / "label.txt"), *folders, *more])
        return code, capsys.readouterr().err

    for option in ("--steps", "--seed"):
        assert run(marks, option, "-1") == (2, f"points.py: {option} must not be negative\n")
    code, said = run("")
    assert code == 2 and "no face with landmarks to train on: 1 pictures are held out, and none of the other 2" in said
    torch.save(trained(head={}), tmp_path / "head.pth")
    code, said = run(marks)
    assert code == 2 and "head.pth: does not contain the weights of this network; give --fresh" in said
    assert len(said.strip().splitlines()) == 1 and not (tmp_path / "detector.onnx").exists()
    assert run(marks, "--fresh") == (0, "")
    assert {"card.json", "detector.onnx", "head.pth"} <= {file.name for file in tmp_path.iterdir()}
    made = from_card(tmp_path, "open")
    assert made is not None
    assert Detector(Session(made, "cpu")).detect([np.zeros((64, 96, 3), np.uint8)]) == [[]]


def shipped() -> Session:
    weights = from_card(FOLDER, "open")
    assert weights is not None
    return Session(weights, "cpu")


@pytest.mark.usefixtures("blocks")
def test_the_shipped_detector_has_the_groups_of_this_code() -> None:
    face = np.zeros((1, 224, 416, 3), np.uint8)
    expected = sum(one.scores.shape[1] for one in Published(Path("net.bin"))(torch.from_numpy(face)))
    assert shipped().run_pictures(face)["scores"].shape == (1, expected)


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0, 2.0, 4.0])
def test_the_shipped_detector_finds_a_face_of_any_size(scale: float) -> None:
    data = pytest.importorskip("skimage.data")
    detector, portrait = Detector(shipped()), np.ascontiguousarray(data.astronaut()[:320, 60:380])
    usual = detector.detect([portrait])[0][0]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    (found,) = detector.detect([cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=method)])[0]
    overlap = rows_of.overlap(found.box[None] / scale, usual.box[None])[0, 0]
    off = np.abs((found.landmarks + 0.5) / scale - 0.5 - usual.landmarks).max()
    assert overlap > 0.7 and off < 8, (overlap, off)


def test_the_shipped_detector_does_not_depend_on_the_batch_and_finds_mirrored_faces() -> None:
    data = pytest.importorskip("skimage.data")
    detector = Detector(shipped())
    portrait = np.ascontiguousarray(data.astronaut())
    empty = np.full((512, 512, 3), 90, np.uint8)
    alone = detector.detect([portrait])[0]
    together = detector.detect([empty, portrait, portrait[:, ::-1].copy()])
    assert len(alone) == 1 and together[0] == []
    assert np.array_equal(alone[0].box, together[1][0].box)
    assert np.array_equal(alone[0].landmarks, together[1][0].landmarks)
    marks, mirrored = alone[0].landmarks, together[2][0].landmarks
    assert np.abs(marks[[0, 2, 3], 0] - (511 - mirrored[[1, 2, 4], 0])).max() < 6
    left, top, right, bottom = alone[0].box
    assert ((marks > (left, top)) & (marks < (right, bottom))).all() and 80 < right - left < 140
