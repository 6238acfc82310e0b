"""Checks every request (Host, origin, token) and adds security headers to every response."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from streamgate.service.auth import SESSION_COOKIE, Access, bearer_of, host_allowed

_OPEN_PATHS = frozenset({"/healthz", "/readyz", "/login", "/favicon.ico"})
_OPEN_FOLDER = "/static/"
"""Paths that need no token: probes, the login page, and the package's own style sheets and scripts, which contain no
data."""

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With no-referrer, browsers would also hide the origin of our own login form.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_HEADER_LINES = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


def guarded(
    app: Any, *, access: Access | None, loopback: bool, fault: Callable[[str], None]
) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """Wrap the ASGI application `app` in the checks of this module.

    Args:
        app: the application.
        access: checks the token; None for no authentication (on loopback only).
        loopback: accept only Host headers that name this machine.
        fault: called with one line when a request fails with an internal error.
    """

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message.get("headers", []), *_HEADER_LINES]}
            await send(message)

        refusal = _refusal(scope, access, loopback)
        if refusal is not None:
            await _answer(send_guarded, *refusal)
            return
        try:
            await app(scope, receive, send_guarded)
        except Exception as error:
            # Only one line is logged, because a traceback does not help the operator of the service.
            fault(f"a request failed ({type(error).__name__}): {scope['method']} {scope['path']}")
            if not started:
                reason = "the request failed because of an internal error; the service is still running"
                await _answer(send_guarded, 500, reason, {})

    return application


def _refusal(scope: Any, access: Access | None, loopback: bool) -> tuple[int, str, dict[str, str]] | None:
    """Status, reason and headers of the response to a rejected request; None when the request is allowed."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    path = scope["path"]
    host = headers.get("host", "")
    if loopback and not host_allowed(host):
        return 421, "this server accepts only localhost in the Host header; a proxy must send `Host: localhost`", {}
    if _from_another_site(headers, host, reading=scope["method"] in ("GET", "HEAD")):
        return 403, "requests from another site are refused", {}
    if access is None or path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER):
        return None
    if access.session_fits(_session_of(headers)):
        return None
    bearer = bearer_of(headers)
    if bearer is not None:
        # The token is checked before the client's failures, so guesses from the same address do not lock out a client
        # with the right token.
        if access.token_fits(bearer):
            return None
        wait = access.note_failure(client_of(scope))
        if wait > 0:
            return 429, "too many wrong tokens; try again later", {"retry-after": str(int(wait) + 1)}
    if path == "/" and bearer is None:
        return 303, "", {"location": "/login"}
    return 401, "log in, or send `Authorization: Bearer TOKEN`", {"www-authenticate": "Bearer"}


def client_of(scope: Any) -> str:
    """The address of the client that sent a request."""
    return scope["client"][0] if scope.get("client") else "unknown"


def _session_of(headers: dict[str, str]) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(SESSION_COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""


def _from_another_site(headers: dict[str, str], host: str, *, reading: bool) -> bool:
    """Whether a page of another site made this request, according to the browser; following a link from another site is
    allowed."""
    site = headers.get("sec-fetch-site")
    if site == "same-origin":
        return False  # even if a proxy changed the Host, which then differs from the Origin
    if site in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
        return True
    origin = headers.get("origin")
    if reading or origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != host.strip().lower()
    except ValueError:
        return True  # an invalid Origin cannot be this server's


async def _answer(send: Any, status: int, reason: str, headers: dict[str, str]) -> None:
    body = json.dumps({"error": reason}).encode() if reason else b""
    lines = {"content-type": "application/json", "content-length": str(len(body)), "cache-control": "no-store"}
    pairs = [(name.encode(), value.encode()) for name, value in {**lines, **headers}.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
