"""The accuracy benchmarks and the profile as a user runs them, on a clip of a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.benchmark_runs import rows, run_script, section
from support.real_weights import shared_folder, standard_models


def test_bestshot_finds_no_regret_where_all_faces_are_alike_and_keeps_its_yardstick(
    drifting: Path, tmp_path: Path
) -> None:
    pytest.importorskip("scipy")
    results, work = tmp_path / "RESULTS.md", tmp_path / "work"
    arguments = [
        drifting, "--clips", "drift", "absent", "--work", work, "--results", results, "--peers", tmp_path / "nothing",
        "--config", "rare", "advanced.dense_interval_s=0.4", "--config", "wrong", "detection.nonsense=1",
    ]  # fmt: skip
    ran = run_script("bestshot.py", *arguments, models=standard_models())
    assert ran.returncode == 0, ran.stderr
    text = section(results, "bestshot")
    assert "- left out: absent: not in videos" in text
    assert "- left out: wrong: " in text and "nonsense" in text
    assert "LightQNet" in text and "NIQE" in text
    (clip,) = rows(text, "drift ")
    assert clip[1] == "1, 1" and clip[3] == "1", clip
    # All alike: which one is picked is chance, and so is its percentile; only the regret says something.
    assert float(clip[4]) <= 4.0 and 0 < float(clip[8]) <= 100, clip
    (default,), (rare,), (exhaustive,) = (rows(text, name) for name in ("**default**", "rare ", "exhaustive "))
    assert float(default[3]) > float(rare[3]) > 0, "detections a second"
    assert float(exhaustive[1]) > float(default[1])
    assert "track recall" in text and "**met**" in text
    (steady,) = rows(text.partition("### How steady")[2], "drift/")
    assert float(steady[1]) > 20 and float(steady[3]) > 0, steady
    assert str(tmp_path) not in text
    kept = {path.name: path.stat().st_mtime_ns for path in work.iterdir()}
    assert len(kept) == 4, kept

    again = run_script("bestshot.py", drifting, "--work", work, "--results", results, "--peers", tmp_path / "nothing",
                   models=standard_models())  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in work.iterdir()}.items()
    assert "figures of 1 of 2 configurations were kept" in section(results, "bestshot")


def test_tracking_follows_the_one_face_with_every_tracker(drifting: Path, tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    ran = run_script(
        "tracking.py", drifting, "--clips", "drift", "absent", "--every", "0", "--work", tmp_path / "work", "--results",
        results, models=standard_models(),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    text = section(results, "tracking")
    assert "- left out: absent: not in videos" in text
    found = rows(text, "drift ")
    assert found[0][2:4] == ["ours", "1"], found
    try:
        import trackers  # noqa: F401
    except ImportError:
        assert len(found) == 1 and "ByteTrack, OC-SORT: " in text
    else:
        assert [row[2] for row in found] == ["ours", "ByteTrack", "OC-SORT"]
    assert all(row[6] == "0" and row[8] == "0" for row in found), found


def test_serfiq_compares_the_closed_form_with_sampling(tmp_path: Path) -> None:
    faces = shared_folder() / "faces" / "hq_val"
    if not faces.is_dir():
        pytest.skip(f"real faces are not here ({faces})")
    results = tmp_path / "RESULTS.md"
    ran = run_script(
        "serfiq.py", faces, "--faces", "3", "--passes", "10", "100", "--results", results, models=standard_models()
    )
    assert ran.returncode == 0, ran.stderr
    text = section(results, "serfiq")
    (closed,), (few,), (many,) = (rows(text, name) for name in ("closed form, in", "T = 10 ", "T = 100 "))
    assert float(many[2]) < float(few[2]), "error against the reference"
    assert float(closed[2]) < 0.004, "error against the reference"
    assert float(closed[1]) > 0.98


def test_profile_accounts_for_the_whole_run(drifting: Path, tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    ran = run_script(
        "profile.py", drifting, "--clips", "drift", "--seconds", "2", "--results", results, models=standard_models()
    )
    assert ran.returncode == 0, ran.stderr
    text = section(results, "profile")
    spent = {row[0]: float(row[1].strip("*")) for row in rows(text.partition("Calls")[0], "") if row[0] != "stage"}
    calls = {row[0]: float(row[1]) for row in rows(text.partition("Calls")[2], "") if row[0] != "stage"}
    whole = spent.pop("**together**")
    assert sum(spent.values()) == pytest.approx(whole, rel=0.02)
    for stage in ("decode", "detect", "recognizer", "ifqa", "warps", "thumbnails", "track", "write"):
        assert spent[stage] > 0, stage
        assert calls[stage] > 0, stage


@pytest.mark.parametrize("name", ["bestshot.py", "tracking.py", "serfiq.py", "profile.py", "scale.py"])
def test_without_weights_nothing_is_measured_and_the_reason_is_named(name: str, drifting: Path, tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    ran = run_script(
        name, drifting, "--models", tmp_path / "nothing", "--results", results, models=tmp_path / "nothing"
    )
    assert ran.returncode == 1, ran.stderr
    assert "left out: nothing was measured" in results.read_text()
    assert "Traceback" not in ran.stderr


def test_scale_goes_through_all_questions(drifting: Path, tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    ran = run_script("scale.py", drifting, "--quick", "--results", results, models=standard_models())
    assert ran.returncode == 0, ran.stderr
    text = section(results, "scale")
    for title in ("Length", "Faces a frame", "Size of the picture", "Files at once"):
        part = text.partition(f"### {title}")[2].partition("###")[0]
        measured = [row for row in rows(part, "") if row[0].replace(".", "").isdigit()]
        assert len(measured) == 2 and all(float(row[2]) > 0 for row in measured), part
    assert "fsgan_conan: not in videos0; drift takes its place" in text
    assert "no measurement" in text
