"""The newest frames win, and who asks when a frame came gets an answer."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime, timedelta

import numpy as np

from streamgate.frames import Frame
from streamgate.service.frame_queue import FrameQueue
from streamgate.service.stream_session import new_epoch
from streamgate.sources import picture_of_rgb

START = datetime(2026, 1, 1, tzinfo=UTC)


def frame(pts: float) -> tuple[Frame, float]:
    picture = picture_of_rgb(np.zeros((8, 8, 3), np.uint8))
    return Frame(picture, pts, captured_at=START + timedelta(seconds=pts)), 100.0 + pts


def test_a_full_queue_drops_its_oldest_and_says_so():
    queue = FrameQueue(3, 60)
    assert [queue.put(*frame(pts)) for pts in range(5)] == [0, 0, 0, 1, 1]
    queue.close()
    assert [one.pts_seconds for one in queue.frames()] == [2, 3, 4]
    assert queue.taken == 3


def test_closing_wakes_a_waiting_taker_and_refuses_what_comes_later():
    queue, taken = FrameQueue(3, 60), []
    thread = threading.Thread(target=lambda: taken.extend(queue.frames()))
    thread.start()
    queue.put(*frame(0.0))
    time.sleep(0.05)
    queue.close()
    first = queue.closed_at
    thread.join(10)
    assert not thread.is_alive() and len(taken) == 1
    assert queue.put(*frame(1.0)) == 1
    queue.close()
    assert queue.closed_at is first


def test_arrivals_answer_by_time_stamp_and_forget_what_is_old():
    queue = FrameQueue(2000, 10.0)
    for index in range(2000):
        queue.put(frame(index / 25)[0], float(index))
    queue.close()
    assert len(list(queue.frames())) == 2000
    assert queue.arrival_at(79.0).monotonic == 1975 and queue.arrival_after(79.0).monotonic == 1976
    assert queue.arrival_at(79.0).wall == START + timedelta(seconds=79)
    assert queue.arrival_at(79.01).monotonic == queue.arrival_after(79.01).monotonic == 1976
    assert queue.arrival_at(80.0) is None
    assert queue.arrival_at(0.0).monotonic > 1000, "it grows for ever"


def test_epochs_are_version_7_and_sort_by_time():
    first = new_epoch()
    time.sleep(0.002)
    epochs = [first, *(new_epoch() for _ in range(100))]
    pattern = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert all(re.fullmatch(pattern, epoch) for epoch in epochs) and len(set(epochs)) == 101
    assert first < min(epochs[1:])
    milliseconds = int(first.replace("-", "")[:12], 16)
    assert abs(milliseconds / 1000 - time.time()) < 60
