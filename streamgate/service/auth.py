"""Access control: token, sessions, throttling of guesses, and the Host names that a loopback server accepts.

This module depends on no web framework.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from streamgate.errors import UsageError

TOKEN_VARIABLE = "STREAMGATE_TOKEN"
SESSION_COOKIE = "streamgate_session"
SESSION_SECONDS = 7 * 24 * 3600

_HOST = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[a-z0-9.-]+))(?::[0-9]{1,5})?")
SHORT_TOKEN = 16
"""Tokens with fewer characters than this can be guessed."""
_SALT = b"streamgate session key, version 1"
_CLIENTS_REMEMBERED = 1024


class Access:
    """Checks the token of a service, limits guesses, and creates and checks session values. Thread-safe.

    A session value is `expires.nonce.signature`: it can be verified without stored state, survives a restart of
    the service, and becomes invalid when the token changes. The signing key is derived from the token with scrypt, so
    that a weak token cannot be guessed quickly from a stolen cookie. Every comparison takes constant time.

    A client may send `burst` wrong tokens at once, and then one every `refill_seconds`; the right token is always
    accepted. A client is an IPv4 address or an IPv6 /64 network, because a household usually has a whole /64. In
    addition, all clients together share a budget twenty times as large as that of one client, which limits guessing
    from many addresses at once. At most 1024 clients are remembered; the client whose last failure is oldest is
    forgotten first.

    Args:
        token: the secret that users and Prometheus send.
        clock: returns the Unix time in seconds; used for sessions.
        monotonic: returns a monotonic time in seconds; used to limit wrong tokens.
    """

    def __init__(
        self,
        token: str,
        clock: Callable[[], float] = time.time,
        *,
        burst: int = 5,
        refill_seconds: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not token:
            raise ValueError("the token must not be empty")
        self._clock = clock
        self._monotonic = monotonic
        self._burst = burst
        self._refill = refill_seconds
        self._mutex = threading.Lock()
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._everybody = (0.0, monotonic())
        self._digest = _digest(token)
        self._key = hashlib.scrypt(token.encode("utf-8", "surrogateescape"), salt=_SALT, n=1 << 14, r=8, p=1)

    def token_fits(self, presented: str) -> bool:
        """Whether `presented` is the token."""
        return hmac.compare_digest(_digest(presented), self._digest)

    def new_session(self) -> str:
        """A session value for the cookie, valid for SESSION_SECONDS."""
        stem = f"{int(self._clock()) + SESSION_SECONDS}.{secrets.token_hex(16)}"
        return f"{stem}.{self._sign(stem)}"

    def session_fits(self, value: str) -> bool:
        """Whether `value` is an unexpired session of this token."""
        stem, _, signature = value.rpartition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), self._sign(stem).encode()):
            return False
        expires = stem.partition(".")[0]
        return expires.isdigit() and self._clock() < int(expires)

    def wait_seconds(self, client: str) -> float:
        """Seconds that `client` has to wait before it may send another wrong token; 0 if it may do so now."""
        now = self._monotonic()
        with self._mutex:
            own, since = self._failures.get(network_of(client), (0.0, now))
            own_wait = (own - (now - since) / self._refill - self._burst + 1) * self._refill
            shared, since = self._everybody
            pace = self._refill / 20
            shared_wait = (shared - (now - since) / pace - 20 * self._burst + 1) * pace
        return max(0.0, own_wait, shared_wait)

    def note_failure(self, client: str) -> float:
        """Record a wrong token of `client`; returns by how many seconds it came too early, 0 if it was in time.

        Attempts during the wait are not counted; otherwise a client that keeps trying would be locked out forever.
        """
        wait = self.wait_seconds(client)
        if wait > 0:
            return wait
        now = self._monotonic()
        key = network_of(client)
        with self._mutex:
            count, since = self._failures.pop(key, (0.0, now))
            self._failures[key] = (max(0.0, count - (now - since) / self._refill) + 1, now)
            while len(self._failures) > _CLIENTS_REMEMBERED:
                self._failures.popitem(last=False)
            count, since = self._everybody
            self._everybody = (max(0.0, count - (now - since) / (self._refill / 20)) + 1, now)
        return 0.0

    def _sign(self, stem: str) -> str:
        return hmac.new(self._key, stem.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def bearer_of(headers: Mapping[str, str]) -> str | None:
    """The token of an `Authorization: Bearer TOKEN` header; None if there is no such header."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" and value.strip() else None


def checked_token(host: str, token: str | None) -> str | None:
    """The token to use when listening on `host`; None means no authentication and is possible only on loopback.

    Raises UsageError if `host` is not loopback and there is no token.
    """
    token = (token or "").strip() or None
    if token is None and not is_loopback(host):
        raise UsageError(
            f"--http {host}: the faces would be visible to the network; set {TOKEN_VARIABLE} "
            "(for example to the output of `openssl rand -hex 24`) or listen on 127.0.0.1"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host` (a name or an address)."""
    name = host.strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        pass
    if not name:
        return False
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)


def host_allowed(header: str) -> bool:
    """Whether a Host header names this machine's loopback; any port is allowed, because ssh -L may forward another
    port.

    Protects against DNS rebinding: a page of another site whose name was rebound to 127.0.0.1 still sends that name as
    the Host.
    """
    match = _HOST.fullmatch(header.strip().lower())
    if match is None:
        return False
    name = match["six"] or match["name"]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _digest(token: str) -> bytes:
    # Digests have equal lengths, so comparing them does not reveal the length of the token.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def network_of(client: str) -> str:
    """The client that a peer's address belongs to: the IPv4 address itself, or the /64 network of an IPv6 address."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
