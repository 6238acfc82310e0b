"""The pictures that the networks of `--models open` learn from: scan.py, label.py, compose.py, portraits.py."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from models.common.images import DataError, read_rgb, write_rgb  # noqa: E402
from models.detector.labels import read_labels  # noqa: E402
from models.open import compose  # noqa: E402
from models.open.label import box_of  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def mesh(x: float, y: float, side: float) -> np.ndarray:
    """[478, 2]: a square of points with the five landmarks in their places."""
    points = np.random.default_rng(0).uniform(0.1, 0.9, (478, 2))
    points[0], points[1] = (0, 0), (1, 1)
    points[[468, 473, 4, 61, 291]] = [(0.3, 0.35), (0.7, 0.35), (0.5, 0.55), (0.35, 0.75), (0.65, 0.75)]
    return points * side + (x, y)


@pytest.fixture
def portraits(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of three pictures, and labels for the first (one face) and the second (one of two reaches outside)."""
    folder = tmp_path / "portraits"
    folder.mkdir()
    rng = np.random.default_rng(4)
    digests, meshes = [], []
    for number, faces in enumerate([[(100, 60, 120)], [(100, 60, 120), (350, 60, 120)], []]):
        file = folder / f"{number}.png"
        write_rgb(file, rng.integers(0, 256, (400, 420, 3), dtype=np.uint8))
        for place in faces:
            digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
            meshes.append(mesh(*place))
    np.savez(tmp_path / "labels.npz", sha256=np.array(digests), mesh=np.array(meshes, np.float32))
    return folder, tmp_path / "labels.npz"


def run(*arguments: str | Path) -> int:
    return compose.main([str(argument) for argument in arguments])


def test_a_box_reaches_from_the_hairline_to_the_chin() -> None:
    assert box_of(mesh(100, 60, 120)) == pytest.approx([100, 60 - 0.15 * 120, 220, 180])


def test_composed_pictures_are_what_the_recipe_reads(tmp_path: Path, portraits: tuple[Path, Path]) -> None:
    folder, labels = portraits
    assert run(folder, "--labels", labels, "--drawn", "3", "--out", tmp_path / "made") == 0
    found = read_labels(tmp_path / "made/label.txt")
    assert [len(one.faces) for one in found] == [1, 0, 0, 0, 0, 0]
    assert found[0].faces[0, :4] == pytest.approx([100, 42, 220, 180], abs=0.1)
    below, beside = (read_rgb(one.path) for one in found[1:3])
    assert below.shape[:2] == (400 - int(180 + 0.25 * 138), 420)
    assert beside.shape[:2] == (400, 420 - int(220 + 0.45 * 120))
    assert all(read_rgb(one.path).shape == (480, 640, 3) for one in found[3:])


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_head_is_turned_further(mirrored: bool) -> None:
    points = mesh(100, 60, 120)
    points[4] = (145, 120)  # the nose, off the middle to the viewer's left: the left half is the far one
    ramp = np.zeros((300, 400, 3), np.uint8)
    ramp[:] = (np.arange(400) * 0.6).astype(np.uint8)[None, :, None]
    if mirrored:
        points[:, 0] = 399 - points[:, 0]
        ramp = np.ascontiguousarray(ramp[:, ::-1])
    made = compose.turned_further(np.random.default_rng(0), ramp, points)
    assert made is not None
    picture, moved = made
    whole = np.ptp(moved[:, 0])
    far = abs(moved[4, 0] - (moved[:, 0].max() if mirrored else moved[:, 0].min()))
    assert 0.3 <= far / 45 <= 0.65 and whole == pytest.approx(75 + far)
    # What was at a point of the mesh still is.
    for before, after in zip(points[:20], moved[:20], strict=True):
        assert abs(int(picture[100, round(after[0]), 0]) - int(ramp[100, round(before[0]), 0])) <= 2


def test_a_head_that_looks_ahead_is_left_as_it_is() -> None:
    ramp = np.zeros((300, 400, 3), np.uint8)
    assert compose.turned_further(np.random.default_rng(0), ramp, mesh(100, 60, 120)) is None


def test_the_same_pictures_give_the_same_files(tmp_path: Path, portraits: tuple[Path, Path]) -> None:
    folder, labels = portraits
    made = [tmp_path / name for name in ("a", "b")]
    for place in made:
        assert run(folder, "--labels", labels, "--drawn", "2", "--out", place) == 0
    first, second = ([(f.name, f.read_bytes()) for f in sorted(p.rglob("*")) if f.is_file()] for p in made)
    assert first == second


def test_snapshots_are_only_copied(tmp_path: Path, portraits: tuple[Path, Path]) -> None:
    folder, labels = portraits
    assert run(folder, "--labels", labels, "--snapshots", "--out", tmp_path / "made") == 0
    found = read_labels(tmp_path / "made/label.txt")
    assert [len(one.faces) for one in found] == [1]
    assert read_rgb(found[0].path).shape == (400, 420, 3)


def places(file: Path, digests: list[str], boxes: list[list[float]], scores: list[float]) -> Path:
    np.savez(file, sha256=np.array(digests), box=np.array(boxes, np.float32), score=np.array(scores, np.float32))
    return file


def test_places_in_a_photograph_are_labelled_as_faces_or_blurred(tmp_path: Path, portraits: tuple[Path, Path]) -> None:
    folder, _ = portraits
    first, second, third = (hashlib.sha256((folder / f"{n}.png").read_bytes()).hexdigest() for n in range(3))
    nothing = np.full((478, 2), np.nan)
    digests = [first, first, first, second, third]
    found = places(
        tmp_path / "found.npz", digests,
        [[100, 42, 220, 180], [300, 100, 340, 150], [20, 300, 60, 340], [0, 0, 90, 90], [np.nan] * 4],
        [0.7, 0.9, 0.7, 0.4, 0.0],
    )  # fmt: skip
    meshes = np.array([mesh(100, 60, 120), nothing, nothing, nothing, nothing], np.float32)
    np.savez(tmp_path / "places.npz", sha256=np.array(digests), mesh=meshes)
    given = [folder, "--labels", tmp_path / "places.npz", "--found", found, "--out", tmp_path / "made"]
    assert run(*given) == 0
    pictures = read_labels(tmp_path / "made/label.txt")
    # The second picture has only a doubtful place, so it is left out: it may show a face or not.
    assert [len(one.faces) for one in pictures] == [2, 0]
    agreed, sure = pictures[0].faces
    assert agreed[:4] == pytest.approx([100, 42, 220, 180], abs=0.1) and agreed[14] == 1
    assert sure[:4] == pytest.approx([300, 100, 340, 150], abs=0.1) and sure[14] == 0
    written = read_rgb(pictures[0].path).astype(float)
    assert written[302:338, 22:58].std() < 0.5 * written[102:148, 302:338].std()
    np.savez(tmp_path / "places.npz", sha256=np.array(digests[1:]), mesh=meshes[1:])
    assert run(*given) == 2


def test_a_doubtful_place_outside_the_picture_changes_nothing(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    for box in ([-40, 10, -5, 60], [10, -90, 60, -3], [130, 10, 170, 60], [-1e30, 0, -1e20, 9]):
        blurred = picture.copy()
        compose.blur_out(blurred, np.array(box, np.float64))
        assert np.array_equal(blurred, picture)


def test_copies_of_a_photograph_are_used_once(tmp_path: Path, portraits: tuple[Path, Path]) -> None:
    folder, _ = portraits
    content = (folder / "0.png").read_bytes()
    (folder / "9.png").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    found = places(tmp_path / "found.npz", [digest], [[100, 42, 220, 180]], [0.9])
    np.savez(tmp_path / "places.npz", sha256=np.array([digest]), mesh=np.array([mesh(100, 60, 120)], np.float32))
    assert run(folder, "--labels", tmp_path / "places.npz", "--found", found, "--out", tmp_path / "made") == 0
    assert (tmp_path / "made/label.txt").read_text().count("#") == 1


DIGEST = "0" * 64
BROKEN: dict[str, dict[str, np.ndarray] | bytes] = {
    "empty": b"",
    "text": b"broken",
    "a zip that ends early": b"PK\x03\x04" + bytes(20),
    "no archive": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }".ljust(128) + b"\n",
    "only names": {"sha256": np.array([DIGEST])},
    "objects": {"sha256": np.array([DIGEST]), "mesh": np.array([None]), "box": np.array([None])},
    "too few rows": {
        "sha256": np.array([DIGEST] * 2), "mesh": np.zeros((1, 478, 2)), "box": np.zeros((1, 4)),
        "points": np.zeros((1, 5, 2)), "score": np.ones(1),
    },
    "another shape": {
        "sha256": np.array([DIGEST]), "mesh": np.zeros((1, 68, 2)), "box": np.zeros((1, 5)),
        "points": np.zeros((1, 3, 2)), "score": np.ones(1),
    },
    "one name": {
        "sha256": np.array(DIGEST), "mesh": np.zeros((1, 478, 2)), "box": np.zeros((1, 4)),
        "points": np.zeros((1, 5, 2)), "score": np.ones(1),
    },
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_files_of_labels_are_one_line(
    tmp_path: Path, portraits: tuple[Path, Path], capsys: pytest.CaptureFixture, broken: str
) -> None:
    from models.open import crops, label
    from models.open import portraits as cutting

    folder, labels = portraits
    file = tmp_path / "broken.npz"
    content = BROKEN[broken]
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.savez(file, **content)  # type: ignore[arg-type]
    task = tmp_path / "face_landmarker.task"
    task.write_bytes(b"")
    for main, arguments in (
        (compose.main, [folder, "--labels", file]),
        (compose.main, [folder, "--labels", labels, "--found", file]),
        (cutting.main, [folder, "--labels", file]),
        (crops.main, [folder, "--labels", file]),
        (label.main, [task, folder, "--found", file]),
    ):
        assert main([str(argument) for argument in [*arguments, "--out", tmp_path / main.__module__]]) == 2
        said = capsys.readouterr().err
        assert "broken.npz: not a file of labels" in said and len(said.strip().splitlines()) == 1


def test_labelling_and_scanning_refuse_bad_input_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from models.open import label, scan

    (tmp_path / "none").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/picture.jpg").write_bytes(b"no picture")
    write_rgb(tmp_path / "other/narrow.png", np.zeros((1, 3000, 3), np.uint8))
    task = tmp_path / "face_landmarker.task"
    task.write_bytes(b"")
    detector = ["--detector", ROOT / "models/detector"]
    out = ["--out", tmp_path / "out.npz"]
    for main, arguments, line in (
        (scan.main, [tmp_path / "absent", *detector, *out], "absent: no such folder"),
        (scan.main, [tmp_path / "none", *detector, *out], "no readable picture in"),
        (scan.main, [tmp_path / "other", *detector, *out], "no readable picture in"),
        (scan.main, [tmp_path / "none", "--detector", tmp_path / "none", *out], "card.json is not readable"),
        (scan.main, [tmp_path / "none", *detector, "--out", tmp_path / "absent/out.npz"], "cannot be written"),
        (label.main, [tmp_path / "absent.task", tmp_path / "other", *out], "absent.task: no such file"),
        (label.main, [task, tmp_path / "absent", *out], "absent: no such folder"),
        (label.main, [task, tmp_path / "none", *out], "no picture in"),
        (label.main, [task, tmp_path / "other", "--out", tmp_path / "absent/out.npz"], "cannot be written"),
    ):
        assert main([str(argument) for argument in arguments]) == 2
        said = capsys.readouterr().err
        assert line in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out.npz").exists()


def test_places_are_faces_that_a_detector_finds(tmp_path: Path) -> None:
    skimage_data = pytest.importorskip("skimage.data")
    from models.open import scan

    (tmp_path / "pictures").mkdir()
    write_rgb(tmp_path / "pictures/a.png", skimage_data.astronaut())
    write_rgb(tmp_path / "pictures/b.png", skimage_data.astronaut())
    write_rgb(tmp_path / "pictures/c.png", np.full((200, 300, 3), 90, np.uint8))
    file = tmp_path / "found"  # without the suffix that numpy would add
    given = [tmp_path / "pictures", "--detector", ROOT / "models/detector", "--out", file]
    assert scan.main([str(argument) for argument in given]) == 0
    with np.load(file, allow_pickle=False) as found:
        best = int(found["score"].argmax())
        x1, y1, x2, y2 = found["box"][best]
        assert 150 < x1 < 230 < x2 < 300 and 40 < y1 < 120 < y2 < 230
        inside = (found["points"][best] > (x1, y1)) & (found["points"][best] < (x2, y2))
        assert found["score"][best] > 0.8 and inside.all()
        # The copy adds no row, and the picture without a face one.
        assert len(set(found["sha256"].tolist())) == 2
        assert np.isnan(found["box"][found["score"] == 0]).all() and (found["score"] == 0).sum() == 1


def test_bad_input_is_one_line(tmp_path: Path, portraits: tuple[Path, Path], capsys: pytest.CaptureFixture) -> None:
    folder, labels = portraits
    (tmp_path / "none").mkdir()
    (tmp_path / "broken.npz").write_bytes(b"broken")
    with tarfile.open(tmp_path / "whole.tar", "w") as archive:
        archive.add(folder / "0.png", "0.png")
    (tmp_path / "ended.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:5000])
    for arguments, line in (
        ([folder, "--labels", tmp_path / "broken.npz"], "broken.npz: not a file of labels"),
        ([folder, "--labels", tmp_path / "absent.npz"], "absent.npz: not a file of labels"),
        ([tmp_path / "none", "--labels", labels], "has no labelled face of"),
        ([tmp_path / "absent", "--labels", labels], "no such folder or tar file"),
        ([tmp_path / "ended.tar", "--labels", labels], "ended.tar: cannot be read"),
    ):
        assert run(*arguments, "--out", tmp_path / "made") == 2
        said = capsys.readouterr().err
        assert line in said and len(said.strip().splitlines()) == 1


def test_a_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a file of labels"):
        compose.read_rows(tmp_path)


def test_large_portraits_are_not_enlarged_and_smaller_ones_have_their_own_folder(tmp_path: Path) -> None:
    from models.open.portraits import EVERYDAY_SIDE, SIDE, cut

    (tmp_path / "portraits").mkdir()
    file = tmp_path / "portraits/large.png"
    write_rgb(file, np.random.default_rng(1).integers(0, 256, (1000, 1000, 3), dtype=np.uint8))
    points = np.array([[[420.0, 420], [580, 420], [500, 520], [440, 600], [560, 600]]])
    labels = tmp_path / "labels.npz"
    for scale, count, folder, side in ((1.0, 1, "large", SIDE), (0.5, 1, "everyday", EVERYDAY_SIDE), (0.2, 0, "", 0)):
        np.savez(labels, sha256=[hashlib.sha256(file.read_bytes()).hexdigest()], points=points * scale)
        out = tmp_path / str(scale)
        if not count:
            with pytest.raises(DataError, match="no face with eyes at least 34 px apart"):
                cut([file.parent], labels, out)
            continue
        assert cut([file.parent], labels, out) == 1
        (made,) = out.rglob("*.png")
        assert made.parent.name == folder and read_rgb(made).shape == (side, side, 3)


def test_only_listed_photographs_become_training_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from models.open import portraits

    points = np.array([[420.0, 420], [580, 420], [500, 520], [440, 600], [560, 600]]) / 2
    (tmp_path / "pictures").mkdir()
    for name in "abc":
        picture = np.random.default_rng(ord(name)).integers(0, 256, (500, 500, 3), dtype=np.uint8)
        write_rgb(tmp_path / f"pictures/{name}.png", picture)
    listed, painted, other = (
        hashlib.sha256((tmp_path / f"pictures/{name}.png").read_bytes()).hexdigest() for name in "abc"
    )
    np.savez(tmp_path / "labels.npz", sha256=[listed, painted, other], points=np.stack([points] * 3))
    (tmp_path / "used.sha256").write_text(f"# used\n{listed}  a:b.png\n{painted}  a:c.png\n")
    monkeypatch.setattr(portraits, "read_kinds", lambda: {painted[:16]: "painting"})
    given = [tmp_path / "pictures", "--labels", tmp_path / "labels.npz", "--out", tmp_path / "out"]
    given = [str(argument) for argument in given]
    assert portraits.main([*given, "--only", str(tmp_path / "used.sha256")]) == 0
    assert [file.stem for file in (tmp_path / "out").rglob("*.png")] == [listed[:16]]
    (tmp_path / "used.sha256").write_text("a.png\n")
    capsys.readouterr()
    assert portraits.main([*given, "--only", str(tmp_path / "used.sha256")]) == 2
    assert "used.sha256: not a list of pictures" in capsys.readouterr().err
    assert portraits.main([*given, "--only", str(tmp_path / "absent")]) == 2
    assert "absent: not a list of pictures" in capsys.readouterr().err
