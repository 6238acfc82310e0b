"""Fetching one pinned file: resumed after a cut, checked for size and hash, and never there by half.

What has arrived is kept under a hidden name beside the target until size and sha256 are right. It stays there when the
network fails, so that the next attempt, of this or of a later pull, continues where the last one stopped.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, InvalidURL
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

from streamgate.errors import WeightsError, redact_url, scrub
from streamgate.weights.catalog import SourceFile
from streamgate.weights.files import sha256_of, sync_folder

CHUNK = 1 << 16
SILENCE_S = 30.0
"""No byte for so long counts as a cut."""
PATIENCE_S = 60.0
SLOWEST = 256
"""Bytes per second: a server that sends fewer over `PATIENCE_S` is given up, or it could hold a pull forever."""
PAUSES_S = (0.5, 2.0, 5.0)
"""Before attempts that follow a failed one; an attempt that brought `PROGRESS` bytes starts them again."""
PROGRESS = 1 << 14
"""With fewer, a server that sends a byte and falls silent, each time, could hold a pull forever."""

_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Cut(Exception):
    """The download failed; `again`: another attempt may succeed."""

    def __init__(self, reason: str, again: bool = True) -> None:
        super().__init__(reason)
        self.again = again


class _Wrong(Exception):
    """What is there is not the pinned file; says what it is."""


def fetch(source: SourceFile, url: str, target: Path, what: str, progress: Callable[[int], None]) -> None:
    """Bring the file at `url` to `target`; it appears there only with the pinned size and sha256.

    Args:
        source: what it must be.
        url: http, https or file; a user and password in it go to its own host and to no other.
        what: how messages begin, the name of the weights.
        progress: called with the number of bytes that are there, resumed ones included.

    Raises:
        WeightsError: not reachable, too slow, wrong size or hash, or another process is fetching it.
        OSError: the folder is not writable or full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The hash is part of the name: what is left of another version must not be taken for the start of this one.
    part = target.with_name(f".{target.name}.{source.sha256[:12]}.part")
    with _locked(part, what) as file:
        problem = ""
        try:
            _fill(file, source.size, url, progress)
            if (found := sha256_of(part)) != source.sha256:
                raise _Wrong(f"sha256 {found}")
        except _Cut as cut:
            done = file.tell()
            kept = f"; {done} of {source.size} bytes are kept, so the next pull continues from there" if done else ""
            problem = f"cannot download {redact_url(url)} ({cut}){kept}; check the network or proxy, or give a --mirror"
        except _Wrong as wrong:
            file.truncate(0)
            problem = (
                f"{redact_url(url)} is not the pinned {source.file} ({wrong}); nothing was installed. Try again, or "
                "another --mirror"
            )
        finally:
            if os.fstat(file.fileno()).st_size == 0:
                part.unlink(missing_ok=True)
        if problem:
            raise WeightsError(f"{what}: {problem}")
        os.fsync(file.fileno())
        os.chmod(part, 0o644)
        os.replace(part, target)
    sync_folder(target.parent)


@contextmanager
def _locked(part: Path, what: str) -> Iterator[BinaryIO]:
    """The part file, opened for reading and writing by this process alone."""
    # Not followed if somebody put a link there.
    with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking it may have been finished and renamed.
            mine = os.path.samestat(os.fstat(file.fileno()), os.stat(part))
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.ENOENT):
                raise
            mine = False
        if not mine:
            raise WeightsError(f"{what}: another process is fetching it; wait for that one to end")
        yield file


def _fill(file: BinaryIO, size: int, url: str, progress: Callable[[int], None]) -> None:
    """Download until the file has its size. Raises _Cut, _Wrong, OSError."""
    done = file.seek(0, os.SEEK_END)
    pauses = iter(PAUSES_S)
    while done != size:
        before = done if done < size else 0
        try:
            _receive(file, before, size, url, progress)
            cut = _Cut(f"the connection ended after {file.tell()} of {size} bytes")
        except _Cut as error:
            cut = error
        file.flush()
        done = file.tell()
        if done == size:
            break
        if done - before >= PROGRESS:
            pauses = iter(PAUSES_S)
        pause = next(pauses, None) if cut.again else None
        if pause is None:
            raise cut
        time.sleep(pause)


def _receive(file: BinaryIO, offset: int, size: int, url: str, progress: Callable[[int], None]) -> None:
    """Append to the first `offset` bytes of the file what the server sends. Raises _Cut, _Wrong, OSError."""
    with _asked(lambda: _open(url, offset), url) as answer:
        # A server that knows no ranges starts at the beginning.
        if not str(answer.headers.get("Content-Range", "")).strip().lower().startswith(f"bytes {offset}-"):
            offset = 0
        file.seek(offset)
        file.truncate()
        said = str(answer.headers.get("Content-Length") or "").strip()
        if said.isdigit() and int(said) != size - offset:
            raise _Wrong(f"{said} bytes instead of {size - offset}")
        if (coding := str(answer.headers.get("Content-Encoding") or "identity").lower()) != "identity":
            raise _Wrong(f"sent with the encoding {coding}")
        began, arrived = time.monotonic(), 0
        # read1: what has arrived now; read() would wait for a whole chunk. A file: address has only the latter.
        read = getattr(answer, "read1", answer.read)
        while chunk := _asked(lambda: read(CHUNK), url):
            offset += len(chunk)
            if offset > size:
                raise _Wrong(f"more than {size} bytes")
            file.write(chunk)
            progress(offset)
            arrived += len(chunk)
            passed = time.monotonic() - began
            if passed > PATIENCE_S:
                if arrived < SLOWEST * passed:
                    raise _Cut(f"too slow: {arrived} bytes in {passed:.0f} s", again=False)
                began, arrived = time.monotonic(), 0


def _open(url: str, offset: int) -> Any:
    """The response of the server. Raises what urllib raises."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    plain = urlunsplit(parts._replace(netloc=host))
    request = urllib.request.Request(plain, headers={"User-Agent": "streamgate", "Accept-Encoding": "identity"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    if at:
        # Not sent along to another host that this one redirects to.
        token = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    # urllib honours HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
    return urllib.request.build_opener().open(request, timeout=SILENCE_S)


def _asked(call: Callable[[], Any], url: str) -> Any:
    """What a call to the network returns. Raises _Cut, without secrets, for every way in which it fails."""
    try:
        return call()
    except urllib.error.HTTPError as error:
        error.close()
        reason, again = f"HTTP {error.code} {error.reason}", error.code in _PASSING_STATUS
    except (ValueError, InvalidURL) as error:
        reason, again = str(error), False
    except (HTTPException, OSError) as error:
        inner = getattr(error, "reason", None) or error
        reason, again = str(inner) or type(inner).__name__, not isinstance(inner, FileNotFoundError)
        if isinstance(inner, TimeoutError):
            reason = f"nothing came for {SILENCE_S:g} s"
    # Raised out here: on the chain of an exception the library's own would show the whole address.
    raise _Cut(scrub(reason, url), again)
