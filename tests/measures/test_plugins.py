"""A measure of another package, by the entry point group `streamgate.measures`."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from support.command import Done, lines, streamgate
from support.media import astronaut_frames, write_clip

MODULE = '''
from streamgate.measures import FaceView, Limit, MeasureSpec, Sigmoid


def read(view: FaceView) -> float:
    x, y = view.face.landmarks[0]
    half = view.face.inter_eye / 4
    return float(view.picture.luma([x - half, y - half, x + half, y + half]).mean())


EYE = MeasureSpec(
    name="eye_of_others", label="Left eye", hint="how bright it is", purpose="Is the left eye in the light?",
    read=read, mapping=Sigmoid(40.0, 10.0), limits=(Limit("min", 5.0, {"others_eye_dark": "eye in the dark"}),),
)


def broken(view: FaceView) -> float:
    raise RuntimeError("no idea")


BROKEN = MeasureSpec(
    name="broken_of_others", label="Broken", hint="fails", purpose="Fails on every face.", read=broken,
    mapping=Sigmoid(0.0, 1.0),
)
BLURRED = MeasureSpec(
    name="also_blurred", label="Blur", hint="", purpose="Its reason is taken.", read=read, mapping=Sigmoid(0.0, 1.0),
    limits=(Limit("min", 5.0, {"blurred": "soft"}),),
)
NO_MEASURE = 3
'''
ENTRIES = "[streamgate.measures]\neye = eyes_of_others:EYE\nbroken = eyes_of_others:BROKEN\n"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "a.mp4", astronaut_frames(30, (640, 480), zoom=1.6))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return install(tmp_path / "site", ENTRIES)


def install(site: Path, entries: str) -> Path:
    """A package with measures as pip would leave it."""
    (site / "eyes_of_others-1.0.dist-info").mkdir(parents=True)
    (site / "eyes_of_others.py").write_text(MODULE)
    (site / "eyes_of_others-1.0.dist-info" / "METADATA").write_text("Name: eyes-of-others\nVersion: 1.0\n")
    (site / "eyes_of_others-1.0.dist-info" / "entry_points.txt").write_text(entries)
    return site


def gate(package: Path, *arguments: object) -> Done:
    return streamgate(*arguments, PYTHONPATH=str(package))


def test_it_is_listed_and_does_nothing_until_it_is_used(package: Path, clip: Path, tmp_path: Path) -> None:
    listed = gate(package, "measures")
    (row,) = [line for line in listed.out.splitlines() if line.startswith("eye_of_others")]
    assert "not used" in row and "Is the left eye in the light?" in row and "others_eye_dark" in row
    assert streamgate("run", clip, "-o", tmp_path / "plain").code == 0
    assert gate(package, "run", clip, "-o", tmp_path / "with").code == 0
    for name in ("faces.jsonl", "summary.json"):
        plain, beside = ((tmp_path / one / name).read_text() for one in ("plain", "with"))
        assert ("eye_of_others" not in beside) and (name == "summary.json" or plain == beside)


def test_used_it_is_measured_recorded_ranked_and_rejects(package: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    use = ("--set", "measures.eye_of_others.use=true")
    assert gate(package, "run", clip, "-o", out, *use).code == 0
    (face,) = lines(out / "faces.jsonl")
    assert face["measures"]["eye_of_others"]["status"] == "ok" and 0 < face["measures"]["eye_of_others"]["raw"] < 255
    told = json.loads((out / "summary.json").read_text())
    assert "eye_of_others" in told["measure_set"] and told["config"]["measures"]["eye_of_others"]["min"] == 5.0
    report = (out / "report.html").read_text()
    assert "eye_of_others" in report
    with gzip.open(next(out.glob("*/candidates.jsonl.gz")), "rt") as file:
        assert all(json.loads(line)["evidence"]["eye_of_others"] > 0 for line in file)
    # A column of its own.
    assert streamgate("export", out, "--to", "csv", "-o", tmp_path / "faces.csv").code == 0
    with open(tmp_path / "faces.csv", newline="") as table:
        (row,) = csv.DictReader(table)
    assert float(row["eye_of_others_raw"]) == face["measures"]["eye_of_others"]["raw"]
    # A limit that no face meets, over what is stored.
    done = gate(package, "tune", out, "--set", "measures.eye_of_others.min=100", "--pictured")
    assert done.code == 0 and "rejected: eye in the dark" in done.out
    assert lines(out / "faces.jsonl") == []
    # Without the package nobody knows what the records mean.
    missing = streamgate("tune", out, "--set", "measures.eye_of_others.min=5", "--pictured")
    assert missing.code != 0 and "measures.eye_of_others" in missing.err


def test_one_that_fails_on_a_face_is_an_error_of_that_face(package: Path, clip: Path, tmp_path: Path) -> None:
    done = gate(package, "run", clip, "-o", tmp_path / "out", "--set", "measures.broken_of_others.use=true")
    assert done.code == 0 and "measure broken_of_others failed on a face (RuntimeError: no idea)" in done.err
    with gzip.open(next((tmp_path / "out").glob("*/candidates.jsonl.gz")), "rt") as file:
        assert {json.loads(line)["measures"]["broken_of_others"]["status"] for line in file} == {"error"}
    assert lines(tmp_path / "out" / "faces.jsonl") == []


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("nothing = not_there:EYE", "ModuleNotFoundError"),
        ("nothing = eyes_of_others:NO_MEASURE", "not a MeasureSpec"),
        ("eye = eyes_of_others:EYE\nagain = eyes_of_others:EYE", "there is already a measure eye_of_others"),
        ("blurred = eyes_of_others:BLURRED", "another measure already has the reason blurred"),
    ],
)
def test_one_that_cannot_be_loaded_is_left_out_with_a_word(entry: str, told: str, tmp_path: Path) -> None:
    done = gate(install(tmp_path / "site", f"[streamgate.measures]\n{entry}\n"), "measures")
    assert done.code == 0 and told in done.err and "left out" in done.err
    assert all(line.startswith("streamgate: warning: ") for line in done.err.splitlines())
    assert "serfiq" in done.out
