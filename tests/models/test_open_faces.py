"""Training data of the heads of the open expression network, and the file in which the heads are stored."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("skimage")

from models.common.images import DataError  # noqa: E402
from models.common.smoke import ASTRONAUT_LANDMARKS  # noqa: E402
from models.expression.batches import Augmentation  # noqa: E402
from models.expression.covers import Bank  # noqa: E402
from models.expression.dataset import CANVAS, MARGIN, FaceSet, align, canvas_matrix  # noqa: E402
from models.expression.network import OwnNetwork  # noqa: E402
from models.open.cartoons import STYLES, draw  # noqa: E402
from models.open.covered import coloured_light, map_means  # noqa: E402
from models.open.inputs import read_kinds  # noqa: E402
from models.open.photographed import snapshot_rows  # noqa: E402
from models.open.trunk import (  # noqa: E402
    CELLS,
    CHANNELS,
    FIGURES,
    HEADS_NAME,
    CoveredHead,
    PhotographHead,
    figures,
    read_heads,
    trained,
    write_head,
)

FOLDER = Path(__file__).resolve().parents[2] / "models/open"
SIDES = ((104, 96), (104, 96), (52, 48), (26, 24), (13, 12), (6, 6))


@pytest.fixture(scope="module")
def face() -> tuple[np.ndarray, np.ndarray]:
    """The face of scikit-image's astronaut on a canvas, and its mesh points, in pixels of the canvas."""
    from skimage import data

    canvas = align(data.astronaut(), canvas_matrix(np.asarray(ASTRONAUT_LANDMARKS, np.float64)))
    crop = np.ascontiguousarray(canvas[MARGIN:-MARGIN, MARGIN:-MARGIN])
    return canvas, OwnNetwork(FOLDER / "expression").run(crop[None]).points[0] + MARGIN


def maps(count: int) -> list:
    """Random maps like those of the published network, for `count` faces."""
    made = torch.Generator().manual_seed(count)
    return [torch.randn(count, c, *side, generator=made) for c, side in zip(CHANNELS, SIDES, strict=True)]


@pytest.mark.parametrize("style", STYLES)
def test_a_style_changes_the_picture_but_not_its_size_and_depends_only_on_the_seed(style: str, face: tuple) -> None:
    canvas, points = face
    first, again = (STYLES[style][0](canvas, points, np.random.default_rng(3)) for _ in range(2))
    assert first.shape == (*CANVAS, 3) and first.dtype == np.uint8 and (first == again).all()
    assert np.abs(first.astype(float) - canvas).mean() > 2 and first.std() > 5


def test_draws_differ(face: tuple) -> None:
    rng = np.random.default_rng(0)
    drawn = [draw(*face, rng) for _ in range(4)]
    assert all(picture.shape == (*CANVAS, 3) for picture in drawn)
    assert len({picture.tobytes() for picture in drawn}) == 4


def test_coloured_light_keeps_black_black() -> None:
    rng = np.random.default_rng(1)
    assert not coloured_light(np.zeros((144, 128, 3), np.uint8), rng).any()
    lit = coloured_light(np.full((144, 128, 3), 100, np.uint8), rng)
    assert np.ptp(lit.reshape(-1, 3).mean(axis=0)) > 1


def test_cell_values_are_means_over_the_crop() -> None:
    whole = map_means(np.ones((144, 128), np.float32))
    assert whole.shape == CELLS and (whole[1:, 1:-1] == 1).mean() > 0.9 and whole.max() == 1
    upper = np.zeros((144, 128), np.float32)
    upper[:60] = 1
    assert map_means(upper)[:4].mean() > 0.7 and not map_means(upper)[7:].any()


def test_the_output_of_a_head_for_a_face_does_not_depend_on_the_batch() -> None:
    covered, photograph = CoveredHead().eval(), PhotographHead().eval()
    together = maps(3)
    alone = [each[1:2] for each in together]
    with torch.no_grad():
        assert figures(together).shape == (3, FIGURES, 1, 1)
        assert covered(together)[0].shape == (3, *CELLS)
        assert torch.allclose(covered(together)[1][1:2], covered(alone)[1], atol=1e-5)
        assert torch.allclose(photograph(together)[1:2], photograph(alone), atol=1e-5)


def test_writing_a_head_keeps_the_other(tmp_path: Path) -> None:
    assert read_heads(tmp_path) == {}
    first, second = CoveredHead().eval(), PhotographHead().eval()
    write_head(tmp_path, "visible", first, {"training_steps": 3})
    write_head(tmp_path, "real", second, {"training_steps": 4})
    heads = read_heads(tmp_path)
    assert {name: head["card"]["training_steps"] for name, head in heads.items()} == {"visible": 3, "real": 4}
    with torch.no_grad():
        back = trained(heads, "visible", CoveredHead())
        assert torch.allclose(back(maps(2))[1], first(maps(2))[1], atol=2e-2)


def test_the_error_names_a_damaged_file_of_heads(tmp_path: Path) -> None:
    (tmp_path / HEADS_NAME).write_bytes(b"no heads")
    with pytest.raises(DataError, match=HEADS_NAME):
        read_heads(tmp_path)


def test_the_listed_portraits_are_among_the_pictures() -> None:
    kinds = read_kinds()
    names = dict(line.split("  ", 1) for line in (FOLDER / "pictures.sha256").read_text().splitlines())
    known = {digest[:16]: name for digest, name in names.items()}
    assert set(kinds.values()) == {"painting", "uncertain"}
    assert all(known[digest].startswith("voteview/member_photos:images/bio_guide/") for digest in kinds)


def test_crops_have_the_format_that_the_training_reads(tmp_path: Path) -> None:
    from skimage import data

    from models.common.images import write_rgb
    from models.expression.dataset import prepare
    from models.open import crops

    (tmp_path / "pictures").mkdir()
    write_rgb(tmp_path / "pictures/one.png", data.astronaut())
    digest = hashlib.sha256((tmp_path / "pictures/one.png").read_bytes()).hexdigest()
    five = np.asarray(ASTRONAUT_LANDMARKS, np.float32)
    mesh = np.repeat(five.mean(axis=0)[None], 478, axis=0)
    for number, place in {33: 0, 133: 0, 362: 1, 263: 1}.items():
        mesh[number] = five[place]
    np.savez(
        tmp_path / "labels.npz", sha256=np.array([digest]), points=five[None], mesh=mesh[None],
        box=np.array([[165, 45, 285, 185]], np.float32), shapes=np.zeros((1, 52), np.float32),
        pose=np.zeros((1, 3), np.float32),
    )  # fmt: skip
    arguments = [str(tmp_path / "pictures"), "--labels", str(tmp_path / "labels.npz"), "--out", str(tmp_path)]
    assert crops.main(arguments) == 0
    found = prepare([tmp_path / "crops" / crops.NAME], tmp_path / "aligned", 14.0)
    assert found.names == [digest] and found.canvases[0].shape == (*CANVAS, 3)
    check_snapshots(found)
    (tmp_path / "labels.npz").write_bytes(b"no labels")
    assert crops.main(arguments) == 2


def check_snapshots(faces: FaceSet) -> None:
    """Snapshots are photographs, and drawings are made from the given share of them; the same seed, the same rows."""
    config = tomllib.loads((FOLDER / "expression/config.toml").read_text())
    how = Augmentation(**{**config["augment"], "degraded": config["real"]["degraded"]})
    bank = Bank(np.zeros((1, 64, 64, 4), np.uint8), np.full((1, 64, 64, 3), 90, np.uint8))

    class Means:
        def figures(self, crops: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(crops.mean(axis=(1, 2)))

    for share, kinds in ((0.0, [True]), (1.0, [True, False])):
        settings = {**config["real"], "drawn_snapshots": share, "snapshots_share": 0.7}
        first, again = (snapshot_rows(Means(), faces, bank, settings, how, 5) for _ in range(2))  # type: ignore[arg-type]
        assert [rows.real for rows in first] == kinds
        for rows, same in zip(first, again, strict=True):
            assert rows.figures.shape == (1, 3) and torch.equal(rows.figures, same.figures)
            assert rows.share == 0.7 and rows.part.tolist() == [int(faces.names[0][8:16], 16) % settings["parts"]]
        assert share == 0 or not torch.equal(first[0].figures, first[1].figures)
