"""Which pictures of a main stream are decoded for a face, and which one it is taken from."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from av import VideoFrame

from streamgate.config import load_config
from streamgate.service import main_lookup
from streamgate.service.main_lookup import Fallback, Lookup, look_up
from streamgate.service.main_stream import MainStream
from streamgate.service.stream_alignment import LOOK_S, ArrivalClock, Look, Match
from streamgate.sources.packet_ring import PacketRing
from streamgate.sources.picture import PictureMaker
from streamgate.sources.rtp import UnitReader
from streamgate.sources.rtsp_client import Media
from support.media import plain_frames, write_clip
from support.rtsp_server import Packets, _interleaved, load
from support.sink_values import Make

LIVE = load_config("live").live
SPACING, GROUP, COUNT = 0.04, 25, 75
LATER = 5.0
"""The substream's times minus those of the main stream, seconds."""


@pytest.fixture(params=["0", "2"], ids=["P", "B"])
def main(request: pytest.FixtureRequest, tmp_path: Path) -> MainStream:
    """Three seconds of a main stream, without or with frames that no others refer to; it is aligned."""
    options = {"g": str(GROUP), "bf": request.param, "sc_threshold": "0", "x264-params": "scenecut=0:open-gop=0"}
    clip = load(str(write_clip(tmp_path / "clip.mp4", plain_frames(COUNT, (320, 240)), options=options)))
    main = MainStream("gate", "rtsp://h/main", LIVE, lambda line: None)
    ring = PacketRing(Media("h264", 90_000, "", b""), 0, LIVE.main_ring_s, LIVE.main_ring_mb << 20)
    clock, sub = ArrivalClock(), ArrivalClock()
    packets, first = Packets(), clip.units[0][0]
    ring.add(UnitReader("h264").feed(b"".join(
        _interleaved(packet) for shown, nals in clip.units for packet in packets.unit(shown - first + 1.0, nals)
    )))  # fmt: skip
    start = (ring.newest or 0.0) - (COUNT - 1) * SPACING
    ring.spacing = SPACING
    now = time.monotonic()
    clock.note(start, now)
    sub.note(start + LATER, now)
    main.alignment.connected(main=clock, sub=sub)
    for _ in range(3):
        main.alignment.learn(Match(0.0, 1.0), SPACING)
    main.ring = ring
    main.start_s = start  # type: ignore[attr-defined]
    return main


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Times of the packets that were prepared for the decoder."""
    times: list[int] = []
    whole = main_lookup.access_unit

    def counted(unit: Any, *more: Any) -> bytes:
        times.append(unit.time)
        return whole(unit, *more)

    monkeypatch.setattr(main_lookup, "access_unit", counted)

    def taken(lookup: Lookup, maker: PictureMaker, frame: VideoFrame) -> VideoFrame:
        return frame

    # The networks would see no face in these pictures.
    monkeypatch.setattr(main_lookup, "_scored", taken)
    return times


def asked(main: MainStream, number: float) -> Lookup:
    start: float = main.start_s  # type: ignore[attr-defined]
    shot = replace(Make().shot("gate", 1), pts_seconds=start + number * SPACING + LATER)
    scorer: Any = None
    return Lookup(main, scorer, shot, {}, None, True, time.monotonic() + 60, lambda shot: None)


@pytest.mark.parametrize("number", [25, 26, 37, 49, 50])
def test_only_what_leads_up_to_the_picture_is_decoded(main: MainStream, decoded: list[int], number: int):
    frame: Any = look_up(asked(main, number + 0.2))
    start: float = main.start_s  # type: ignore[attr-defined]
    assert frame.pts / 90_000 == pytest.approx(start + number * SPACING, abs=SPACING / 4)
    # With frames out of order a decoder needs the following ones as well.
    assert len(decoded) <= number % GROUP + 1 + 4


def test_once_it_is_known_the_alignment_is_checked_now_and_then(
    main: MainStream, decoded: list[int], monkeypatch: pytest.MonkeyPatch
):
    lookup = asked(main, 30)
    begin = lookup.shot.pts_seconds - 1.0
    main.looks.extend(Look(begin + n * LOOK_S, main_lookup.small_picture(_grey(), 1)) for n in range(33))
    compared: list[int] = []
    monkeypatch.setattr(main_lookup, "match", lambda ours, theirs, *more: compared.append(len(ours)))
    assert look_up(lookup) is not None and not compared
    main.alignment.suspect()
    # Just after a key frame more is decoded, so that there is enough to compare.
    assert look_up(lookup) is not None and compared == [main_lookup._LEAST_COMPARED]


def test_a_picture_that_is_none_of_those_kept_is_no_other(main: MainStream, decoded: list[int]):
    for number, reason in ((-10, "dropped"), (COUNT + 10, "late")):
        with pytest.raises(Fallback, match=reason):
            look_up(asked(main, number))


def _grey() -> Any:
    return PictureMaker("h264", None).picture(VideoFrame(320, 240, "yuv420p"))
