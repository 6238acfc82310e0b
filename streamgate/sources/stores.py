"""Access to object stores through fsspec, with time limits for requests and with readable errors."""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from streamgate.errors import display

ATTEMPTS = 3
PAUSES_S = (0.5, 2.0)
STALL_S = 60.0
"""Default timeout in seconds for opening a file and for reading each packet; see `stall_seconds`."""
_MARGIN_S = 15.0
"""A request that the library does not end at its timeout is abandoned this many seconds later. These seconds also cover
the time to import the library."""
_LISTING = 10
"""Factor by which the timeout for listing a folder is longer than for other operations: a store returns only a thousand
names per request, so listing can take many requests."""
BLOCK = 1 << 20
"""Number of bytes read per request."""
SLOWEST = 64 << 10
"""Minimum average rate of writing a file, in bytes per second; a slower write times out."""
MOST_FILES = 1_000_000

WEB = frozenset({"http", "https"})
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "hf", "oci", "oss"})
"""Stores whose URLs begin with a bucket and never contain a user name or a password."""


class RemoteError(OSError):
    """A file in a store cannot be accessed.

    Attributes:
        words: the reason, without the file's URL.
        final: the same request would fail again.
        missing: the file does not exist.
    """

    def __init__(self, words: str, *, final: bool = False, missing: bool = False) -> None:
        super().__init__(errno.EIO, words)
        self.words = words
        self.final = final
        self.missing = missing


def stall_seconds() -> float:
    """Timeout in seconds for a file that delivers no data: $STREAMGATE_STALL_S (for very slow storage) or `STALL_S`."""
    try:
        given = float(os.environ.get("STREAMGATE_STALL_S", ""))
    except ValueError:
        return STALL_S
    return given if 0 < given <= 86400 else STALL_S


def fetched(url: str, start: int, end: int) -> bytes:
    """Bytes [start, end) of a file; failed requests are retried. Raises RemoteError."""
    for attempt in range(ATTEMPTS):
        try:
            data = bytes(_request(url, partial(_range, start=start, end=end), stall_seconds()))
            if len(data) == end - start:
                return data
            error = RemoteError(f"the store returned {len(data)} bytes instead of {end - start}")
        except RemoteError as failed:
            error = failed
        if error.final or attempt == ATTEMPTS - 1:
            break
        time.sleep(PAUSES_S[attempt])
    raise error


def patience_s() -> float:
    """Longest time in seconds that `fetched` can take, with a margin for libraries that exceed their timeouts."""
    return ATTEMPTS * stall_seconds() + sum(PAUSES_S) + _MARGIN_S


_sync_lock = threading.Lock()


def _range(store: Any, path: str, start: int, end: int, timeout: float) -> bytes:
    if path.partition("://")[0] in WEB:
        # Only this call stops reading when a server sends more than was requested.
        with store.open(path, "rb", size=end, block_size=BLOCK, cache_type="none") as file:
            try:
                return bytes(_synced(store, file.async_fetch_range, start, end, timeout=timeout))
            except ValueError:
                words = "the server does not support range requests; download the file and give the path of the copy"
                raise RemoteError(words, final=True) from None
    if store.async_impl:
        return bytes(_synced(store, store._cat_file, path, start=start, end=end, timeout=timeout))
    with _sync_lock:  # synchronous file systems are not thread-safe
        return bytes(store.cat_file(path, start=start, end=end))


def _synced(store: Any, call: Callable[..., Any], *arguments: Any, timeout: float, **named: Any) -> Any:
    from fsspec.asyn import sync

    return sync(store.loop, call, *arguments, timeout=timeout, **named)


def _request(url: str, call: Callable[..., Any], timeout: float) -> Any:
    """The result of `call(store, path, timeout=...)` for a URL. Turns all errors into RemoteError."""
    try:
        store, path = store_of(url)
        return call(store, path, timeout=timeout)
    except RemoteError:
        raise
    except Exception as error:  # each store has its own error types, and their messages may contain secrets
        raise _as_remote_error(error) from None


_LOGGERS = ("fsspec", "s3fs", "botocore", "aiobotocore", "boto3", "urllib3", "gcsfs", "huggingface_hub", "adlfs",
            "azure")  # fmt: skip
_stores: dict[tuple[str, Any], Any] = {}
_making = threading.Lock()


def store_of(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it. Raises RemoteError if the package for it is missing."""
    scheme, _, rest = url.partition("://")
    protocol = scheme.lower()
    if protocol in _BUCKETS and "@" in rest.partition("/")[0]:
        raise RemoteError(
            "credentials in the URL are not supported; configure them as you would for the store's own tools (for S3: "
            "in ~/.aws, or with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)",
            final=True,
        )
    try:
        import fsspec
        from fsspec.registry import known_implementations
    except ImportError:
        raise RemoteError("object stores need fsspec: pip install 'streamgate[cloud]'", final=True) from None
    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ValueError:
        raise RemoteError(f"fsspec does not support {display(protocol)}://; check the URL", final=True) from None
    except ImportError:
        hint = str(known_implementations.get(protocol, {}).get("err", ""))
        package = found[1] if (found := re.search(r"[Ii]nstall ([A-Za-z0-9_.-]+) ", hint)) else None
        extra = "'streamgate[cloud]'" if package in ("s3fs", None) else package
        raise RemoteError(f"{protocol}:// URLs need a package: pip install {extra}", final=True) from None
    for name in _LOGGERS:
        if not (logger := logging.getLogger(name)).level:
            # At level DEBUG, these libraries log URLs and signed headers.
            logger.setLevel(logging.WARNING)
    options = kind._get_kwargs_from_urls(url)
    with _making:
        key = (protocol, repr(sorted(options.items())))
        if key not in _stores:
            _stores[key] = kind(**options)
        return _stores[key], kind._strip_protocol(url)


def info_of(url: str) -> dict[str, Any]:
    """fsspec's info about the file or folder at a URL. Raises RemoteError."""

    def look(store: Any, path: str, timeout: float) -> dict[str, Any]:
        if store.async_impl:
            return dict(_synced(store, store._info, path, timeout=timeout))
        with _sync_lock:
            return dict(store.info(path))

    return dict(within(partial(_request, url, look, stall_seconds()), stall_seconds()))


def listing_of(url: str, *, pattern: bool = False) -> dict[str, dict[str, Any]]:
    """fsspec's info about all files below a URL, by name; with `pattern`, about everything that matches the URL.

    Raises RemoteError.
    """
    limit = _LISTING * stall_seconds()

    def look(store: Any, path: str, timeout: float) -> dict[str, dict[str, Any]]:
        if store.async_impl:
            call = store._glob if pattern else store._find
            return dict(_synced(store, call, path, detail=True, timeout=timeout))
        with _sync_lock:
            return dict(store.glob(path, detail=True) if pattern else store.find(path, detail=True))

    found = within(partial(_request, url, look, limit), limit)
    if len(found) > MOST_FILES:
        raise RemoteError(f"it contains more than {MOST_FILES} files; give its subfolders one by one", final=True)
    return dict(found)


def put(url: str, content: Path | bytes) -> None:
    """Write a whole file; `content` is a local file to copy, or bytes. Raises RemoteError."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    limit = stall_seconds() + size / SLOWEST

    def write(store: Any, path: str, timeout: float) -> None:
        if store.async_impl:
            call = store._pipe_file if isinstance(content, bytes) else store._put_file
            _synced(store, call, *((path, content) if isinstance(content, bytes) else (str(content), path)),
                    timeout=timeout)  # fmt: skip
            return
        with _sync_lock:
            if isinstance(content, bytes):
                store.pipe_file(path, content)
            else:
                store.put_file(str(content), path)

    within(partial(_request, url, write, limit), limit)


def remove(url: str) -> None:
    """Remove a file; a missing one is not an error. Raises RemoteError."""

    def look(store: Any, path: str, timeout: float) -> None:
        if store.async_impl:
            _synced(store, store._rm_file, path, timeout=timeout)
            return
        with _sync_lock:
            store.rm_file(path)

    try:
        within(partial(_request, url, look, stall_seconds()), stall_seconds())
    except RemoteError as error:
        if not error.missing:
            raise


def within(call: Callable[[], Any], seconds: float) -> Any:
    """The result of `call()`, which must finish within `seconds` plus a margin. Raises RemoteError."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            value = call()
        except BaseException as error:  # raised again in the calling thread
            with suppress(Exception):
                future.set_exception(error)
        else:
            with suppress(Exception):
                future.set_result(value)

    threading.Thread(target=work, name="streamgate-look", daemon=True).start()
    try:
        return future.result(seconds + _MARGIN_S)
    except TookTooLong:
        raise slow() from None


def slow() -> RemoteError:
    return RemoteError(
        f"the store did not answer within {stall_seconds():g} s; check the network, or set STREAMGATE_STALL_S"
    )


def _as_remote_error(error: BaseException) -> RemoteError:
    """Convert a store library's error to a RemoteError, without the library's message, which may contain secrets."""
    names = {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}
    code = _code_of(error)
    why = f" {code}" if code else ""
    if names & {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError"}:
        words = "no credentials were found; configure them as you would for the store's own tools"
        return RemoteError(words, final=True)
    # fsspec's HTTP file system reports every failure as "not found", so the causes of the error are checked first.
    if isinstance(error, PermissionError) or code in ("(401)", "(403)"):
        return RemoteError(f"access was denied{why}; check the credentials and their permissions", final=True)
    if names & {"TimeoutError", "FSTimeoutError", "ReadTimeoutError", "ConnectTimeoutError", "ServerTimeoutError"}:
        return slow()
    if names & {"EndpointConnectionError", "ClientConnectorError", "ConnectionRefusedError", "gaierror"}:
        return RemoteError("the store cannot be reached; check the network and the endpoint")
    if isinstance(error, FileNotFoundError):
        return RemoteError("no such bucket, folder or file; check the URL", final=True, missing=True)
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return RemoteError("this is not a file; check the URL", final=True)
    return RemoteError(f"the request to the store failed ({type(error).__name__}{why})")


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and len(found) < 10:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _code_of(error: BaseException) -> str:
    """The store's code for an error, in parentheses; empty if there is none or it is not a plain word or number."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        code = response.get("Error", {}).get("Code") if isinstance(response, dict) else getattr(one, "status", None)
        if code is not None and re.fullmatch(r"[A-Za-z0-9]{1,40}", str(code)):
            return f"({code})"
    return ""
