"""Fetching one pinned file: resumed after a cut, checked for size and hash, and never there by half.

What has arrived lies under a hidden name beside the target until size and sha256 are right. It stays there when the
network fails, so that the next attempt, of this or of a later pull, goes on where the last one stopped.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPMessage, InvalidURL
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

from streamgate.errors import WeightsError, redact_url, scrub
from streamgate.weights.catalog import SourceFile
from streamgate.weights.files import sync_folder

CHUNK = 1 << 16
SILENCE_S = 30.0
"""No byte for so long counts as a cut."""
PATIENCE_S = 60.0
SLOWEST = 256
"""Bytes a second: a server that gives fewer over `PATIENCE_S` is given up, or a drip would keep a pull for ever."""
PAUSES_S = (0.5, 2.0, 5.0)
"""Before attempts that follow a failed one; one that brought `PROGRESS` bytes starts them anew."""
PROGRESS = 1 << 14
"""With less a server that sends a byte and falls silent, each time, would keep a pull for ever."""

_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Cut(Exception):
    """The connection failed in a way that another attempt may mend; says how."""


class _TooSlow(_Cut):
    """Bytes come, but so few that another attempt would only wait again."""


class _Wrong(Exception):
    """What is there is not the pinned file; says what it is."""


def fetch(source: SourceFile, url: str, target: Path, what: str, progress: Callable[[int], None]) -> None:
    """Bring the file at `url` to `target`; it appears there only with the pinned size and sha256.

    Args:
        source: what it must be.
        url: http, https or file; a user and password in it go to its own host and to no other.
        what: how messages begin, the name of the weights.
        progress: told the bytes that are there, from the resumed ones on.

    Raises:
        WeightsError: not reachable, too slow, wrong size or hash, or another process is fetching it.
        OSError: the folder is not writable or full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The hash is part of the name: what is left of another version must not be taken for the start of this one.
    part = target.with_name(f".{target.name}.{source.sha256[:12]}.part")
    with _Locked(part, what) as file:
        try:
            _fill(file, source, url, what, progress)
        except _Wrong as wrong:
            part.unlink(missing_ok=True)
            raise WeightsError(
                f"{what}: {redact_url(url)} is not the pinned {source.file} ({wrong}); nothing was "
                "installed. Try again, or another --mirror"
            ) from None
        except BaseException:
            if os.fstat(file.fileno()).st_size == 0:
                part.unlink(missing_ok=True)
            raise
        file.flush()
        os.fsync(file.fileno())
        os.chmod(part, 0o644)
        os.replace(part, target)
    sync_folder(target.parent)


class _Locked:
    """The part file, opened for reading and writing by this process alone."""

    def __init__(self, part: Path, what: str) -> None:
        self._part = part
        self._what = what

    def __enter__(self) -> BinaryIO:
        # Not followed if somebody put a link there.
        handle = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self._file = os.fdopen(handle, "r+b")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise self._busy() from None
        if not _same(handle, self._part):
            # It was finished and renamed between opening and locking.
            self._file.close()
            raise self._busy()
        return self._file

    def _busy(self) -> WeightsError:
        return WeightsError(f"{self._what}: another process is fetching it; wait for that one to end")

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _fill(file: BinaryIO, source: SourceFile, url: str, what: str, progress: Callable[[int], None]) -> None:
    """Download until the file is whole. Raises _Wrong, WeightsError, OSError."""
    digest = hashlib.sha256()
    done = 0
    while chunk := file.read(CHUNK):
        digest.update(chunk)
        done += len(chunk)
    if done > source.size:
        digest, done = _emptied(file)
    pauses = iter(PAUSES_S)
    while done < source.size:
        before, cut, hopeless = done, "", False
        try:
            with _answer(url, done, what) as answer:
                if done and not _continues(answer, done):
                    digest, done = _emptied(file)
                    before = 0
                _check_length(answer, source.size - done)
                for chunk in _chunks(answer):
                    done += len(chunk)
                    if done > source.size:
                        raise _Wrong(f"more than {source.size} bytes")
                    digest.update(chunk)
                    file.write(chunk)
                    progress(done)
            if done < source.size:
                cut = f"the connection ended after {done} of {source.size} bytes"
        except _Cut as error:
            cut, hopeless = str(error), isinstance(error, _TooSlow)
        if not cut:
            continue
        file.flush()
        if done - before >= PROGRESS:
            pauses = iter(PAUSES_S)
        pause = None if hopeless else next(pauses, None)
        if pause is None:
            kept = f"; {done} of {source.size} bytes are kept, so the next pull goes on from there" if done else ""
            raise WeightsError(
                f"{what}: cannot download {redact_url(url)} ({cut}){kept}; check the network or proxy, "
                "or give a --mirror"
            )
        time.sleep(pause)
    if digest.hexdigest() != source.sha256:
        raise _Wrong(f"sha256 {digest.hexdigest()}")


def _emptied(file: BinaryIO) -> tuple[Any, int]:
    file.seek(0)
    file.truncate()
    return hashlib.sha256(), 0


def _continues(answer: Any, done: int) -> bool:
    """Whether the answer starts where we stopped; a server that knows no ranges starts at the beginning."""
    if getattr(answer, "status", None) != 206:
        return False
    return str(answer.headers.get("Content-Range", "")).strip().lower().startswith(f"bytes {done}-")


def _check_length(answer: Any, wanted: int) -> None:
    """Refuse an answer that says it is of another size, before a byte of it is stored."""
    said = answer.headers.get("Content-Length")
    if said is not None and said.strip().isdigit() and int(said) != wanted:
        raise _Wrong(f"{said.strip()} bytes instead of {wanted}")
    coding = (answer.headers.get("Content-Encoding") or "identity").lower()
    if coding != "identity":
        raise _Wrong(f"sent with the encoding {coding}")


def _chunks(answer: Any) -> Iterator[bytes]:
    """The body in pieces. Raises _Cut."""
    began, arrived = time.monotonic(), 0
    while True:
        broken = ""
        try:
            # read1: what has arrived now; read() would wait for a whole chunk from a server that drips.
            chunk = answer.read1(CHUNK) if hasattr(answer, "read1") else answer.read(CHUNK)
        except (HTTPException, OSError) as error:
            broken = _reason(error)
        if broken:
            raise _Cut(broken)
        if not chunk:
            return
        yield chunk
        arrived += len(chunk)
        passed = time.monotonic() - began
        if passed > PATIENCE_S:
            if arrived < SLOWEST * passed:
                raise _TooSlow(f"too slow: {arrived} bytes in {passed:.0f} s")
            began, arrived = time.monotonic(), 0


def _answer(url: str, offset: int, what: str) -> Any:
    """The response to a GET from `offset` on. Raises _Cut for what may pass, WeightsError for the rest."""
    plain, authorization = _without_user(url)
    answer, problem = _open(plain, authorization, offset, url)
    if problem == "HTTP 416" and offset:
        answer, problem = _open(plain, authorization, 0, url)
    # Raised out here: on the chain of an exception the library's own would show the whole address.
    if isinstance(problem, _Cut):
        raise problem
    if problem is not None:
        raise WeightsError(
            f"{what}: cannot download {redact_url(url)} ({problem}); check the network or proxy, or give a --mirror"
        )
    return answer


def _open(plain: str, authorization: str, offset: int, url: str) -> tuple[Any, _Cut | str | None]:
    """The response, or what is wrong: a _Cut when another attempt may mend it, else its words."""
    request = urllib.request.Request(plain, headers={"User-Agent": "streamgate", "Accept-Encoding": "identity"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    if authorization:
        # Not sent along to another host that this one redirects to.
        request.add_unredirected_header("Authorization", authorization)
    # urllib honours HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
    opener = urllib.request.build_opener(_Redirects())
    try:
        return opener.open(request, timeout=SILENCE_S), None
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            return None, "HTTP 416"
        reason = scrub(f"HTTP {error.code} {error.reason}", url)
        return None, _Cut(reason) if error.code in _PASSING_STATUS else reason
    except (ValueError, InvalidURL) as error:
        return None, scrub(str(error), url)
    except (HTTPException, OSError) as error:  # URLError is an OSError too
        inner = getattr(error, "reason", None)
        if isinstance(inner, FileNotFoundError):
            return None, "no such file"
        return None, _Cut(scrub(_reason(inner if isinstance(inner, Exception) else error), url))


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came for {SILENCE_S:g} s"
    return str(getattr(error, "reason", "") or error) or type(error).__name__


def _without_user(url: str) -> tuple[str, str]:
    """The address without user and password, and these as an Authorization header ("" when there are none)."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, ""
    token = base64.b64encode(unquote(user).encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), f"Basic {token}"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, but never from https to http, and to no other scheme."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme.lower()
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise urllib.error.HTTPError(
                req.full_url, code, f"redirects to {redact_url(newurl)}, which is not followed", headers, fp
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)
