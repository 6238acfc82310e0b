"""Object stores by way of fsspec: what is asked of them, within time limits, and their errors in our words."""

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
"""Seconds without a packet, or for opening, after which a file is given up; see `stall_seconds`."""
_MARGIN_S = 15.0
"""Longer than a request's own limit: this is for what a library does not end by itself, its import included."""
_LISTING = 10
"""A folder may take so many times longer: a store lists a thousand names a request."""
BLOCK = 1 << 20
"""Bytes of one request."""
SLOWEST = 64 << 10
"""Bytes a second below which writing a file is given up."""
MOST_FILES = 1_000_000

WEB = frozenset({"http", "https"})
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "hf", "oci", "oss"})
"""Stores whose addresses begin with a bucket: nothing in them is a user or password, wherever such a thing is given."""


class RemoteError(OSError):
    """A file in a store that cannot be read; `words` says why, without its address. `final`: asking again is no use.

    `missing`: nothing is there.
    """

    def __init__(self, words: str, *, final: bool = False, missing: bool = False) -> None:
        super().__init__(errno.EIO, words)
        self.words = words
        self.final = final
        self.missing = missing


def stall_seconds() -> float:
    """How long a file may give nothing: $STREAMGATE_STALL_S (for very slow storage), else `STALL_S`."""
    try:
        given = float(os.environ.get("STREAMGATE_STALL_S", ""))
    except ValueError:
        return STALL_S
    return given if 0 < given <= 86400 else STALL_S


def fetched(url: str, start: int, end: int) -> bytes:
    """Bytes [start, end) of a file, asked for again where that fails. Raises RemoteError."""
    for attempt in range(ATTEMPTS):
        try:
            data = bytes(_asked(url, partial(_range, start=start, end=end), stall_seconds()))
            if len(data) == end - start:
                return data
            error = RemoteError(f"the store gave {len(data)} bytes instead of {end - start}")
        except RemoteError as failed:
            error = failed
        if error.final or attempt == ATTEMPTS - 1:
            break
        time.sleep(PAUSES_S[attempt])
    raise error


def patience_s() -> float:
    """How long `fetched` can take, whatever a library makes of its limits."""
    return ATTEMPTS * stall_seconds() + sum(PAUSES_S) + _MARGIN_S


_turns = threading.Lock()


def _range(store: Any, path: str, start: int, end: int, timeout: float) -> bytes:
    if path.partition("://")[0] in WEB:
        # The only way by which a server that sends more than it was asked for is cut short.
        with store.open(path, "rb", size=end, block_size=BLOCK, cache_type="none") as file:
            try:
                return bytes(_synced(store, file.async_fetch_range, start, end, timeout=timeout))
            except ValueError:
                words = "the server gives no parts of files, so it cannot be sought in; download it and give the file"
                raise RemoteError(words, final=True) from None
    if store.async_impl:
        return bytes(_synced(store, store._cat_file, path, start=start, end=end, timeout=timeout))
    with _turns:  # these are not made for several threads
        return bytes(store.cat_file(path, start=start, end=end))


def _synced(store: Any, call: Callable[..., Any], *arguments: Any, timeout: float, **named: Any) -> Any:
    from fsspec.asyn import sync

    return sync(store.loop, call, *arguments, timeout=timeout, **named)


def _asked(url: str, call: Callable[..., Any], timeout: float) -> Any:
    """What `call(store, path, timeout=...)` returns for an address. Raises RemoteError for whatever goes wrong."""
    try:
        store, path = store_of(url)
        return call(store, path, timeout=timeout)
    except RemoteError:
        raise
    except Exception as error:  # each store has its own; what they say may hold what must not be shown
        raise _in_words(error) from None


_LOGGERS = ("fsspec", "s3fs", "botocore", "aiobotocore", "boto3", "urllib3", "gcsfs", "huggingface_hub", "adlfs",
            "azure")  # fmt: skip
_stores: dict[tuple[str, Any], Any] = {}
_making = threading.Lock()


def store_of(url: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it. Raises RemoteError without the package for it."""
    scheme, _, rest = url.partition("://")
    protocol = scheme.lower()
    if protocol in _BUCKETS and "@" in rest.partition("/")[0]:
        raise RemoteError(
            "credentials in the address are not supported; set them as the store's own tools take them, for S3 in "
            "~/.aws or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            final=True,
        )
    try:
        import fsspec
        from fsspec.registry import known_implementations
    except ImportError:
        raise RemoteError("reading from stores needs fsspec: pip install 'streamgate[cloud]'", final=True) from None
    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ValueError:
        raise RemoteError(f"fsspec knows no {display(protocol)}://; check the address", final=True) from None
    except ImportError:
        hint = str(known_implementations.get(protocol, {}).get("err", ""))
        package = found[1] if (found := re.search(r"[Ii]nstall ([A-Za-z0-9_.-]+) ", hint)) else None
        extra = "'streamgate[cloud]'" if package in ("s3fs", None) else package
        raise RemoteError(f"reading {protocol}:// needs a package: pip install {extra}", final=True) from None
    for name in _LOGGERS:
        if not (logger := logging.getLogger(name)).level:
            # At DEBUG they log addresses, and headers with signatures, into the log of a program that uses us.
            logger.setLevel(logging.WARNING)
    options = kind._get_kwargs_from_urls(url)
    with _making:
        key = (protocol, repr(sorted(options.items())))
        if key not in _stores:
            _stores[key] = kind(**options)
        return _stores[key], kind._strip_protocol(url)


def info_of(url: str) -> dict[str, Any]:
    """What fsspec says of the file or folder at an address. Raises RemoteError."""

    def look(store: Any, path: str, timeout: float) -> dict[str, Any]:
        if store.async_impl:
            return dict(_synced(store, store._info, path, timeout=timeout))
        with _turns:
            return dict(store.info(path))

    return dict(within(partial(_asked, url, look, stall_seconds()), stall_seconds()))


def listing_of(url: str, *, pattern: bool = False) -> dict[str, dict[str, Any]]:
    """The same of all files below an address, or of all that matches the pattern in it, by name. Raises RemoteError."""
    limit = _LISTING * stall_seconds()

    def look(store: Any, path: str, timeout: float) -> dict[str, dict[str, Any]]:
        if store.async_impl:
            call = store._glob if pattern else store._find
            return dict(_synced(store, call, path, detail=True, timeout=timeout))
        with _turns:
            return dict(store.glob(path, detail=True) if pattern else store.find(path, detail=True))

    found = within(partial(_asked, url, look, limit), limit)
    if len(found) > MOST_FILES:
        raise RemoteError(f"holds more than {MOST_FILES} files; name folders in it one by one", final=True)
    return dict(found)


def put(url: str, content: Path | bytes) -> None:
    """Write a file, whole, from one of this machine or from bytes. Raises RemoteError."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    limit = stall_seconds() + size / SLOWEST

    def write(store: Any, path: str, timeout: float) -> None:
        if store.async_impl:
            call = store._pipe_file if isinstance(content, bytes) else store._put_file
            _synced(store, call, *((path, content) if isinstance(content, bytes) else (str(content), path)),
                    timeout=timeout)  # fmt: skip
            return
        with _turns:
            if isinstance(content, bytes):
                store.pipe_file(path, content)
            else:
                store.put_file(str(content), path)

    within(partial(_asked, url, write, limit), limit)


def remove(url: str) -> None:
    """Remove a file; one that is not there is fine. Raises RemoteError."""

    def look(store: Any, path: str, timeout: float) -> None:
        if store.async_impl:
            _synced(store, store._rm_file, path, timeout=timeout)
            return
        with _turns:
            store.rm_file(path)

    try:
        within(partial(_asked, url, look, stall_seconds()), stall_seconds())
    except RemoteError as error:
        if not error.missing:
            raise


def within(call: Callable[[], Any], seconds: float) -> Any:
    """What a call returns, which has to be there in time. Raises RemoteError."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            value = call()
        except BaseException as error:  # handed over
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


def _in_words(error: BaseException) -> RemoteError:
    """An error of a store's library without anything that the library says: that may hold an address or a key."""
    names = {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}
    code = _code_of(error)
    why = f" {code}" if code else ""
    if names & {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError"}:
        return RemoteError("no credentials were found for it; set them as the store's own tools take them", final=True)
    # The web's file system makes "not found" of whatever goes wrong: the causes come first.
    if isinstance(error, PermissionError) or code in ("(401)", "(403)"):
        return RemoteError(f"access was denied{why}; check the credentials and their rights", final=True)
    if names & {"TimeoutError", "FSTimeoutError", "ReadTimeoutError", "ConnectTimeoutError", "ServerTimeoutError"}:
        return slow()
    if names & {"EndpointConnectionError", "ClientConnectorError", "ConnectionRefusedError", "gaierror"}:
        return RemoteError("the store cannot be reached; check the network and the endpoint")
    if isinstance(error, FileNotFoundError):
        return RemoteError("no such bucket, folder or file; check the address", final=True, missing=True)
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return RemoteError("is not a file; check the address", final=True)
    return RemoteError(f"it could not be read from the store ({type(error).__name__}{why})")


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and len(found) < 10:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _code_of(error: BaseException) -> str:
    """The code that a store has for an error, in brackets, where it is a plain word or number."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        code = response.get("Error", {}).get("Code") if isinstance(response, dict) else getattr(one, "status", None)
        if code is not None and re.fullmatch(r"[A-Za-z0-9]{1,40}", str(code)):
            return f"({code})"
    return ""
