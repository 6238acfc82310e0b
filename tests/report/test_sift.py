"""Search, filters and order of the report, and folders of pictures in it, in a real browser."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.faces import Evidence, GateResult, Measure
from streamgate.report.write import write_report
from streamgate.sinks.disk import DiskSink
from streamgate.store.manifest import Manifest
from streamgate.tracks import NearMiss, TrackEnd, TrackInfo
from support.browser import Browser, chromium
from support.sink_values import Make

KEPT, REJECTED = 430, 70
SOURCES = ("wedding", "portraits")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of pictures, 250 each, of which every one shows a face and 215 keep it; and a video."""
    make = Make()
    out = tmp_path_factory.mktemp("pictures") / "out"
    with DiskSink(out, make.run(config=load_config().model_dump(mode="json")), report=True) as sink:
        for name in SOURCES:
            writer = sink.open_source(make.source(name))
            for track_id in range(1, 251):
                writer.track(picture(make, name, track_id))
            writer.commit(
                make.result(name, pictures=True, frames=250, tracks=250, kept=215, duration_seconds=0.0, rejected={})
            )
        make.send(sink, "clip")
        sink.finish([], {})
    return out


def picture(make: Make, name: str, track_id: int) -> TrackEnd:
    """How the face of a picture ended: each seventh or so is rejected."""
    here = TrackInfo(track_id, float(track_id), float(track_id), 1, 1)
    shown: dict[str, Any] = {"pts_seconds": float(track_id), "name": f"{name} {track_id:03d} of a long evening.jpg"}
    measures = {"yaw": Measure.ok(1.5, float(track_id % 100)), "serfiq": Measure.ok(0.89, 91.0)}
    if track_id <= 215:
        shot = dataclasses.replace(
            make.shot(name, track_id, size=32), track=here, quality=30.0 + track_id / 4, measures=measures,
            evidence=Evidence(ifqa_map=np.full((8, 8), 0.5)), **shown,
        )  # fmt: skip
        return TrackEnd(here, (shot,), {}, (), shot.source_id)
    reason = "blurred" if track_id % 2 else "eyes_closed"
    seen = make.candidate(track_id, 0.0)
    gate = GateResult(False, (reason,))
    missed = dataclasses.replace(seen, measures=measures, gate=gate, evidence=Evidence(), **shown)
    image = np.full((128, 128, 3), track_id % 256, np.uint8)
    source_id = make.source(name).source_id
    return TrackEnd(here, (), {reason: 1}, (reason,), source_id, near_misses=(NearMiss(missed, image),))


def as_persons(out: Path, each: int) -> None:
    """Give every `each` faces in a row a person, and write the report again."""
    records = [json.loads(line) for line in (out / "faces.jsonl").read_text().splitlines()]
    for index, record in enumerate(records):
        record["person_id"] = f"p{1 + index // each:04d}" if each else None
    (out / "faces.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_report(out, Manifest.read(out), {"p0003": "Ann Maria"})


def show(browser: Browser, out: Path) -> None:
    browser.open("about:blank")
    browser.open(f"file://{quote(str(out / 'report.html'))}")
    browser.wait(lambda: browser.count("#groups .tile") > 0)


def say(browser: Browser, **fields: Any) -> list[str]:
    """Fill in fields by the first word of their labels; gives the labels of the tiles that are then shown."""
    for name, text in fields.items():
        browser.run(
            "const label = [...document.querySelectorAll('.sift label')].find((one) => "
            "one.textContent.toLowerCase().startsWith(arguments[0]));"
            "const field = label.querySelector('input, select');"
            "const option = field.options && [...field.options].find((one) => one.text.startsWith(arguments[1]));"
            "field.value = option ? option.value : arguments[1];"
            "field.dispatchEvent(new Event('input', {bubbles: true}));",
            name, str(text),
        )  # fmt: skip
    return browser.run(
        "return [...document.querySelectorAll('#found .tile')].map((one) => one.getAttribute('aria-label'))"
    )


@pytest.mark.parametrize("screen", ["wide", "phone"])
def test_five_hundred_pictures_stay_below_twenty_screens_however_many_persons(out: Path, screen: str) -> None:
    with chromium(screen) as browser:
        for each in (1, 5):
            as_persons(out, each)
            show(browser, out)
            # Sections take their real heights once they were in view.
            for _ in range(40):
                browser.run("scrollBy(0, innerHeight)")
            screens = browser.run("return document.scrollingElement.scrollHeight / innerHeight")
            assert screens < 20, f"{each} faces a person"
            assert browser.run("return document.scrollingElement.scrollWidth <= innerWidth")
            assert browser.low_contrast() == []
            buttons = "return [...document.querySelectorAll('#groups .all')].filter((one) => one.checkVisibility())"
            while browser.run(f"{buttons}.length"):
                browser.run(f"{buttons}[0].click()".replace("return ", ""))
            assert browser.count("#groups .wall .tile") == KEPT + REJECTED + 3, "all can be seen"
        assert browser.complaints() == []


def test_pictures_are_neither_tracks_nor_video(out: Path) -> None:
    as_persons(out, 0)
    with chromium() as browser:
        show(browser, out)
        assert "500 pictures" in browser.text(".hero") and "rejected faces in pictures\n70" in browser.text(".figures")
        assert "tracks\n3" in browser.text(".figures"), "those of the video"
        for section in ("#group-wedding-0a1b2c3d", "#group-portraits-0a1b2c3d"):
            text = browser.run("return document.querySelector(arguments[0]).closest('section').textContent", section)
            assert "215 faces" in text and "track" not in text and "video" not in text and "Rejected: 35" in text
        browser.run("document.querySelector('#group-wedding-0a1b2c3d').closest('section').querySelector('.tile').click()")
        browser.wait(lambda: browser.run("return document.getElementById('detail').open"))
        text = browser.text("#detail")
        assert "of a long evening.jpg" in text and "track" not in text.lower().replace("/track_", "")
        browser.press("ESCAPE")


def test_faces_are_searched_filtered_and_sorted(out: Path) -> None:
    as_persons(out, 5)
    with chromium() as browser:
        show(browser, out)
        assert browser.text(".told .note") == "433 faces kept"
        assert say(browser, search="WEDDING 017") == [
            "Face in wedding 017 of a long evening.jpg of wedding.mp4, quality 34 out of 100"
        ]
        assert browser.text(".told .note") == "1 of 503 faces"
        assert browser.run("return document.getElementById('groups').hidden")
        found = say(browser, search="", person="Ann Maria")
        assert len(found) == 5
        assert len(say(browser, search="ann mar", person="All persons")) == 5
        # By quality, source and order.
        found = say(browser, search="", source="portraits.mp4", minimum=80, order="Best first")
        qualities = [int(one.rpartition("quality ")[2].split()[0]) for one in found]
        assert qualities == sorted(qualities, reverse=True) and qualities[0] == 84 and min(qualities) >= 80
        assert all("portraits" in one for one in found) and len(found) == 16
        found = say(browser, source="All sources", minimum="", order="Yaw")
        assert all(" 100 of a" in one or " 200 of a" in one for one in found[:4]), "least scalar first"
        # Sixty at a time, all in the end.
        assert len(found) == 60
        browser.click("#found .all")
        assert browser.count("#found .tile") == 120
        assert browser.run("return document.activeElement === document.querySelectorAll('#found .tile')[60]")
        # By reason.
        found = say(browser, order="By person", show="blurred")
        assert len(found) == 34 and all(one.endswith("rejected: blurred") for one in found)
        assert len(say(browser, show="Near misses")) == 60 and browser.text(".told .note") == "70 of 503 faces"
        # Arrows go through what was found.
        browser.run("document.querySelectorAll('#found .tile')[1].click()")
        browser.wait(lambda: browser.run("return document.getElementById('detail').open"))
        before = browser.text("#detail-when")
        browser.press("ARROW_RIGHT", "ARROW_LEFT")
        assert browser.text("#detail-when") == before and "rejected" in browser.text("#gate").lower()
        browser.press("ESCAPE")
        assert say(browser, search="nobody at all") == [] and "No face matches" in browser.text("#found")
        browser.click(".sift button[type=reset]")
        browser.wait(lambda: browser.run("return !document.getElementById('groups').hidden"))
        assert browser.count("#found .tile") == 0
        assert browser.complaints() == []


def test_heat_maps_have_a_legend(out: Path) -> None:
    as_persons(out, 0)
    with chromium() as browser:
        show(browser, out)
        assert "unlike a clean photograph" in browser.text("#heats-legend") and browser.count("#heats-legend .scale")
        assert say(browser, source="portraits.mp4", minimum=80)
        browser.click("#heats")
        browser.wait(lambda: browser.count("#found img.heat") == browser.count("#found .tile"))
