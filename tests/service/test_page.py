"""The page in a real browser, with real faces on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from streamgate.service.state import ServiceState, StreamState
from support.browser import Browser, chromium
from support.client import Client

TOKEN = "correct horse battery staple"
Serve = Callable[..., Client]

NO_SIDEWAYS_SCROLL = "return document.scrollingElement.scrollWidth <= innerWidth"
FITS = "const one = document.getElementById('detail'); return one.scrollWidth <= Math.min(one.clientWidth, innerWidth)"


@pytest.fixture(scope="module")
def wide():
    with chromium() as browser:
        yield browser


def opened(browser: Browser) -> bool:
    return browser.run("return document.getElementById('detail').open && document.getElementById('photo').complete")


def newest(state: ServiceState) -> Any:
    """The face that came into view last: the first one on the wall."""

    def began(face: Any) -> float:
        record = face.record
        seen = datetime.fromisoformat(record["captured_at"]).timestamp()
        return seen - record["pts_seconds"] + record["track"]["first_pts"]

    return max(state.faces(), key=lambda face: (began(face), face.number))


def test_a_face_appears_while_one_watches_and_opens(wide: Browser, serve: Serve, state: ServiceState) -> None:
    wide.open(serve().url)
    wide.wait_for_faces(3)
    assert wide.count(".stream") == 3 and "2 of 3 running" in wide.text("#streams-note")
    assert "401" in wide.text("#streams") and "25 fps" in wide.text("#streams").replace("\n", " ")

    face = replace(newest(state), stream="hall", track_key="hall/1/9")
    arriving = replace(face, key="hall/1/9/1", id="hall/1/9/improved/1/1", kind="improved")
    state.show(arriving)
    wide.wait_for_faces(4)
    assert wide.run("return document.querySelector('.wall li').dataset.key") == arriving.key
    assert "in view" in wide.text(".wall li:first-child")

    wide.click(".wall li:first-child a")
    wide.wait(lambda: opened(wide))
    assert wide.text("#detail-title") == "hall"
    assert wide.text("#quality") == str(round(face.record["quality"]))
    bars = wide.run(
        "return Object.fromEntries([...document.querySelectorAll('.measure:not(.absent)')].map((row) => "
        "[row.firstChild.textContent, row.querySelector('i').getBoundingClientRect().width / "
        "row.querySelector('.meter').getBoundingClientRect().width]))"
    )
    assert bars["SER-FIQ"] == pytest.approx(face.record["measures"]["serfiq"]["scalar"] / 100, abs=0.01)
    assert len(bars) == sum(measure["status"] == "ok" for measure in face.record["measures"].values())
    scored = sum(point.quality is not None for point in face.series)
    assert len(wide.run("return document.querySelector('.curve').getAttribute('points')").split()) == scored
    assert wide.count(".band-passed") >= 1

    wide.click("#views label:last-child")
    shown = "const heat = document.getElementById('heat'); return !heat.hidden && heat.complete && heat.naturalWidth"
    assert wide.wait(lambda: wide.run(shown)) == 128

    state.show(replace(face, key=arriving.key, id="hall/1/9/final/1/0", kind="final"))
    wide.wait(lambda: "still in view" not in wide.text("#detail-when"))
    wide.press("ESCAPE")
    wide.wait(lambda: not opened(wide))
    assert "in view" not in wide.text(".wall li:first-child")
    assert wide.complaints() == []


def test_it_is_all_done_by_keyboard(wide: Browser, serve: Serve, state: ServiceState) -> None:
    wide.open(serve().url)
    wide.wait_for_faces(3)
    focused = "return document.activeElement"
    wide.press("TAB")
    assert wide.run(f"{focused}.className") == "skip"
    wide.press("ENTER", "TAB")
    keys = wide.run("return [...document.querySelectorAll('.wall li')].map((one) => one.dataset.key)")
    assert keys[0] == newest(state).key
    assert wide.run(f"{focused}.closest('li').dataset.key") == keys[0]
    wide.press("ARROW_RIGHT")
    assert wide.run(f"{focused}.closest('li').dataset.key") == keys[1]
    wide.press("ENTER")
    wide.wait(lambda: opened(wide))
    wide.press("ARROW_RIGHT")
    wide.wait(lambda: wide.run("return decodeURIComponent(location.hash)") == f"#face={keys[2]}")
    wide.wait(lambda: wide.run("return document.getElementById('next').disabled"))
    wide.press("h")
    wide.wait(lambda: wide.run("return !document.getElementById('heat').hidden"))
    wide.run("document.querySelector('#chart svg').focus()")
    wide.press("END")
    assert wide.text("#course-readout")
    wide.press("ESCAPE")
    wide.wait(lambda: not opened(wide))
    # The browser puts the focus on the face that the dialog was opened from; the page then on the one that was open.
    wide.wait(lambda: wide.run(f"{focused}.closest('li').dataset.key") == keys[2])


def test_an_address_of_a_face_that_is_gone_is_cleared(wide: Browser, serve: Serve, state: ServiceState) -> None:
    wide.open(serve().url)
    wide.wait_for_faces(3)
    for address in ("#face=hall/9/9/9", "#face=%25"):
        wide.run(f"location.hash = '{address}'")
        wide.wait(lambda: wide.run("return !location.hash && !document.getElementById('detail').open"))
    wide.complaints()  # it notes the missing faces


def test_a_face_that_was_being_fetched_does_not_open_after_the_dialog_is_closed(
    wide: Browser, serve: Serve, state: ServiceState
) -> None:
    wide.open(serve().url)
    wide.wait_for_faces(3)
    wide.click(".wall li:first-child a")
    wide.wait(lambda: opened(wide))
    # The page's own listener comes first: the dialog is closed right after the next face was asked for.
    wide.run(
        "addEventListener('hashchange', () => document.getElementById('close').click(), { once: true });"
        "document.getElementById('next').click()"
    )
    wide.wait(lambda: wide.run("return !location.hash"), 30)
    assert not wide.run("return document.getElementById('detail').open")


def test_a_face_opens_right_after_another_one_was_closed(wide: Browser, serve: Serve, state: ServiceState) -> None:
    wide.open(serve().url)
    wide.wait_for_faces(3)
    wide.click(".wall li:first-child a")
    wide.wait(lambda: opened(wide))
    first = wide.run("return location.hash")
    wide.run("document.getElementById('close').click(); document.querySelector('.wall li:nth-child(2) a').click()")
    wide.wait(lambda: opened(wide) and wide.run("return location.hash") != first)


def test_faces_do_not_move_under_the_hand(wide: Browser, serve: Serve, state: ServiceState) -> None:
    wide.open(serve().url)
    wide.wait_for_faces(3)
    wide.run("document.querySelector('.tile').focus()")
    before = wide.run("return document.querySelector('.wall li').dataset.key")
    state.show(replace(newest(state), key="hall/1/8/1", track_key="hall/1/8", id="hall/1/8/final/1/0"))
    wide.wait(lambda: wide.text("#newer") == "1 newer face")
    assert wide.run("return document.querySelector('.wall li').dataset.key") == before
    wide.click("#newer")
    wide.wait_for_faces(4)
    assert wide.run("return document.querySelector('.wall li').dataset.key") == "hall/1/8/1"


def test_a_stream_filters_the_wall_and_its_state_is_live(wide: Browser, serve: Serve, state: ServiceState) -> None:
    wide.open(serve().url)
    wide.wait_for_faces(3)
    wide.click(".streams li:nth-child(2) button")
    assert wide.count(".tile") == 1 and wide.text(".tile .where span") == "hall"
    wide.click(".streams li:nth-child(2) button")
    assert wide.count(".tile") == 3
    state.update_stream("hall", state=StreamState.STALLED)
    wide.wait(lambda: "Stalled" in wide.text(".streams li:nth-child(2)"))
    state.update_stream("hall", state=StreamState.RUNNING, fps=3.14, tracks_open=2)
    wide.wait(lambda: "3.1 fps" in wide.text(".streams li:nth-child(2)"))
    wide.wait(lambda: "2 in view · 640 × 480" in wide.text(".streams li:nth-child(2)"))
    state.remove_stream("dock")
    wide.wait(lambda: wide.count(".stream") == 2)


def test_names_and_errors_are_text_and_never_markup(wide: Browser, serve: Serve, state: ServiceState) -> None:
    nasty = "<img src=x onerror=alert(1)>"
    state.add_stream(nasty, nasty, state=StreamState.WAITING, error=nasty)
    state.show(replace(
        newest(state), key=f"{nasty}/0/1/1", track_key=f"{nasty}/0/1", id=f"{nasty}/0/1/final/1/0", stream=nasty
    ))
    state.note(config_error=nasty)
    wide.open(serve().url)
    wide.wait_for_faces(4)
    assert nasty in wide.text("#streams") and nasty in wide.text("#streams-note")
    wide.click(".tile")
    wide.wait(lambda: opened(wide))
    assert wide.text("#detail-title") == nasty
    assert wide.count("img[onerror]") == 0


def test_it_comes_back_by_itself_when_the_service_does(wide: Browser, state: ServiceState) -> None:
    from streamgate.service.http import serving

    with serving(state, "127.0.0.1:0", "") as url:
        wide.open(url)
        wide.wait_for_faces(3)
    wide.wait(lambda: "lost" in wide.text("#link"))
    state.show(replace(newest(state), key="hall/1/7/1", track_key="hall/1/7", id="hall/1/7/final/1/0"))
    with serving(state, url.removeprefix("http://"), ""):
        wide.wait_for_faces(4)
        assert wide.text("#link") == "Live"
    wide.driver.get_log("browser")  # refused connections were the point here


def test_an_empty_wall_says_what_will_come(wide: Browser, serve: Serve) -> None:
    from streamgate.service.http import serving

    with serving(ServiceState(), "127.0.0.1:0", "") as url:
        wide.open(url)
        wide.wait(lambda: "No faces yet" in wide.text("main"))
        assert "No stream" in wide.text("main")


def test_logging_in_and_out(wide: Browser, serve: Serve) -> None:
    wide.open(serve(token=TOKEN).url)
    assert wide.driver.current_url.endswith("/login")
    wide.run("document.getElementById('token').value = 'wrong'")
    wide.click("button")
    wide.wait(lambda: "token is wrong" in wide.text("#problem"))
    wide.wait(lambda: any("401" in one for one in wide.complaints()))  # the console notes it, maybe later
    wide.press(*TOKEN, "ENTER")
    wide.wait_for_faces(3)
    cookies = {cookie["name"]: cookie for cookie in wide.driver.get_cookies()}
    assert cookies["streamgate_session"]["httpOnly"] and cookies["streamgate_session"]["sameSite"] == "Strict"
    assert wide.run("return document.cookie") == ""
    assert TOKEN not in wide.run("return document.documentElement.outerHTML + JSON.stringify({...localStorage})")
    assert wide.complaints() == []
    wide.click("#logout button")
    wide.wait(lambda: wide.driver.current_url.endswith("/login"))
    wide.open(wide.driver.current_url.replace("/login", "/"))
    assert wide.driver.current_url.endswith("/login")


@pytest.mark.parametrize("screen", ["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_can_be_read(serve: Serve, screen: str, scheme: str) -> None:
    url = serve().url
    with chromium(screen, scheme) as browser:
        browser.open(url)
        browser.wait_for_faces(3)
        assert browser.run(NO_SIDEWAYS_SCROLL)
        assert browser.low_contrast() == []
        browser.click(".tile")
        browser.wait(lambda: opened(browser))
        assert browser.run(FITS)
        assert browser.low_contrast() == []
        assert browser.complaints() == []


def test_the_page_asks_nobody_else(wide: Browser, serve: Serve) -> None:
    url = serve().url
    wide.open(url)
    wide.wait_for_faces(3)
    wide.click(".tile")
    wide.wait(lambda: opened(wide))
    asked = wide.run("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert len(asked) > 10 and all(name.startswith(f"{url}/") for name in asked)


def test_nothing_moves_for_those_who_prefer_that(wide: Browser, serve: Serve) -> None:
    wide.open(serve().url)
    wide.wait_for_faces(3)
    durations = wide.run(
        "return [...document.querySelectorAll('*')].flatMap((one) => [getComputedStyle(one).animationDuration, "
        "getComputedStyle(one).transitionDuration]).map(parseFloat)"
    )
    assert max(durations) < 0.01
