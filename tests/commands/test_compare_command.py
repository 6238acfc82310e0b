"""`streamgate compare` through its public door."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from support.command import inside, lines, streamgate
from support.media import astronaut, astronaut_frames, write_clip


def table(path: Path, head: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def numbers(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return {(row["measure"], row["group"]): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def blurred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One face at twelve strengths of blur, a table that scores them, and one row without a picture."""
    folder = tmp_path_factory.mktemp("blurred")
    face = cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR)
    rows: list[list[object]] = []
    for level in range(12):
        picture = cv2.GaussianBlur(face, (0, 0), 0.6 * level) if level else face
        cv2.imwrite(str(folder / f"{level}.png"), picture)
        rows.append([f"{level}.png", "clean.png", 10 - level, "odd" if level % 2 else "even"])
    cv2.imwrite(str(folder / "clean.png"), face)
    rows.append(["gone.png", "clean.png", 3, "odd"])
    return table(folder / "table.csv", ["image", "clean", "human", "kind"], rows)


def test_pictures_are_scored_and_compared(blurred: Path, tmp_path: Path) -> None:
    done = streamgate(
        "compare", blurred, "--measures", "sharpness,ifqa,psnr,ssim", "--reference", "clean",
        "--csv", tmp_path / "c.csv", "--html", tmp_path / "c.html",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = numbers(tmp_path / "c.csv")
    for name in ("sharpness", "ifqa", "psnr", "ssim"):
        assert found[name, ""]["rows"] == "12" and float(found[name, ""]["srcc"]) > 0.8, name
        assert f"\n{name} " in done.out
    assert "gone.png: no such file" in done.err
    page = (tmp_path / "c.html").read_text()
    assert page.count("<svg") == 4 and page.count("<circle") == 48
    assert "http" not in page


def test_columns_of_others_are_compared_without_scoring(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    human = rng.integers(0, 3, 60)
    rows = [[value, value + rng.normal(), -value, "ab"[index % 2]] for index, value in enumerate(human)]
    path = table(tmp_path / "t.csv", ["score", "theirs", "distance", "set"], rows)
    done = inside("compare", path, "--measures", "theirs,distance:lower", "--group", "set", "--csv", tmp_path / "c.csv")
    assert done.code == 0, done.err
    found = numbers(tmp_path / "c.csv")
    assert float(found["distance:lower", ""]["srcc"]) == 1.0
    assert {group for _, group in found} == {"", "a", "b"} and found["theirs", "a"]["rows"] == "30"
    assert found["theirs", ""]["auc"] == ""  # three scores: neither kind is said to be good


def test_good_and_bad_give_an_auc(tmp_path: Path) -> None:
    rows = [[word, value] for value, word in enumerate(["bad"] * 8 + ["usable"] * 4 + ["good"] * 8)]
    path = table(tmp_path / "t.csv", ["label", "x"], rows)
    done = inside("compare", path, "--measures", "x", "--csv", tmp_path / "c.csv")
    assert done.code == 0 and "(8 good, 8 bad)" in done.out
    assert float(numbers(tmp_path / "c.csv")["x", ""]["auc"]) == 1.0


def test_faces_of_a_run_are_looked_up(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", astronaut_frames(40, (640, 480), step=1.0))
    out = tmp_path / "out"
    assert streamgate("run", clip, "-o", out, "--set", "exhaustive=true").code == 0
    (kept,) = lines(out / "faces.jsonl")
    (folder,) = {face["source_id"] for face in lines(out / "faces.jsonl")}
    from streamgate.store.folder import RunFolder

    faces = list(RunFolder(out).candidates(folder))[:20]
    rows = [[one["source_id"], one["track_id"], one["pts_seconds"], one["measures"]["ifqa"]["raw"]] for one in faces]
    path = table(tmp_path / "t.csv", ["source_id", "track_id", "pts_seconds", "human"], [*rows, ["nobody", 1, 0.0, 1]])
    done = inside("compare", path, "--results", out, "--measures", "ifqa,quality", "--csv", tmp_path / "c.csv")
    assert done.code == 0, done.err
    found = numbers(tmp_path / "c.csv")
    assert float(found["ifqa", ""]["srcc"]) == 1.0 and found["quality", ""]["rows"] == "20"
    assert "no such face in these results" in done.err and "nobody" in done.err
    assert kept["id"]


@pytest.mark.parametrize(
    ("head", "rows", "measures", "words"),
    [
        (["image", "human"], [["a.png", 1]] * 5, "ifqa", "5 rows"),
        (["image", "human"], [["a.png", 2]] * 20, "ifqa", "the same human judgement"),
        (["image", "human"], [["a.png", "nice"]] * 20, "ifqa", "'nice' is not"),
        (["image", "note"], [["a.png", 1]] * 20, "ifqa", "no column with human judgements"),
        (["image", "human"], [["a.png", n] for n in range(20)], "ifka", "'ifka' is neither a measure nor a column"),
        (["image", "human"], [["a.png", n] for n in range(20)], "psnr", "--reference"),
        (["image", "human"], [["a.png", n] for n in range(20)], ",", "is empty"),
        (["name", "human"], [["a.png", n] for n in range(20)], "ifqa", "no column with pictures"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(
    head: list[str], rows: list[list[object]], measures: str, words: str, tmp_path: Path
) -> None:
    done = inside("compare", table(tmp_path / "t.csv", head, rows), "--measures", measures)
    assert done.code == 2 and words in done.err, done.err


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"image,human\n", "no rows"),
        (b"\xff\xfe\x00a", "not UTF-8"),
        (b"image,human\na.png\n", "1 cells, but 2 columns"),
        (b"human,human\n1,2\n", "two columns"),
        (b"PAR1 and nothing more", "Parquet"),
    ],
)
def test_a_table_that_is_none_is_named(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    done = inside("compare", tmp_path / "t.csv", "--measures", "ifqa")
    assert done.code == 3 and words in done.err, done.err


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"human": list(range(20)), "x": [n / 2 for n in range(20)]}), tmp_path / "t.parquet")
    done = inside("compare", tmp_path / "t.parquet", "--measures", "x")
    assert done.code == 0 and "1.000" in done.out


def test_a_page_shows_hostile_names_as_text(tmp_path: Path) -> None:
    name = "<script>x</script>"
    path = table(tmp_path / "t.csv", ["human", name], [[n, n] for n in range(20)])
    done = inside("compare", path, "--measures", name, "--html", tmp_path / "c.html")
    assert done.code == 0 and "<script>" not in (tmp_path / "c.html").read_text()
