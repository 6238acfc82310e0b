"""`POST /api/score`: takes a picture and returns the scored faces in it, in the format of `streamgate score`."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from streamgate.errors import DeviceError, SourceError, StreamgateError
from streamgate.service.state import Scorer, ServiceState
from streamgate.store.jsonlines import dumps
from streamgate.store.records import score_record

MAX_BYTES = 64 << 20
"""Maximum body size: enough for an 8-bit picture of 48 megapixels, losslessly compressed."""
MAX_WAITING = 4
"""Maximum number of requests that are held at once. The number is small because streams have priority and each body
needs memory."""
_HEADERS = {"cache-control": "no-store"}


def score_endpoint(state: ServiceState) -> Callable[[Request], Awaitable[Response]]:
    """A function that takes a request with a picture file as body and responds with the picture's faces or an error.

    Pictures are scored one at a time. When the queue is full, the response to further requests is an error with a
    Retry-After header.
    """
    one, waiting = threading.Lock(), 0

    async def answer(request: Request) -> Response:
        nonlocal waiting
        scorer = state.scorer
        if scorer is None:
            return _refused("the networks are not loaded yet; try again later", 503, retry=True)
        aligned = request.query_params.get("aligned")
        if aligned not in (None, "arcface", "ffhq"):
            return _refused("the query parameter `aligned` must be `arcface` or `ffhq`", 400)
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            return _refused("send the picture itself as the body (curl --data-binary @face.jpg), not a form", 415)
        if waiting >= MAX_WAITING:
            return _refused("too many pictures are waiting to be scored; try again later", 503, retry=True)
        waiting += 1
        try:
            body = await _body(request)
            if body is None:
                return _refused(f"the picture is larger than {MAX_BYTES >> 20} MiB; send a smaller file", 413)
            return await run_in_threadpool(scored, scorer, body, aligned)
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            waiting -= 1

    def scored(scorer: Scorer, body: bytes, aligned: str | None) -> Response:
        with one:
            try:
                faces = scorer(body, aligned)
            except DeviceError as error:
                return _refused(str(error), 503, retry=True)
            except StreamgateError as error:
                return _refused(f"the body {error}" if isinstance(error, SourceError) else str(error), 422)
        record = score_record("", faces, embedding=False)
        record.pop("image", None)
        return Response(dumps(record).encode(), headers=dict(_HEADERS), media_type="application/json")

    return answer


def _refused(words: str, status: int, *, retry: bool = False) -> Response:
    headers: dict[str, Any] = {**_HEADERS, **({"retry-after": "2"} if retry else {})}
    return Response(dumps({"error": words}).encode(), status, headers=headers, media_type="application/json")


async def _body(request: Request) -> bytes | None:
    """The whole body; None when it is larger than `MAX_BYTES`."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:12]) > MAX_BYTES:
        return None
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            return None
    return bytes(body)
