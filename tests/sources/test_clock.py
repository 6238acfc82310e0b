from __future__ import annotations

import pytest

from streamgate.sources.clock import Clock, FrameTime, StorageOrderClock


def run(times: list[tuple[float | None, float | None]], duration: float = 0.04) -> list[FrameTime]:
    clock = Clock(duration)
    ticks = []
    for pts, dts in times:
        clock.packet(pts, dts)
        ticks.append(clock.frame(pts, dts, duration))
    return ticks


def test_times_are_taken_as_they_are() -> None:
    ticks = run([(0.0, 0.0), (0.033, 0.02), (0.2, 0.04)])
    assert [tick.pts_seconds for tick in ticks] == [0.0, 0.033, 0.2]
    assert [tick.frame_index for tick in ticks] == [0, 1, 2]
    assert not any(tick.estimated for tick in ticks)


def test_missing_pts_falls_back_to_dts_then_to_duration() -> None:
    ticks = run([(None, 0.5), (None, None), (None, None)])
    assert [round(tick.pts_seconds, 6) for tick in ticks] == [0.5, 0.54, 0.58]
    assert [tick.estimated for tick in ticks] == [False, True, True]
    assert [tick.frame_index for tick in ticks] == [0, 1, 2]


def test_backward_time_becomes_previous_plus_duration() -> None:
    ticks = run([(0.0, None), (0.08, None), (0.04, None), (0.12, None), (0.12, None), (0.4, None)])
    times = [round(tick.pts_seconds, 6) for tick in ticks]
    assert times == [0.0, 0.08, 0.12, 0.16, 0.2, 0.4]
    assert [tick.estimated for tick in ticks] == [False, False, True, True, True, False]


def test_unknown_duration_uses_the_rate() -> None:
    clock = Clock(0.05)
    first, second = clock.frame(1.0, None, None), clock.frame(None, None, None)
    assert (first.duration_seconds, round(second.pts_seconds, 6)) == (0.0, 1.05)
    assert clock.estimated == 1


def test_rank_counts_packets_that_gave_no_frame() -> None:
    clock = Clock(0.04)
    for time in (0.0, 0.12, 0.04, 0.08, 0.16):  # decode order
        clock.packet(time, None)
    assert clock.frame(0.0, None, 0.04).frame_index == 0
    assert clock.frame(0.12, None, 0.04).frame_index == 3  # 0.04 and 0.08 were lost
    assert clock.frame(0.16, None, 0.04).frame_index == 4


def test_guessed_times_count_frames_and_known_losses() -> None:
    clock = Clock(0.04, trusted=False)
    for time in (0.04, 0.12, 0.08, 0.16):
        clock.packet(time, None)
    ticks = [clock.frame(time, None, 0.04) for time in (0.04, 0.16, 0.12)]
    clock.packet_lost()
    ticks.append(clock.frame(0.3, None, 0.04))
    assert [tick.frame_index for tick in ticks] == [0, 1, 2, 4]


def test_memory_is_bounded_when_no_frame_ever_comes() -> None:
    clock = Clock(0.04)
    for index in range(20_000):
        clock.packet(index * 0.04, None)
    assert len(clock._pending) <= 4096


def slots(clock: StorageOrderClock, sent: list[float | None]) -> list[tuple[float, int]]:
    """Times and ranks of what comes out; `sent` are packets by what each brings out: nothing, or a dts."""
    ticks = []
    for slot, brings in enumerate(sent):
        clock.packet(None, slot * 0.04)
        if brings is not None:
            ticks.append(clock.frame(None, brings, 0.04))
    return [(round(tick.pts_seconds, 6), tick.frame_index) for tick in ticks]


def test_the_earliest_frame_takes_the_earliest_place() -> None:
    clock = StorageOrderClock(0.04)
    assert slots(clock, [None, None, 0.08, 0.12, 0.16]) == [(0.0, 0), (0.04, 1), (0.08, 2)]
    assert [clock.frame(0.99, None, 0.04).pts_seconds for _ in range(2)] == pytest.approx([0.12, 0.16])
    assert clock.estimated == 0
    # Nothing is left: a frame more than packets.
    assert clock.frame(None, None, 0.04).pts_seconds == pytest.approx(0.2) and clock.estimated == 1


def test_a_packet_that_gives_nothing_leaves_its_place_empty() -> None:
    clock = StorageOrderClock(0.04)
    clock.packet(None, 0.0)
    clock.packet_lost()
    assert slots(StorageOrderClock(0.04, skips=True), [0.0, None, None, 0.12]) == [(0.0, 0), (0.12, 3)]
    clock.packet(None, 0.04)
    tick = clock.frame(None, 0.04, 0.04)
    assert (tick.pts_seconds, tick.frame_index) == (0.04, 1)


def test_a_decoder_that_begins_to_hold_frames_back_skips_no_place() -> None:
    assert slots(StorageOrderClock(0.04), [0.0, None, 0.08, 0.12]) == [(0.0, 0), (0.04, 1), (0.08, 2)]
