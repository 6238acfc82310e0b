"""Downloads a pinned file. Interrupted downloads are resumed, and size and hash are checked.

Received bytes are stored under a hidden name next to the target until size and sha256 are correct. If the network
fails, these bytes are kept, so that the next attempt, in this or a later pull, continues where the last one stopped.
"""

from __future__ import annotations

import base64
import fcntl
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, InvalidURL
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

from streamgate.errors import WeightsError
from streamgate.redaction import redact_url, scrub
from streamgate.weights.catalog import SourceFile
from streamgate.weights.files import sha256_of, sync_folder

CHUNK = 1 << 16
SILENCE_S = 30.0
"""Seconds without any data after which the connection is considered lost."""
PATIENCE_S = 60.0
SLOWEST = 256
"""Minimum rate in bytes per second, measured over `PATIENCE_S`. Slower downloads fail, so that no pull takes
forever."""
PAUSES_S = (0.5, 2.0, 5.0)
"""Seconds to wait before each retry. An attempt that received at least `PROGRESS` bytes restarts the
sequence."""
PROGRESS = 1 << 14
"""Minimum number of bytes that count as progress. Without a minimum, a server that sends one byte per attempt could
block a pull forever."""

_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Failed(Exception):
    """A failed attempt. `again`: a retry may succeed. `wrong`: the received data differs from the pinned file."""

    def __init__(self, reason: str, *, again: bool = False, wrong: bool = False) -> None:
        super().__init__(reason)
        self.again = again
        self.wrong = wrong


def fetch(source: SourceFile, url: str, target: Path, what: str, progress: Callable[[int], None]) -> None:
    """Download the file at `url` to `target`, which is created only if size and sha256 are as pinned.

    Args:
        source: the pinned file.
        url: an http, https or file URL; a user name and password in the URL are sent only to the host that it names.
        what: the name of the weights, with which messages begin.
        progress: called with the number of bytes received so far, including those of earlier attempts.

    Raises:
        WeightsError: the server is not reachable or too slow, the file has a wrong size or hash, or another process is
            downloading it.
        OSError: the folder is not writable or full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The hash is part of the name, so that a download is not resumed from a partial file of another version.
    part = target.with_name(f".{target.name}.{source.sha256[:12]}.part")
    # O_NOFOLLOW: a link at this path is not followed.
    with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as file:
        if not _is_ours(file, part):
            raise WeightsError(f"{what}: another process is downloading it; wait until that process has finished")
        try:
            _fill(file, source.size, url, progress)
            if (found := sha256_of(part)) != source.sha256:
                raise _Failed(f"sha256 {found}", wrong=True)
        except _Failed as failed:
            done = file.truncate(0) if failed.wrong else file.tell()
            kept = f"; {done} of {source.size} bytes are kept, so the next pull continues from there" if done else ""
            raise WeightsError(
                f"{what}: {redact_url(url)} is not the pinned {source.file} ({failed}); nothing was installed. Try "
                "again, or give another --mirror"
                if failed.wrong else
                f"{what}: cannot download {redact_url(url)} ({failed}){kept}; check the network or proxy, or give a "
                "--mirror"
            ) from None  # fmt: skip
        finally:
            if os.fstat(file.fileno()).st_size == 0:
                part.unlink(missing_ok=True)
        os.fsync(file.fileno())
        os.chmod(part, 0o644)
        os.replace(part, target)
    sync_folder(target.parent)


def _is_ours(file: BinaryIO, path: Path) -> bool:
    """Lock the open file. False if another process holds the lock or has renamed the file. Raises OSError."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have completed and renamed the file after it was opened here and before it was locked.
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except (BlockingIOError, PermissionError, FileNotFoundError):
        return False


def _fill(file: BinaryIO, size: int, url: str, progress: Callable[[int], None]) -> None:
    """Download until the file has `size` bytes. Raises _Failed, OSError."""
    done = file.seek(0, os.SEEK_END)
    pauses = iter(PAUSES_S)
    while done != size:
        before = done if done < size else 0
        try:
            _receive(file, before, size, url, progress)
            return
        except _Failed as failed:
            file.flush()
            done = file.tell()
            if done - before >= PROGRESS:
                pauses = iter(PAUSES_S)
            pause = 0.0 if done == size else next(pauses, None) if failed.again else None
            if failed.wrong or pause is None:
                raise
            time.sleep(pause)


def _receive(file: BinaryIO, offset: int, size: int, url: str, progress: Callable[[int], None]) -> None:
    """Download the file from byte `offset` to its end in one attempt. Raises _Failed, OSError."""
    with _asked(lambda: _open(url, offset), url) as answer:
        # A server that does not support ranges sends the file from the beginning.
        if not str(answer.headers.get("Content-Range", "")).strip().lower().startswith(f"bytes {offset}-"):
            offset = 0
        file.seek(offset)
        file.truncate()
        said = str(answer.headers.get("Content-Length") or "").strip()
        if said.isdigit() and int(said) != size - offset:
            raise _Failed(f"{said} bytes instead of {size - offset}", wrong=True)
        if (coding := str(answer.headers.get("Content-Encoding") or "identity").lower()) != "identity":
            raise _Failed(f"sent with the encoding {coding}", wrong=True)
        began, arrived = time.monotonic(), 0
        # read1 returns what has arrived; read would wait for a whole chunk, but a file: URL has no read1.
        read = getattr(answer, "read1", answer.read)
        while chunk := _asked(lambda: read(CHUNK), url):
            offset += len(chunk)
            if offset > size:
                raise _Failed(f"more than {size} bytes", wrong=True)
            file.write(chunk)
            progress(offset)
            arrived += len(chunk)
            passed = time.monotonic() - began
            if passed > PATIENCE_S:
                if arrived < SLOWEST * passed:
                    raise _Failed(f"too slow: {arrived} bytes in {passed:.0f} s")
                began, arrived = time.monotonic(), 0
    file.flush()
    if offset < size:
        raise _Failed(f"the connection ended after {offset} of {size} bytes", again=True)


def _open(url: str, offset: int) -> Any:
    """The response of the server. Raises the exceptions of urllib."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    headers = {"User-Agent": "streamgate", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)), headers=headers)
    if at:
        # An "unredirected" header is not sent to other hosts to which this host may redirect.
        token = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    # urllib uses HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
    return urllib.request.build_opener().open(request, timeout=SILENCE_S)


def _asked(call: Callable[[], Any], url: str) -> Any:
    """The result of a network call. Raises _Failed for every kind of failure, with a message that has no secrets."""
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
            reason = f"no data for {SILENCE_S:g} s"
    # Raised outside the except blocks, because a chained library exception would show the whole URL.
    raise _Failed(scrub(reason, url), again=again)
