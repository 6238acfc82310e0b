"""`/api/events`: the events of the service, sent to any number of browsers as server-sent events."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers

from streamgate.service.hub import EventHub, HubEvent
from streamgate.service.state import ServiceState
from streamgate.store.jsonlines import dumps

MAX_LISTENERS = 512
"""Maximum number of browsers that listen at once, if the limit of open files allows it; others get an error response
and retry later."""

_SPARE = 2
"""Number of connections per client that cannot be used for event streams. They are left for error responses to a client
that already has the maximum number of event streams."""
_WAITING_EVENTS = 256
_STREAMS_EVERY_S = 3.0
_WRITE_LIMIT_S = 30.0
_LIFETIME_S = 3600.0
_GREETING = b"retry: 2000\n: streamgate\n\n"


def streams_record(state: ServiceState, login: bool) -> dict[str, Any]:
    """The body of `/api/streams`: the service as a whole, its streams, and whether a login is required."""
    return {
        "overview": state.overview().summary(),
        "streams": [one.summary() for one in state.streams()],
        "login": login,
    }


class EventStreams:
    """An ASGI application that serves the event streams of one server; used only in its event loop.

    Args:
        login: whether a login is required.
        most: maximum number of connections per address.
    """

    def __init__(self, state: ServiceState, login: bool, most: int) -> None:
        self._state = state
        self._most = min(MAX_LISTENERS, most - _SPARE)
        self._login = login
        self._streams_text = b""
        self._streams_made_at = 0.0
        self._hub: EventHub = state.hub
        self._flags: set[asyncio.Event] = set()
        self._stopping = False

    def stop(self) -> None:
        """End all streams; must be called in the event loop."""
        self._stopping = True
        for flag in self._flags:
            flag.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request with an event stream, or with an error if there are too many listeners."""
        if len(self._flags) >= self._most:
            headers = {"retry-after": "10", "cache-control": "no-store"}
            await JSONResponse({"error": "too many listeners"}, 503, headers)(scope, receive, send)
            return
        last = Headers(scope=scope).get("last-event-id", "")
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 16 else None
        await self._serve(after, receive, send)

    async def _serve(self, after: int | None, receive: Any, send: Any) -> None:
        """Send events until the browser disconnects or stops reading for 30 s, an hour has passed, or the server stops.

        In addition, a `streams` event with the content of `/api/streams` is sent every three seconds, because creating
        one text for all browsers costs less than answering requests from each of them.

        A slow browser loses its oldest events once 256 are waiting, and gets a `gap` event with the number of lost
        events (null if the server was restarted before the browser reconnected). Because of the limit of an hour, no
        browser can listen for more than an hour after its session has expired. Browsers reconnect automatically.

        Args:
            after: number of the last event that this browser has received; None for a new browser.
            receive, send: the ASGI channels.
        """
        loop = asyncio.get_running_loop()
        flag = asyncio.Event()
        self._flags.add(flag)

        awake = False

        def wake() -> None:
            # The event loop is woken only once for all events that are published before the next `take`, because
            # wake-ups are expensive if there are 200 listeners.
            nonlocal awake
            if not awake:
                awake = True
                loop.call_soon_threadsafe(flag.set)

        gone = asyncio.create_task(_until_gone(receive, flag))
        ends_at = loop.time() + _LIFETIME_S
        due = loop.time()
        try:
            with self._hub.subscribe(limit=_WAITING_EVENTS, after=after, wake=wake) as take:
                headers = [
                    (b"content-type", b"text/event-stream; charset=utf-8"),
                    (b"cache-control", b"no-store"),
                    (b"x-accel-buffering", b"no"),
                ]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                body = _GREETING
                last = after
                while not self._stopping and not gone.done() and loop.time() < ends_at:
                    awake = False
                    waiting = take()
                    body += b"".join(_with_gap(waiting, last))
                    last = waiting[-1][0] if waiting else last
                    if loop.time() >= due:
                        body += self._streams_now(loop.time())
                        due = loop.time() + _STREAMS_EVERY_S
                    if body:
                        message = {"type": "http.response.body", "body": body, "more_body": True}
                        await asyncio.wait_for(send(message), _WRITE_LIMIT_S)
                        body = b""
                    with suppress(TimeoutError):
                        await asyncio.wait_for(flag.wait(), max(0.0, due - loop.time()))
                    flag.clear()
                await asyncio.wait_for(send({"type": "http.response.body", "body": b""}), _WRITE_LIMIT_S)
        except TimeoutError:
            pass  # the browser no longer reads; the server closes the connection
        finally:
            self._flags.discard(flag)
            gone.cancel()

    def _streams_now(self, now: float) -> bytes:
        """The `streams` event; its content is at most one second old."""
        if now - self._streams_made_at > 1.0:
            self._streams_made_at = now
            self._streams_text = f"event: streams\ndata: {dumps(streams_record(self._state, self._login))}\n\n".encode()
        return self._streams_text


async def _until_gone(receive: Any, flag: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    flag.set()


def _with_gap(events: list[HubEvent], last: int | None) -> list[bytes]:
    lines = []
    for number, kind, data in events:
        if last is not None and number != last + 1:
            missed = number - last - 1 if number > last else None
            lines.append(f'event: gap\ndata: {{"missed":{"null" if missed is None else missed}}}\n\n'.encode())
        lines.append(f"id: {number}\nevent: {kind}\ndata: {data}\n\n".encode())
        last = number
    return lines
