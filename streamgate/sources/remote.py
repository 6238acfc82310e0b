"""Reads footage in object stores through fsspec: in ranges, without downloading whole files, and with time limits."""

from __future__ import annotations

import io
import os
import re
import stat
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from streamgate.errors import SourceError
from streamgate.redaction import redact_url
from streamgate.sources.stores import BLOCK, WEB, RemoteError, fetched, info_of, listing_of, patience_s, slow

AHEAD = 2
"""Blocks to prefetch while a file is read sequentially."""
_BLOCKS, _BLOCKS_A_READER = 16, 4
"""Maximum number of blocks in memory: a base number, and an additional number for each open file."""
_STREAMS = frozenset(
    {"rtsp", "rtsps", "rtspt", "rtspu", "rtmp", "rtmps", "rtmpt", "rtmpe", "srt", "udp", "rtp", "tcp", "mms", "mmsh",
     "mmst", "rist", "hls", "webrtc", "whep", "onvif", "icecast", "gopher", "rtp+udp"}
)  # fmt: skip
"""Schemes of live streams; fsspec decides whether it supports any other scheme."""
_NOT_FOR_FOOTAGE = frozenset({"file", "local", "reference", "dask", "jlab", "jupyter", "generic", "data"})


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A file or folder in a store, with the part of `pathlib.Path`'s interface that sources use.

    Attributes:
        url: the full URL, which may contain credentials; `str()` of the path hides them.
        size: bytes of a file, None for a folder.
        version: the store's marker of the content's version, such as an ETag; may be empty.
    """

    url: str
    size: int | None = None
    version: str = ""

    def __str__(self) -> str:
        return redact_url(self.url)

    __repr__ = __str__

    @property
    def protocol(self) -> str:
        return self.url.partition("://")[0].lower()

    @property
    def key(self) -> str:
        """The path as text, without the protocol and, for HTTP, without the query string."""
        if self.protocol in WEB:
            return unquote(urlsplit(self.url).path)
        return self.url.partition("://")[2]

    @property
    def name(self) -> str:
        return self.key.rstrip("/").rpartition("/")[2]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        base, slash, query = self.url, "", ""
        if self.protocol in WEB:
            base, slash, query = self.url.partition("?")
        return RemotePath(base.rstrip("/").rpartition("/")[0] + slash + query)

    def resolve(self) -> RemotePath:
        return self

    def is_file(self) -> bool:
        return self.size is not None

    def relative_to(self, root: object) -> PurePosixPath:
        """The path relative to `root`. Raises ValueError if it is not below `root`."""
        if not isinstance(root, RemotePath):
            raise ValueError("a file in a store is not below a local folder")
        return PurePosixPath(self.key).relative_to(PurePosixPath(root.key.rstrip("/")))

    def stat(self) -> os.stat_result:
        """The size and type of the file or folder; all other fields are 0."""
        mode = stat.S_IFDIR if self.size is None else stat.S_IFREG
        return os.stat_result((mode, 0, 0, 0, 0, 0, self.size or 0, 0, 0, 0))

    def open(self, mode: str = "rb", *, ends: bool = False) -> RemoteReader:
        """Open the file for reading; `mode` must be "rb".

        Reading raises RemoteError. With `ends`, an error looks like the end of the file instead, and `trouble` returns
        the error.
        """
        return RemoteReader(self, ends=ends)

    @property
    def trouble(self) -> RemoteError | None:
        """The last error in reading the file since its path was created; None if there was none."""
        return _cache.trouble.get(self.url)


AnyPath = Path | RemotePath


def trouble_of(path: AnyPath) -> RemoteError | None:
    """The error with which reading a file in a store failed; None if reading did not fail or the file is local."""
    return path.trouble if isinstance(path, RemotePath) else None


def is_address(text: str) -> bool:
    """Whether `text` is a URL (rtsp://, s3://, ...) and not a path."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text)) and not text.startswith("file://")


def is_remote(text: str, media: frozenset[str] = frozenset()) -> bool:
    """Whether `text` is a URL in an object store, as opposed to a live stream.

    An HTTP URL counts only if its suffix is in `media`, the suffixes of media files.
    """
    if not is_address(text):
        return False
    scheme = text.partition("://")[0].lower()
    if scheme in WEB:
        return RemotePath(text).suffix.lower() in media
    return scheme not in _STREAMS | _NOT_FOR_FOOTAGE


class RemoteReader(io.RawIOBase):
    """A file in a store, with `read` and `seek` as for a local file. Use it in one thread at a time.

    With `ends`, a read error looks like the end of the file, because PyAV cannot pass errors on to FFmpeg.
    """

    def __init__(self, path: RemotePath, *, ends: bool = False) -> None:
        self._path = path
        self._ends = ends
        self._broken = False
        self._size = path.size or 0
        self._at = 0
        self._last = -2
        self.name = path.name  # FFmpeg uses the name to guess the format
        _cache.opened(1)

    def close(self) -> None:
        if not self.closed:
            _cache.opened(-1)
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, or fewer at the end of the file. Raises RemoteError unless `ends`."""
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        pieces = []
        while self._at < end and not self._broken:
            number, offset = divmod(self._at, BLOCK)
            try:
                piece = self._block(number)[offset : offset + end - self._at]
            except RemoteError:
                if not self._ends:
                    raise
                self._broken = True
                break
            pieces.append(piece)
            self._at += len(piece)
        return b"".join(pieces)

    def _block(self, number: int) -> bytes:
        data = _cache.block(self._path, number)
        if number == self._last + 1:
            for following in range(number + 1, number + 1 + AHEAD):
                if following * BLOCK < self._size:
                    _cache.prepare(self._path, following)
        self._last = number
        return data


class _Cache:
    """Least-recently-used cache of blocks of files in stores. Thread-safe."""

    def __init__(self) -> None:
        self.trouble: dict[str, RemoteError] = {}
        self.requested = 0
        """Bytes requested so far, for tests and benchmarks."""
        self._blocks: OrderedDict[tuple[RemotePath, int], Future[bytes]] = OrderedDict()
        self._readers = 0
        self._mutex = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def opened(self, change: int) -> None:
        with self._mutex:
            self._readers += change

    def prepare(self, path: RemotePath, number: int) -> Future[bytes]:
        """Request a block, unless it is cached or already requested."""
        key = (path, number)
        with self._mutex:
            found = self._blocks.get(key)
            if found is not None:
                self._blocks.move_to_end(key)
                return found
            if self._pool is None:
                self._pool = ThreadPoolExecutor(32, thread_name_prefix="streamgate-fetch")
            start, end = number * BLOCK, min((number + 1) * BLOCK, path.size or 0)
            self.requested += end - start
            future = self._pool.submit(fetched, path.url, start, end)
            self._blocks[key] = future
            most = _BLOCKS + _BLOCKS_A_READER * self._readers
            while len(self._blocks) > most:
                self._blocks.popitem(last=False)
            return future

    def block(self, path: RemotePath, number: int) -> bytes:
        """A block of a file; an earlier failure is retried unless it is final. Raises RemoteError."""
        if (trouble := self.trouble.get(path.url)) is not None and trouble.final:
            raise trouble
        future = self.prepare(path, number)
        try:
            data = future.result(patience_s())
        except TookTooLong:
            error = slow()
        except RemoteError as failed:
            error = failed
        else:
            return data
        with self._mutex:
            if self._blocks.get((path, number)) is future:
                del self._blocks[path, number]
        self.trouble[path.url] = error
        raise error


_cache = _Cache()


def remote_path(url: str) -> RemotePath:
    """The file or folder at a URL. Raises RemoteError."""
    info = info_of(url)
    return RemotePath(url) if info.get("type") == "directory" else _file(url, info)


def remote_files(url: str, *, pattern: bool = False) -> list[RemotePath]:
    """All files below a URL, or everything that matches its pattern, in no particular order. Raises RemoteError."""
    scheme = url.partition("://")[0]
    paths = []
    for name, info in listing_of(url, pattern=pattern).items():
        address = name if is_address(name) else f"{scheme}://{name}"
        if info.get("type") == "directory":
            if pattern:
                paths.append(RemotePath(address))
        elif not name.endswith("/"):  # an empty object whose name ends in / represents a folder
            paths.append(_file(address, info))
    return paths


def _file(url: str, info: dict[str, Any]) -> RemotePath:
    _cache.trouble.pop(url, None)
    size = info.get("size")
    if not isinstance(size, int):
        raise RemoteError(
            "the server does not report the file's size, so the file cannot be read; download it and give its path",
            final=True,
        )
    marks = (info.get(name) for name in ("ETag", "etag", "LastModified", "mtime", "updated", "last_modified"))
    return RemotePath(url, size, str(next((mark for mark in marks if mark), "")))


def unreadable_remote(error: RemoteError, location: str) -> SourceError:
    return SourceError(f"{location}: {error.words}", location)
