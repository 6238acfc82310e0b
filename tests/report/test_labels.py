"""Labels in a real browser: in the report as a file, and served by `streamgate label`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from streamgate.labels import FaceKey, labels_text, read_labels
from support.browser import Browser, chromium
from support.command import inside, lines, streamgate
from support.media import astronaut_frames, plain_frames, write_clip

PATIENCE_S = 180
"""A busy machine is slow, not wrong."""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kept faces of two tracks."""
    folder = tmp_path_factory.mktemp("labels")
    near = astronaut_frames(20, (640, 480), step=1.0, zoom=1.6)
    far = astronaut_frames(20, (640, 480), step=1.0, zoom=1.2)
    write_clip(folder / "a, b.mp4", [*near, *plain_frames(5, (640, 480)), *far])
    done = streamgate("run", folder / "a, b.mp4", "-o", folder / "out")
    assert done.code == 0, done.err
    assert len(lines(folder / "out" / "faces.jsonl")) == 2
    return folder / "out"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@contextmanager
def served(out: Path, target: Path, *options: object) -> Iterator[str]:
    """`streamgate label` until the block ends; its address."""
    running = subprocess.Popen(
        [sys.executable, "-m", "streamgate", "label", str(out), "--labels", str(target), "--port", "0",
         *map(str, options)], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        first = running.stdout.readline()
        assert "http://127.0.0.1:" in first, first
        yield first.split("label the faces at ")[1].split()[0]
    finally:
        running.terminate()
        assert running.wait(PATIENCE_S) == 0


def get(address: str) -> bytes:
    found: bytes = urllib.request.urlopen(address, timeout=PATIENCE_S).read()
    return found


def faces(out: Path) -> list[FaceKey]:
    return [FaceKey(one["source_id"], one["track_id"], one["pts_seconds"]) for one in lines(out / "faces.jsonl")]


def show_report(browser: Browser, report: Path) -> None:
    """The report as a file."""
    browser.open("about:blank")
    browser.open(f"file://{quote(str(report))}")
    browser.wait_for_faces(2)


def unlabelled(out: Path, folder: Path) -> Path:
    """A copy of the report without labels: the browser stores them by the path of the report."""
    shutil.copytree(out, folder / "out")
    return folder / "out" / "report.html"


def open_face(browser: Browser, tile: str) -> None:
    browser.click(tile)
    # The keys go to what has the focus.
    browser.wait(lambda: browser.run("return document.activeElement.closest('#detail[open]') !== null"))


@pytest.mark.parametrize("screen", ["wide", "phone"])
def test_keys_label_faces_and_the_file_is_downloaded(out: Path, browser: Browser, tmp_path: Path, screen: str) -> None:
    browser.screen(screen)
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    report = unlabelled(out, tmp_path)
    show_report(browser, report)
    assert browser.run("return document.getElementById('labels').hidden"), "nothing is labelled yet"
    open_face(browser, ".faces .tile")
    browser.press("1")  # and on to the next face
    browser.wait(lambda: "1 good" in browser.text("#labels-count"))
    browser.wait(lambda: browser.count(".label-keys [aria-pressed=true]") == 0)
    browser.click(".label-keys [data-label=bad]")
    browser.wait(lambda: "1 good, 1 bad" in browser.text("#labels-count"))
    assert browser.run("return document.scrollingElement.scrollWidth <= innerWidth")
    assert browser.low_contrast() == []
    browser.press("ESCAPE")
    browser.wait(lambda: not browser.run("return document.getElementById('detail').open"))
    assert browser.count(".faces .tile[data-label=good]") == browser.count(".faces .tile[data-label=bad]") == 1
    assert browser.low_contrast() == []

    def reopened() -> bool:
        # The report opens in another process, and on a busy machine Chromium gives it the stored values late.
        show_report(browser, report)
        return "1 good, 1 bad" in browser.text("#labels-count")

    time.sleep(2)  # a process that ends at once may not have handed over what it stored
    browser.wait(reopened)  # they are still there
    browser.click("#labels-download")
    browser.wait(lambda: (tmp_path / "labels.csv").is_file())
    labels, problems = read_labels(tmp_path / "labels.csv")
    assert problems == [] and set(labels) == set(faces(out)) and sorted(labels.values()) == [0, 2]
    assert browser.complaints() == []


def test_a_second_press_takes_a_label_away(out: Path, browser: Browser, tmp_path: Path) -> None:
    show_report(browser, unlabelled(out, tmp_path))
    for hidden in (False, True):
        open_face(browser, ".faces .tile")
        browser.press("2")
        browser.wait(lambda hidden=hidden: browser.run("return document.getElementById('labels').hidden") == hidden)
        browser.press("ESCAPE")
        # The address is cleared by an event that arrives after the dialog has closed. Until then, a click on the same
        # face does nothing.
        browser.wait(lambda: browser.run("return !document.getElementById('detail').open && !location.hash"))


def test_served_it_shows_more_faces_of_each_track_and_writes_the_file(
    out: Path, browser: Browser, tmp_path: Path
) -> None:
    target = tmp_path / "labels.csv"
    with served(out, target, "--each", 5) as address:
        browser.open(address)
        browser.wait_for_faces(2)
        assert browser.count(".spaced .tile") >= 6
        open_face(browser, ".spaced .tile")
        for index, key in enumerate("1223", 1):
            browser.press(key)
            browser.wait(lambda index=index: target.is_file() and len(read_labels(target)[0]) == index)
        browser.wait(lambda: "1 good, 2 usable, 1 bad" in browser.text("#labels-count"))
        assert browser.complaints() == []
        browser.open("about:blank")
    labels, _ = read_labels(target)
    assert not set(labels) & set(faces(out)), "these were not kept"
    # All of them are faces of the run: nothing is unknown to a fit, which only wants more of them.
    done = inside("fit", out, "--labels", target, "-o", tmp_path / "mine.toml")
    assert done.code == 2 and "4 labels can be used" in done.err and "not used" not in done.err


def test_only_its_own_page_on_this_machine_is_answered(out: Path, tmp_path: Path) -> None:
    face = faces(out)[0]
    label = {"source_id": face.source_id, "track_id": 1, "pts_seconds": 0.0, "label": "good"}
    (tmp_path / "labels.csv").write_text(labels_text([(face, 1)]))

    def ask(path: str, body: object = None, **headers: str) -> int:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(address + path, data, {"Content-Type": "application/json", **headers})
        try:
            return int(urllib.request.urlopen(request, timeout=PATIENCE_S).status)
        except urllib.error.HTTPError as error:
            return int(error.code)

    with served(out, tmp_path / "labels.csv", "--each", 0) as address:
        assert ask("") == ask("report.html") == ask("labels") == ask(lines(out / "faces.jsonl")[0]["image"]) == 200
        for path in ("faces.jsonl", "..%2f..%2fetc%2fpasswd", "%2fetc/passwd", ".streamgate/manifest.json"):
            assert ask(path) == 404, path
        assert ask("", Host="evil.example") == ask("labels", label, Origin="http://evil.example") == 403
        assert ask("labels", label, **{"Content-Type": "text/plain"}) == 415
        assert ask("labels", b"x" * 5000) == 413
        for wrong in (
            b"{", b"[" * 4000, {}, {**label, "label": "lovely"}, {**label, "track_id": "1"},
            {**label, "pts_seconds": 1e300}, {**label, "source_id": "nobody"}, [], {**label, "pts_seconds": True},
        ):  # fmt: skip
            assert ask("labels", wrong) == 400, wrong
        # The label that was there is still there, alone.
        assert list(json.loads(get(f"{address}labels")).values()) == ["usable"]
        assert read_labels(tmp_path / "labels.csv")[0] == {face: 1}
        assert ask("labels", label) == 200
        assert len(read_labels(tmp_path / "labels.csv")[0]) == 2
        if os.geteuid() != 0:
            (tmp_path / "labels.csv").parent.chmod(0o500)
            assert ask("labels", {**label, "label": "bad"}) == 507
            (tmp_path / "labels.csv").parent.chmod(0o700)


def test_a_file_that_would_be_spoiled_is_refused(out: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("source_id,track_id,pts_seconds,label\na-12345678,1,0.5,lovely\n")
    done = inside("label", out, "--labels", tmp_path / "labels.csv")
    assert done.code == 3 and "lovely" in done.err and "--labels" in done.err


def test_moved_footage_leaves_the_other_faces_to_label(out: Path, tmp_path: Path) -> None:
    (clip,) = out.parent.glob("*.mp4")
    moved = clip.rename(tmp_path / "elsewhere.mp4")
    try:
        with served(out, tmp_path / "labels.csv") as address:
            assert b'"spaced":[]' in get(address)
    finally:
        moved.rename(clip)
