"""Two hundred browsers at once, a slow one among them."""

from __future__ import annotations

import re
import selectors
import socket
import threading
import time
from collections.abc import Callable

from streamgate.service.state import ServiceState
from support.client import Client, Listener

LISTENERS = 200
BURST = 200
"""Fewer than the 256 events that may wait for a listener, so that one who reads loses nothing."""
MOST_BURSTS = 40
"""Of about 200 KB each, until the slow one has lost something: the kernel holds between little and 4 MB for it."""
_NUMBER = re.compile(rb"^id: (\d+)$", re.MULTILINE)


class Readers:
    """Sockets that read as fast as they can, in one thread."""

    def __init__(self, port: int, count: int) -> None:
        self._selector = selectors.DefaultSelector()
        self.texts: list[bytearray] = []
        self.sockets: list[socket.socket] = []
        for index in range(count):
            connection = socket.create_connection(("127.0.0.1", port), 20)
            connection.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, index)
            self.sockets.append(connection)
            self.texts.append(bytearray())
        self.newest = [0] * count
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def wait_for(self, number: int) -> None:
        for _ in range(6000):
            if min(self.newest) >= number:
                return
            time.sleep(0.01)
        raise AssertionError(f"somebody waits for event {number}: {sorted(self.newest)[:5]}")

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for connection in self.sockets:
            connection.close()

    def _read(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.1):
                text = self.texts[key.data]
                text += key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
                numbers = _NUMBER.findall(text, max(0, len(text) - 4000))
                if numbers:
                    self.newest[key.data] = int(numbers[-1])


def test_two_hundred_browsers_get_every_event_and_a_slow_one_is_told_what_it_lost(
    serve: Callable[..., Client], state: ServiceState
) -> None:
    client = serve()
    readers = Readers(client.port, LISTENERS - 1)
    slow = Listener(client.port, {}, receive_buffer=4096)
    try:
        while state.hub.listeners < LISTENERS:
            time.sleep(0.01)
        state.hub.publish("config", {"error": "first"})
        first = state.hub._number
        for _ in range(MOST_BURSTS):
            # A listener whose queue is full loses something with the next burst.
            loses = any(len(waiting) == waiting.maxlen for waiting, _ in state.hub._queues.values())
            for _ in range(BURST):
                state.hub.publish("config", {"error": "x" * 1000})
            readers.wait_for(state.hub._number)
            assert client.get("/api/streams").status == 200
            if loses:
                break
        last = state.hub._number
        for text in readers.texts:
            assert [int(number) for number in _NUMBER.findall(text)] == list(range(first, last + 1))
            assert b"event: gap" not in text

        numbers: list[int] = []
        missed = 0
        for event in slow.events():
            if event["event"] == "gap":
                missed += int(event["data"].removeprefix('{"missed":').removesuffix("}"))
            else:
                numbers.append(int(event["id"]))
            if numbers and numbers[-1] == last:
                break
        assert missed > 0, "the slow one was not slow enough for this test to show anything"
        assert numbers == sorted(numbers) and numbers[0] == first
        assert len(numbers) + missed == last - first + 1
    finally:
        readers.close()
        slow.close()


def test_beyond_the_limit_of_listeners_one_more_is_asked_to_come_back_later(
    serve: Callable[..., Client], state: ServiceState
) -> None:
    client = serve()
    readers = Readers(client.port, 512)
    try:
        while state.hub.listeners < 512:
            time.sleep(0.01)
        answer = client.get("/api/events")
        assert answer.status == 503 and answer.headers["retry-after"]
        assert client.get("/api/faces").status == 200
    finally:
        readers.close()
