"""The expression network of `--models open`: what the converted Face Landmarker does with a face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from conftest import shared_folder
from streamgate import Gate
from streamgate.networks import Networks
from streamgate.networks.alignment import EXPRESSION_EYE_ROW, expression_matrix
from streamgate.networks.expression import ExpressionOutput

NOISE = np.random.default_rng(0).integers(0, 256, (6, 144, 128, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def networks():
    with Networks.open("open", "cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    """uint8 (144, 128, 3) of scikit-image's astronaut, aligned by what the set's detector finds."""
    cv2 = pytest.importorskip("cv2")
    picture = pytest.importorskip("skimage.data").astronaut()
    with Gate(models="open", device="cpu") as gate:
        (found,) = gate.score(np.ascontiguousarray(picture))
    matrix = expression_matrix(np.array(found.face.landmarks))
    return cv2.warpAffine(picture, matrix, (128, 144), flags=cv2.INTER_LINEAR)


def run(networks: Networks, *crops: np.ndarray) -> list[ExpressionOutput]:
    assert networks.expression is not None
    return networks.expression.run(np.stack(crops))


def test_it_sees_open_eyes_and_a_smile_on_a_portrait(networks: Networks, crop: np.ndarray) -> None:
    (found,) = run(networks, crop)
    left, right = found.landmarks[0], found.landmarks[1]
    assert abs(left[1] - EXPRESSION_EYE_ROW) < 5 and abs(right[1] - EXPRESSION_EYE_ROW) < 5
    assert 40 < right[0] - left[0] < 64
    assert found.both("mouthSmile") > 0.5 and found.signals["jawOpen"] < 0.2
    assert min(found.signals["lidsLeft"], found.signals["lidsRight"]) > 0.05
    assert found.visible is not None and found.visible > 0.965


def test_a_box_in_front_of_the_mouth_lowers_the_visible_share(networks: Networks, crop: np.ndarray) -> None:
    covered = crop.copy()
    covered[80:125, 30:98] = (30, 60, 160)
    bare, masked = run(networks, crop, covered)
    assert bare.visible is not None and masked.visible is not None
    assert masked.visible < 0.9 < bare.visible


def test_a_mirrored_face_has_mirrored_values(networks: Networks, crop: np.ndarray) -> None:
    found, mirrored = run(networks, crop, np.ascontiguousarray(crop[:, ::-1]))
    assert found.yaw == pytest.approx(-mirrored.yaw, abs=3.0)
    assert found.pitch == pytest.approx(mirrored.pitch, abs=3.0)
    assert found.signals["lidsLeft"] == pytest.approx(mirrored.signals["lidsRight"], abs=0.03)
    assert found.signals["eyeLookInLeft"] == pytest.approx(mirrored.signals["eyeLookInRight"], abs=0.2)


def test_the_batch_does_not_change_a_face(networks: Networks, crop: np.ndarray) -> None:
    together = run(networks, *NOISE, crop)
    for one, face in zip(together, [*NOISE, crop], strict=True):
        (alone,) = run(networks, face)
        assert one.signals == alone.signals and (one.yaw, one.pitch) == (alone.yaw, alone.pitch)
        assert (one.visible, one.real) == (alone.visible, alone.real)
        assert (one.landmarks == alone.landmarks).all()


# --- the recipe -------------------------------------------------------------------------------------------------


def test_another_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from models.open import landmarker

    other = tmp_path / "face_landmarker.task"
    other.write_bytes(b"something else")
    assert landmarker.main([str(other), str(tmp_path), "--labels", "none.npz", "--target", str(tmp_path / "new")]) == 2
    assert "not the published face_landmarker.task" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_committed_network_is_the_published_one(networks: Networks, crop: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("tflite")
    from models.expression.architecture import POINTS, SIGNALS
    from models.open.landmarker import LandmarkGraph

    task = shared_folder() / "weights/face_landmarker.task"
    if not task.is_file():
        pytest.skip(f"{task} is missing")
    with torch.no_grad():
        pose, signals, points, *_ = LandmarkGraph(task).eval()(torch.from_numpy(crop[None]))
    (found,) = run(networks, crop)
    assert pose[0, :2].tolist() == pytest.approx([found.yaw, found.pitch], abs=0.1)
    # The constants that are fitted to portraits do not touch lengths.
    for name in ("lidsLeft", "lidsRight", "lipGap", "mouthWidth"):
        assert float(signals[0, SIGNALS.index(name)]) == pytest.approx(found.signals[name], abs=1e-3)
    assert points.shape == (1, len(POINTS), 2)


def test_angles_and_the_nearest_rotation_are_exact() -> None:
    torch = pytest.importorskip("torch")
    from models.open.landmarker import _angle, _nearest_rotation

    turned = torch.linspace(-1.5, 1.5, 31)
    assert _angle(torch.sin(turned), torch.cos(turned)).numpy() == pytest.approx(turned.numpy(), abs=4e-5)
    matrix = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(2))
    matrix = matrix * torch.sign(torch.linalg.det(matrix))[:, None, None]
    left, _, right = torch.linalg.svd(matrix)
    assert _nearest_rotation(matrix).numpy() == pytest.approx((left @ right).numpy(), abs=1e-3)
