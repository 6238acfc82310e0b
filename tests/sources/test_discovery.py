from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamgate.errors import SourceError, UsageError
from streamgate.sources import discover, open_source
from streamgate.sources.naming import slug
from support.media import astronaut, astronaut_frames, write_clip


@pytest.fixture()
def tree(tmp_path: Path) -> Path:
    """Two videos at two depths, three pictures, and clutter."""
    root = tmp_path / "footage"
    (root / "day 2").mkdir(parents=True)
    clip = write_clip(tmp_path / "seed.mp4", astronaut_frames(3, (64, 48)))
    (root / "b.mp4").write_bytes(clip.read_bytes())
    (root / "day 2" / "a.MKV").write_bytes(clip.read_bytes())
    for name in ("p2.png", "p10.png", "day 2/q.jpg"):
        cv2.imwrite(str(root / name), astronaut(64, 48)[:, :, ::-1])
    (root / "notes.md").write_text("x")
    (root / "._b.mp4").write_bytes(b"\0")
    (root / "code.ts").write_text("export const x = 1")
    return root


def test_a_folder_gives_its_videos_and_one_source_of_pictures(tree: Path) -> None:
    found = discover([tree])
    assert [spec.location for spec in found.sources] == [
        str(tree / "b.mp4"),
        str(tree / "day 2" / "a.MKV"),
        str(tree),
    ]
    assert found.skipped == {".md": 1, "hidden": 1, ".ts": 1} and not found.errors and not found.warnings
    with found.sources[2].open() as pictures:
        frames = list(pictures.frames())
        assert [frame.name for frame in frames] == ["day 2/q.jpg", "p2.png", "p10.png"]
        assert all(frame.unrelated for frame in frames)
        assert [frame.pts_seconds for frame in frames] == [0.0, 1.0, 2.0]
        assert pictures.source_id.startswith("footage-") and pictures.fps is None
        assert pictures.estimated_frames == 3 and pictures.stats.frames == 3


def test_a_sequence_is_a_video_at_its_rate(tree: Path) -> None:
    found = discover([tree], sequence_fps=10)
    sequences = [spec for spec in found.sources if spec.root is not None]
    assert [spec.location for spec in sequences] == [str(tree / "day 2"), str(tree)]
    with sequences[1].open() as source:
        frames = list(source.frames())
    assert [(f.name, f.pts_seconds, f.frame_index, f.unrelated) for f in frames] == [
        ("p2.png", 0.0, 0, False),
        ("p10.png", 0.1, 1, False),
    ]
    assert source.fps == 10 and source.duration_seconds == pytest.approx(0.2)


def test_duplicates_collapse(tree: Path) -> None:
    found = discover([tree / "b.mp4", tree, f"{tree}/day 2/../b.mp4", tree])
    assert [spec.location for spec in found.sources].count(str(tree / "b.mp4")) == 1
    assert len(found.sources) == 3 and not found.errors


def test_patterns_the_shell_left_are_expanded(tree: Path) -> None:
    found = discover([str(tree / "**" / "*.[mM]*")])
    assert [Path(spec.location).name for spec in found.sources] == ["b.mp4", "a.MKV"]
    assert found.skipped == {".md": 1}
    assert "no file matches" in str(discover([str(tree / "*.xyz")]).errors[0])


def test_pictures_named_one_by_one_are_one_source_a_folder(tree: Path) -> None:
    found = discover([tree / "p10.png", tree / "p2.png", tree / "day 2" / "q.jpg"])
    assert [(spec.location, len(spec.paths)) for spec in found.sources] == [
        (str(tree), 2),
        (str(tree / "day 2" / "q.jpg"), 1),
    ]
    with found.sources[1].open() as source:
        assert source.source_id.startswith("q-")


def test_a_stray_beside_media_is_a_warning_and_alone_an_error(tree: Path) -> None:
    beside = discover([tree / "notes.md", tree / "b.mp4"])
    assert len(beside.sources) == 1 and "notes.md" in beside.warnings[0] and not beside.errors
    alone = discover([tree / "notes.md"])
    assert "notes.md" in str(alone.errors[0]) and not alone.sources


def test_a_video_without_a_telling_name_is_found(tree: Path) -> None:
    plain = tree.parent / "recording"
    plain.write_bytes((tree / "b.mp4").read_bytes())
    assert [spec.location for spec in discover([plain]).sources] == [str(plain)]


def test_missing_and_empty_inputs_are_errors_and_the_rest_goes_on(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = discover([tmp_path / "nope.mp4", tmp_path / "empty", tree / "b.mp4"])
    assert len(found.sources) == 1
    assert ["no such file" in str(found.errors[0]), "no video" in str(found.errors[1])] == [True, True]


def test_links_back_up_end(tree: Path) -> None:
    (tree / "day 2" / "loop").symlink_to(tree)
    assert len(discover([tree]).sources) == 3


@pytest.mark.parametrize("url", ["rtsp://user:secret@cam/1", "https://host/watch?v=1&token=secret"])
def test_addresses_are_refused_without_their_secrets(url: str) -> None:
    with pytest.raises(UsageError, match="serve") as caught:
        open_source(url)
    assert "secret" not in str(caught.value)


def test_a_video_on_the_web_that_cannot_be_read_is_named_without_its_secrets() -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads the web with aiohttp")
    with pytest.raises(SourceError, match=r":9/a\.mp4\?token=\*\*\*: the store cannot be reached") as caught:
        open_source("http://127.0.0.1:9/a.mp4?token=secret")
    assert "secret" not in str(caught.value)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = astronaut(96, 64)
    _, jpeg = cv2.imencode(".jpg", np.rot90(upright, 1)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    # An EXIF block that says: turn a quarter clockwise to be upright (orientation 6).
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    payload = b"Exif\0\0" + tiff
    block = b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload
    path = tmp_path / "phone.jpg"
    path.write_bytes(jpeg.tobytes()[:2] + block + jpeg.tobytes()[2:])
    with open_source(path) as source:
        assert (source.width, source.height) == (96, 64)
        shown = next(source.frames()).warp(np.eye(2, 3), (96, 64))
    assert np.abs(shown.astype(int) - upright).mean() < 4


def test_damaged_pictures_are_counted_and_keep_their_rank(tree: Path) -> None:
    (tree / "p5.png").write_bytes(b"no picture")
    (tree / "p6.png").write_bytes(b"")
    with discover([tree]).sources[2].open() as source:
        assert [(f.name, f.frame_index) for f in source.frames()] == [
            ("day 2/q.jpg", 0),
            ("p2.png", 1),
            ("p10.png", 4),
        ]
        assert source.stats.decode_errors == 2


def test_a_folder_of_damaged_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(SourceError, match="none of its pictures"):
        open_source(tmp_path)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_wrong_sequence_rate_is_refused(tree: Path, rate: float) -> None:
    with pytest.raises(UsageError, match="frame rate"):
        open_source(tree / "day 2" / "q.jpg", sequence_fps=rate)


@pytest.mark.parametrize("text, wanted", [
    ("clip_01", "clip_01"), ("../../etc/passwd", "etc-passwd"), ("..", "source"), ("", "source"),
    ("日本", "source"), ("Élan .. take", "Elan-.-take"), (".hidden", "hidden"),
    ("a" * 99, "a" * 64), ("a/b\\c:d", "a-b-c-d"),
])  # fmt: skip
def test_slugs_are_safe_path_parts(text: str, wanted: str) -> None:
    assert slug(text) == wanted
    assert os.path.basename(slug(text)) == slug(text)


def test_results_of_a_run_are_not_footage(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", astronaut_frames(3))
    for name in ("out", "earlier"):
        (tmp_path / name / "clip-01234567").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / name / "clip-01234567" / "1.png"), astronaut(64, 64))
    (tmp_path / "earlier" / ".streamgate").mkdir()
    (tmp_path / "earlier" / ".streamgate" / "manifest.json").write_text("{}")
    found = discover([tmp_path], output=tmp_path / "out")
    assert [spec.paths[0].name for spec in found.sources] == ["clip.mp4"]


def test_copies_under_one_name_count_once_in_input_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    write_clip(tmp_path / "b" / "clip.mp4", astronaut_frames(3))
    data = (tmp_path / "b" / "clip.mp4").read_bytes()
    (tmp_path / "a" / "clip.mp4").write_bytes(data)
    (tmp_path / "a" / "other.mp4").write_bytes(data)
    found = discover([tmp_path])
    assert [str(spec.paths[0].relative_to(tmp_path)) for spec in found.sources] == ["a/clip.mp4", "a/other.mp4"]
    assert found.duplicates == [(str(tmp_path / "b" / "clip.mp4"), str(tmp_path / "a" / "clip.mp4"))]


def test_names_that_differ_by_case_alone_are_one_where_the_content_is(tmp_path: Path) -> None:
    # Their folders of results would be one on a file system that tells no cases apart.
    data = write_clip(tmp_path / "Clip.mp4", astronaut_frames(3)).read_bytes()
    (tmp_path / "clip.mp4").write_bytes(data)
    (tmp_path / "CLIP.mp4").write_bytes(data + b"\0\0\0\x08free")
    found = discover([tmp_path])
    assert {spec.paths[0].name for spec in found.sources} == {"CLIP.mp4", "Clip.mp4"}
    assert found.duplicates == [(str(tmp_path / "clip.mp4"), str(tmp_path / "Clip.mp4"))]


def test_copies_of_a_folder_of_pictures_count_once(tmp_path: Path) -> None:
    for folder, names in (("a/Frames", "12"), ("b/frames", "12"), ("c/frames", "123")):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), astronaut(64, 64))
    found = discover([tmp_path / "a" / "Frames", tmp_path / "b" / "frames", tmp_path / "c" / "frames"])
    assert [spec.location for spec in found.sources] == [str(tmp_path / "a/Frames"), str(tmp_path / "c/frames")]
    assert found.duplicates == [(str(tmp_path / "b/frames"), str(tmp_path / "a/Frames"))]
    for spec in found.sources:
        with spec.open() as source:
            assert source.source_id == spec.source_id()


def test_an_export_below_a_folder_is_no_footage(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / ".streamgate-export.json").write_text("{}")
    (tmp_path / "faces" / "face.png").write_bytes(b"x")
    (tmp_path / "clip.mp4").write_bytes(b"x")
    assert [spec.paths for spec in discover([tmp_path]).sources] == [(tmp_path / "clip.mp4",)]


@pytest.mark.parametrize("suffix", [".264", ".265", ".m2t", ".mk3d", ".MOD", ".dav", ".insv", ".trp", ".m2ts"])
def test_recordings_of_cameras_and_receivers_are_footage(tmp_path: Path, suffix: str) -> None:
    codec = "libx265" if suffix == ".265" else "mpeg2video" if suffix == ".MOD" else "libx264"
    form = {".264": "h264", ".265": "hevc", ".mk3d": "matroska", ".MOD": "vob", ".insv": "mp4", ".dav": "mp4"}
    seed = tmp_path / "seed"
    write_clip(seed, astronaut_frames(3, (64, 48)), codec=codec, form=form.get(suffix, "mpegts"))
    (tmp_path / "card").mkdir()
    path = seed.rename(tmp_path / "card" / f"clip{suffix}")
    found = discover([tmp_path / "card"])
    assert [spec.location for spec in found.sources] == [str(path)] and not found.skipped
    with found.sources[0].open() as source:
        assert sum(1 for _ in source.frames()) == 3


def test_what_only_has_the_name_of_a_recording_is_none(tmp_path: Path) -> None:
    (tmp_path / "song.mod").write_bytes(b"a tune\0\0" * 99)
    (tmp_path / "code.ts").write_text("export const x = 1")
    assert discover([tmp_path]).skipped == {".mod": 1, ".ts": 1}


def test_what_a_storage_server_keeps_for_itself_is_no_footage(tree: Path) -> None:
    for folder in ("@eaDir", "#recycle", "$RECYCLE.BIN"):
        (tree / folder).mkdir()
        (tree / folder / "b.mp4").write_bytes((tree / "b.mp4").read_bytes() + b"\0")
    assert len(discover([tree]).sources) == 3


def test_skipped_files_are_named_with_their_counts(tmp_path: Path) -> None:
    for count, suffix in enumerate(("srt", "txt", "json", "log", "nfo", "xml", "md", "csv"), 1):
        for index in range(count):
            (tmp_path / f"{index}.{suffix}").touch()
    (tmp_path / "README").touch()
    words = discover([tmp_path]).skipped_words()
    assert words.startswith("skipped 37 file(s) that are neither videos nor pictures (8 .csv, 7 .md, 6 .xml, ")
    assert words.endswith("4 others)")
    assert discover([tmp_path / "README"]).skipped_words() == ""


def test_heic_pictures_are_read_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    rgb = astronaut(320, 240)
    pillow_heif.from_bytes("RGB", (320, 240), rgb.tobytes()).save(str(tmp_path / "photo.heic"), quality=95)
    (spec,) = discover([tmp_path]).sources
    with spec.open() as source:
        (frame,) = source.frames()
        assert (frame.width, frame.height) == (320, 240)
        assert np.abs(frame.warp(np.eye(2, 3), (320, 240)).astype(int) - rgb).mean() < 4
    damaged = tmp_path / "damaged.heic"
    damaged.write_bytes((tmp_path / "photo.heic").read_bytes()[:-3000])
    with pytest.raises(SourceError, match="damaged"):
        open_source(damaged)
    damaged.unlink()

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr("streamgate.sources.heic.find_spec", lambda name: None)
    found = discover([tmp_path])
    assert found.skipped == {".heic": 1} and "streamgate[heic]" in found.skipped_words()
    with pytest.raises(SourceError, match=r"HEIC.*streamgate\[heic\]"):
        open_source(tmp_path / "photo.heic")


def test_grey_heic_of_ten_bits_is_read(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    grey = astronaut(320, 240)[:, :, 1]
    sixteen = (grey.astype("<u2") << 8).tobytes()
    pillow_heif.from_bytes("I;16", (320, 240), sixteen).save(str(tmp_path / "grey.heic"), quality=95)
    assert pillow_heif.open_heif(tmp_path / "grey.heic").mode == "I;16"
    with open_source(tmp_path / "grey.heic") as source:
        (frame,) = source.frames()
        assert np.abs(frame.warp(np.eye(2, 3), (320, 240)).astype(int) - grey[:, :, None]).mean() < 4
