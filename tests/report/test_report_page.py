"""The report in a real browser, opened as a file, with real faces."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from support.browser import Browser, chromium
from support.command import lines, streamgate
from support.media import astronaut_frames, plain_frames, write_clip

NASTY = "<img src=x onerror=alert(1)> & 'so' \"on\""
NO_SIDEWAYS_SCROLL = "return document.scrollingElement.scrollWidth <= innerWidth"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over a clip with a hostile name: a near face, one that leaves the picture, and one too small to keep."""
    folder = tmp_path_factory.mktemp("report")
    near = astronaut_frames(40, (640, 480), step=1.0, zoom=1.6)
    leaving = astronaut_frames(60, (640, 480), step=9.0, zoom=1.6)
    small = astronaut_frames(40, (640, 480), step=1.0, zoom=0.35)
    gap = plain_frames(5, (640, 480))
    write_clip(folder / "clip.mp4", [*near, *gap, *leaving, *gap, *small]).rename(folder / f"{NASTY}.mp4")
    done = streamgate("run", folder, "-o", folder / "out", "--top-k", 2, "--set", "keep.min_gap_seconds=0.4")
    assert done.code == 0, done.err
    assert "report.html" in done.err
    return folder / "out"


@pytest.fixture(scope="module")
def wide() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def address(out: Path, fragment: str = "") -> str:
    return f"file://{quote(str(out / 'report.html'))}{fragment}"


def show(browser: Browser, out: Path, fragment: str = "") -> None:
    browser.open("about:blank")
    browser.open(address(out, fragment))
    browser.wait(lambda: browser.count(".faces .tile") > 0)


def opened(browser: Browser) -> bool:
    script = "return document.getElementById('detail').open && document.getElementById('photo').naturalWidth"
    return bool(browser.run(script))


def test_it_opens_from_disk_and_shows_faces_tracks_and_near_misses(wide: Browser, out: Path) -> None:
    show(wide, out)
    faces = lines(out / "faces.jsonl")
    assert wide.count(".faces .tile") == len(faces) >= 2
    assert wide.text("#title").startswith(f"{len(faces)} faces")
    # Charts are drawn when they come near.
    wide.run("document.querySelectorAll('.track .chart').forEach((one) => one.scrollIntoView())")
    wide.wait(lambda: wide.count(".track .chart svg") == wide.count(".track .chart") >= 1)
    assert wide.count(".track .chart .chosen") == len(faces), "picked frames are marked"
    assert wide.count(".track .band-passed") >= 1
    times = wide.run("return [...document.querySelectorAll('.track .chart svg > text')].map((one) => one.textContent)")
    starts = wide.run("return [...document.querySelectorAll('.track header .note')].map((one) => one.textContent)")
    assert any(not text.startswith("0:00.0") for text in starts), "a track that begins later"
    assert "0:01.0" in times, "times of the source, not of the track"
    assert not any(text.endswith("s") for text in times)
    assert wide.count(".miss") >= 1 and wide.text(".miss .reasons")
    broken = "return [...document.images].filter((one) => one.src && !(one.complete && one.naturalWidth)).length"
    assert wide.run(broken) == 0
    assert "research" in wide.text("#about"), "the licences of the weights"
    assert wide.complaints() == []


def test_it_asks_for_nothing_but_its_own_pictures(wide: Browser, out: Path) -> None:
    show(wide, out)
    wide.click(".faces .tile")
    wide.wait(lambda: opened(wide))
    asked = wide.run("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert all(name.startswith(("data:", "file:", "about:")) for name in asked)
    wide.press("ESCAPE")


def test_a_face_opens_with_its_measures_heatmap_and_picture(wide: Browser, out: Path) -> None:
    show(wide, out)
    wide.click(".faces .tile")
    wide.wait(lambda: opened(wide))
    key = wide.run("return decodeURIComponent(location.hash.slice('#face='.length))")
    source_id, track_id, rank = key.split("/")
    face = next(
        one
        for one in lines(out / "faces.jsonl")
        if (one["source_id"], one["track_id"], one["rank"]) == (source_id, int(track_id), int(rank))
    )
    assert wide.text("#quality") == str(round(face["quality"]))
    assert wide.run("return document.getElementById('photo').naturalWidth") == 512, "the picture, not its small copy"
    bars = wide.run(
        "return Object.fromEntries([...document.querySelectorAll('.measure:not(.absent)')].map((row) => "
        "[row.firstChild.textContent, row.querySelector('i').getBoundingClientRect().width / "
        "row.querySelector('.meter').getBoundingClientRect().width]))"
    )
    assert bars["SER-FIQ"] == pytest.approx(face["measures"]["serfiq"]["scalar"] / 100, abs=0.01)
    assert len(bars) == sum(measure["status"] == "ok" for measure in face["measures"].values())
    wide.click("#views label:last-child")
    shown = "const heat = document.getElementById('heat'); return !heat.hidden && heat.complete && heat.naturalWidth"
    assert wide.wait(lambda: wide.run(shown)) == 32
    link = wide.run("return document.querySelector('#meta a').href")
    assert link == f"file://{quote(str(out / face['image']))}"
    wide.click("#close")


def test_a_picture_that_is_gone_gives_way_to_the_small_one(wide: Browser, out: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(out, tmp_path / "out"))
    for picture in copy.glob("*/track_*/*.png"):
        picture.unlink()
    show(wide, copy)
    wide.click(".faces .tile")
    wide.wait(lambda: opened(wide))
    assert wide.run("return document.getElementById('photo').naturalWidth") == 128
    wide.driver.get_log("browser")  # it notes the missing file
    wide.press("ESCAPE")


def test_the_heatmap_lies_over_a_face_that_is_pointed_at(wide: Browser, out: Path) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    show(wide, out)
    assert wide.count("img.heat") == 0
    tile = wide.driver.find_element(By.CSS_SELECTOR, ".faces .tile")
    ActionChains(wide.driver).move_to_element(tile).perform()
    seen = "const one = document.querySelector('.faces .tile img.heat'); return one && getComputedStyle(one).opacity"
    wide.wait(lambda: wide.run(seen) == "1")
    wide.click("#heats")
    wide.wait(lambda: wide.count("img.heat") >= wide.count(".faces .tile"))
    shown = "return [...document.querySelectorAll('img.heat')].every((one) => getComputedStyle(one).opacity === '1')"
    wide.wait(lambda: wide.run(shown))


def test_names_are_text_and_never_markup(wide: Browser, out: Path) -> None:
    show(wide, out)
    assert NASTY in wide.text("#about") and wide.count("img[onerror]") == 0
    assert NASTY in wide.text(".track h3") + wide.text(".group h2")
    wide.click(".faces .tile")
    wide.wait(lambda: opened(wide))
    assert NASTY in wide.text("#detail-title") and wide.count("img[onerror]") == 0
    wide.press("ESCAPE")


def test_it_is_all_done_by_keyboard(wide: Browser, out: Path) -> None:
    show(wide, out)
    focused = "return document.activeElement"
    wide.press("TAB")
    assert wide.run(f"{focused}.className") == "skip"
    wide.press("ENTER", "TAB")
    first = wide.run(f"{focused}.getAttribute('href')")
    assert first.startswith("#face=")
    wide.press("ENTER")
    wide.wait(lambda: opened(wide))
    wide.press("ARROW_RIGHT")
    wide.wait(lambda: wide.run("return location.hash") != first)
    wide.press("h")
    wide.wait(lambda: wide.run("return !document.getElementById('heat').hidden"))
    wide.run("document.querySelector('#chart svg').focus()")
    wide.press("END")
    assert wide.text("#course-readout")
    second = wide.run("return location.hash")
    wide.press("ESCAPE")
    wide.wait(lambda: wide.run("return !document.getElementById('detail').open"))
    # Focus is where one was.
    wide.wait(lambda: wide.run(f"{focused}.getAttribute('href')") == second)


def test_an_address_with_a_face_opens_it(wide: Browser, out: Path) -> None:
    face = lines(out / "faces.jsonl")[1]
    key = quote(f"{face['source_id']}/{face['track_id']}/{face['rank']}", safe="")
    show(wide, out, f"#face={key}")
    wide.wait(lambda: opened(wide))
    assert wide.text("#quality") == str(round(face["quality"]))
    wide.press("ESCAPE")


def test_it_prints_with_its_charts(wide: Browser, out: Path) -> None:
    show(wide, out)
    printed = wide.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(base64.b64decode(printed["data"])) > 20_000
    assert wide.count(".track .chart svg") == wide.count(".track .chart")


@pytest.mark.parametrize("screen", ["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_can_be_read(out: Path, screen: str, scheme: str) -> None:
    with chromium(screen, scheme) as browser:
        show(browser, out)
        assert browser.run(NO_SIDEWAYS_SCROLL)
        assert browser.low_contrast() == []
        browser.run("document.querySelector('.faces .tile').click()")
        browser.wait(lambda: opened(browser))
        fits = "return one.scrollWidth <= Math.min(one.clientWidth, innerWidth)"
        assert browser.run(f"const one = document.getElementById('detail'); {fits}")
        assert browser.low_contrast() == []
        unnamed = (
            "return [...document.querySelectorAll('a, button, input')].filter((one) => one.checkVisibility() && "
            "!(one.textContent.trim() || one.ariaLabel || one.closest('label'))).length"
        )
        assert browser.run(unnamed) == 0
        assert browser.complaints() == []


def test_a_person_who_was_named_stands_under_that_name(wide: Browser, out: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(out, tmp_path / "out"))
    listed = streamgate("people", copy, "list", "--json")
    if listed.code != 0 or not listed.out.strip():
        pytest.skip("these weights cannot distinguish persons")
    person = json.loads(listed.out.splitlines()[0])["person_id"]
    assert streamgate("people", copy, "name", person, NASTY).code == 0
    assert streamgate("report", copy).code == 0
    show(wide, copy)
    assert NASTY in wide.text("#faces h2") and wide.count("img[onerror]") == 0
