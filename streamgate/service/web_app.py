"""The routes of the web application, which reads only a ServiceState and the package's own files."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from streamgate.measures import MeasureSpec
from streamgate.measures.vocabulary import vocabulary_module
from streamgate.service.auth import SESSION_COOKIE, SESSION_SECONDS, Access
from streamgate.service.events import EventStreams, streams_record
from streamgate.service.guard import client_of
from streamgate.service.metrics import exposition
from streamgate.service.scoring import score_endpoint
from streamgate.service.state import LATEST_FACES, LatestFace, ServiceState
from streamgate.store.jsonlines import dumps
from streamgate.web import TYPES, web_files

_FORM_LIMIT = 4096
_MAX_FIELDS = 10
_PRIVATE = {"cache-control": "no-store"}
"""Keeps pictures of people out of the browser's cache on disk."""
_CHECKED = {"cache-control": "no-cache"}
"""Makes the browser revalidate its copy, because an update of streamgate may have changed the file."""


def build_application(state: ServiceState, access: Access | None, events: EventStreams) -> FastAPI:
    """The application without its guard (see guard.py), which checks every request first."""
    app = FastAPI(title="streamgate", docs_url=None, redoc_url=None, openapi_url=None)
    scored = score_endpoint(state)
    assets = _assets(state.measures)
    tags = {name: f'"{hashlib.sha256(body).hexdigest()[:20]}"' for name, body in assets.items()}

    @app.api_route("/healthz", methods=["GET", "HEAD"])
    def healthz() -> Response:
        overview = state.overview()
        return JSONResponse({"healthy": overview.healthy}, 200 if overview.healthy else 503, _PRIVATE)

    @app.api_route("/readyz", methods=["GET", "HEAD"])
    def readyz() -> Response:
        overview = state.overview()
        facts = {
            "ready": overview.ready,
            "models_loaded": overview.models_loaded,
            "streams_running": overview.streams_running,
            "streams": overview.streams,
            "stopping": overview.stopping,
        }
        return JSONResponse(facts, 200 if overview.ready else 503, _PRIVATE)

    @app.get("/metrics")
    def metrics(request: Request) -> Response:
        body, content_type = exposition(state.registry, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, **_PRIVATE})

    @app.get("/api/streams")
    def streams() -> Response:
        return _record(streams_record(state, access is not None))

    # The name is only looked up among the configured streams; it is never used as a path.
    @app.get("/api/streams/{name}/snapshot")
    def snapshot(name: str) -> Response:
        jpeg = state.snapshot_of(name)
        if jpeg is None:
            return _record({"error": "there is no picture of this stream yet"}, 404)
        return _picture(jpeg, "image/jpeg")

    @app.post("/api/score")
    async def score(request: Request) -> Response:
        return await scored(request)

    @app.get("/api/faces")
    def faces(limit: int = Query(60, ge=1, le=LATEST_FACES), stream: str | None = None) -> Response:
        return _record({"faces": [one.summary() for one in state.faces(limit, stream)]})

    # A key contains slashes, but it is only looked up among the faces in the state and never used as a path.
    @app.get("/api/faces/{key:path}/photo")
    def photo(key: str) -> Response:
        face = state.face(key)
        return _missing() if face is None else _picture(face.jpeg, "image/jpeg")

    @app.get("/api/faces/{key:path}/heatmap")
    def heatmap(key: str) -> Response:
        face = state.face(key)
        if face is None or face.heatmap is None:
            return _missing()
        return _picture(face.heatmap, "image/png")

    @app.get("/api/faces/{key:path}")
    def face(key: str) -> Response:
        found = state.face(key)
        return _missing() if found is None else _record(_with_series(found))

    listening = Route("/api/events", events)
    listening.methods = {"GET"}  # Starlette would add HEAD, which would keep a connection open without sending events
    app.router.routes.append(listening)

    @app.api_route("/", methods=["GET", "HEAD"])
    def page() -> Response:
        return _asset_answer(assets, "index.html", {})

    @app.get("/favicon.ico")
    def icon() -> Response:
        return _asset_answer(assets, "icon.svg", {})

    @app.get("/static/{name}")
    def static(name: str, request: Request) -> Response:
        tag = tags.get(name)
        if tag is None or name.endswith(".html"):
            return JSONResponse({"error": "no such file"}, 404)
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={**_CHECKED, "etag": tag})
        return _asset_answer(assets, name, {"etag": tag})

    @app.get("/login")
    def login_page() -> Response:
        return RedirectResponse("/", 303) if access is None else _login(assets["login.html"], None, 200)

    @app.post("/login")
    async def login(request: Request) -> Response:
        if access is None:
            return RedirectResponse("/", 303)
        body = await _body(request)
        if body is None:
            return _login(assets["login.html"], "The token is too long.", 413)
        try:
            fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=_MAX_FIELDS)
        except ValueError:
            return _login(assets["login.html"], "The login request is malformed.", 400)
        if not access.token_fits(fields.get("token", [""])[0]):
            wait = access.note_failure(client_of(request.scope))
            if wait == 0:
                return _login(assets["login.html"], "The token is wrong.", 401)
            answer = _login(assets["login.html"], f"Too many attempts. Try again in {int(wait) + 1} seconds.", 429)
            answer.headers["retry-after"] = str(int(wait) + 1)
            return answer
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            SESSION_COOKIE, access.new_session(), max_age=SESSION_SECONDS, path="/",
            secure=request.url.scheme == "https", httponly=True, samesite="strict",
        )  # fmt: skip
        return answer

    @app.post("/logout")
    def logout() -> Response:
        answer = RedirectResponse("/" if access is None else "/login", 303)
        answer.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")
        return answer

    return app


def _assets(measures: Sequence[MeasureSpec]) -> dict[str, bytes]:
    """The page's files by name."""
    files = web_files("streamgate.service")
    files["index.html"] = files["index.html"].replace(b"{{dialog}}", files.pop("dialog.html"))
    files["vocabulary.js"] = vocabulary_module(measures).encode()
    return files


def _asset_answer(assets: Mapping[str, bytes], name: str, headers: Mapping[str, str]) -> Response:
    return Response(assets[name], media_type=TYPES[name[name.rindex(".") :]], headers={**_CHECKED, **headers})


def _record(content: dict[str, Any], status: int = 200) -> Response:
    """A response with a JSON object, which is serialized in the same way as records in files."""
    return Response(dumps(content).encode(), status, headers=dict(_PRIVATE), media_type="application/json")


def _picture(data: bytes, media_type: str) -> Response:
    return Response(data, media_type=media_type, headers=dict(_PRIVATE))


def _missing() -> Response:
    return _record({"error": "this face is not among the latest faces"}, 404)


def _with_series(face: LatestFace) -> dict[str, Any]:
    series = [
        {"pts_seconds": round(point.pts_seconds, 3), "quality": _rounded(point.quality), "passed": point.passed}
        for point in face.series
    ]
    return {**face.summary(), "series": series}


def _rounded(quality: float | None) -> float | None:
    return None if quality is None else round(quality, 2)


def _login(body: bytes, problem: str | None, status: int) -> Response:
    if problem is not None:
        body = body.replace(b"<!-- problem -->", html.escape(problem).encode())
        body = body.replace(b"<!-- invalid -->", b' aria-invalid="true" aria-describedby="problem"')
    body = body.replace(b"<!-- problem -->", b"").replace(b"<!-- invalid -->", b"")
    return Response(body, status, headers=dict(_PRIVATE), media_type="text/html")


async def _body(request: Request) -> bytes | None:
    """The body of a form; None if it is longer than `_FORM_LIMIT`."""
    body = b""
    with suppress(ClientDisconnect):  # the client is gone, so the response does not matter
        async for part in request.stream():
            body += part
            if len(body) > _FORM_LIMIT:
                return None
    return body
