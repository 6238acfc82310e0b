"""The table by group: drawn evenly, fair to groups whose pictures are less sharp, plain about the others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from models.common.report import put_between
from models.expression import glasses
from models.expression.groups import Judged, draw, groups, main, tables


def name(age: int, sex: int, race: int, number: int) -> str:
    return f"{age}_{sex}_{race}_{number:017d}.jpg.chip.jpg"


def test_every_beginning_of_the_draw_is_even_over_ages_and_origins() -> None:
    names = [name(age, i % 2, int(i % 10 == 0), i) for age in (5, 25, 40) for i in range(100)]
    drawn = draw(names, per_age=20)
    assert drawn == draw(list(reversed(names)), per_age=20) and len(set(drawn)) == 60
    for count in (12, 60):
        ages = Counter(one.split("_")[0] for one in drawn[:count])
        assert set(ages.values()) == {count // 3}
    origins = Counter(one.split("_")[2] for one in drawn)
    assert origins == {"1": 30, "0": 30}


def judged(sex: int, race: int, sharp: float, rejected: bool, number: int) -> Judged:
    reasons = frozenset({"blurred"} if rejected else ())
    return Judged(name(30, sex, race, number), sharp, 35.0, reasons, np.zeros(4, np.float32))


def test_pictures_that_are_less_sharp_count_against_no_group_and_a_measure_that_does_is_named() -> None:
    rng = np.random.default_rng(0)
    faces = []
    for i in range(6000):
        sex, race = i % 2, i % 3
        # Pictures of women are less sharp, and whoever's picture is blurred is rejected; of race 1 others are too.
        sharp = float(rng.random() * (1.0 if sex == 0 else 0.5))
        faces.append(judged(sex, race, sharp, sharp < 0.05 or (race == 1 and rng.random() < 0.1), i))
    whole, by_reason = tables(faces, groups(faces), "Faces")
    rows = {row[0]: row for row in whole.rows}
    assert float(rows["sex: female"][2].split()[0]) > 1.3 * float(rows["sex: male"][2].split()[0])
    assert rows["sex: female"][4] == "-" and rows["origin: Black"][4].startswith("blurred +")
    assert 5 < float(rows["origin: Black"][3].split()[0]) < 8
    assert rows["origin: White"][1] == "2000" and "age 0-12" not in rows
    assert by_reason.header == ["group", "blurred"]


def test_who_wears_glasses_is_known_by_the_hash_of_the_name_of_a_file() -> None:
    worn = glasses.read_list(Path(glasses.__file__).with_name("glasses.txt"))
    assert set(worn.values()) == {"glasses", "tinted", "unsure"}
    # Of the validation faces; the first wears glasses by eye.
    assert [glasses.kind(name, worn) for name in ("04803.jpg", "04766.jpg")] == ["glasses", "none"]


def test_pictures_of_which_none_is_in_the_list_of_glasses_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "face.jpg").write_bytes(b"")
    assert glasses.main([str(tmp_path)]) == 2
    assert "none of the pictures is in glasses.txt" in capsys.readouterr().err


def test_what_was_judged_comes_back_from_its_line() -> None:
    one = Judged(name(30, 0, 1, 7), 0.25, -12.5, frozenset({"dark", "yaw"}), np.array([0.5, -0.25], np.float32))
    again = Judged.of_line(one.line())
    assert np.array_equal(again.embedding, one.embedding)
    assert (again.name, again.sharpness, again.tone, again.reasons) == (one.name, 0.25, -12.5, one.reasons)


def test_without_the_training_crops_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--work", str(tmp_path)]) == 2
    assert "stills-utk" in capsys.readouterr().err


def test_a_table_is_put_between_its_own_markers(tmp_path: Path) -> None:
    page = tmp_path / "card.md"
    page.write_text("# name\n\nwords\n")
    for text in ("first", "second"):
        put_between(page, "<!-- a -->", "<!-- b -->", text)
    assert page.read_text() == "# name\n\nwords\n\n<!-- a -->\nsecond\n<!-- b -->\n"
