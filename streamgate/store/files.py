"""Atomic writing and removal of files inside a given folder, with readable error messages."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from streamgate.errors import SinkError
from streamgate.store.layout import parts_of

_REMEDIES = {
    errno.ENOSPC: "no space left on the disk; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file is too large for this file system; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "no permission to write here; change the permissions or choose another folder",
    errno.EPERM: "no permission to write here; change the permissions or choose another folder",
    errno.ENOTDIR: "it is a file where a folder is needed; move it or choose another folder",
    errno.EEXIST: "it is a file where a folder is needed; move it or choose another folder",
    errno.EISDIR: "it is a folder where a file is needed; move it or choose another folder",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
    errno.ELOOP: "the path has a loop of symbolic links; choose another folder",
    errno.EINVAL: "it is not a regular file; remove it or choose another folder",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n) or lower --jobs",
    errno.ENFILE: "too many open files in the whole system; close some programs",
    errno.EIO: "the disk reports an input/output error; check the disk or choose another folder",
}


@contextmanager
def sink_errors(path: Path) -> Iterator[None]:
    """Convert an OSError raised in the block to a SinkError, whose one-line message names the path, the problem and the
    remedy."""
    try:
        yield
    except OSError as error:
        raise sink_error(error, path) from error


def sink_error(error: OSError, path: Path) -> SinkError:
    """The SinkError that explains `error`.

    The message names the path in `error` if that path is inside `path` or is a parent of `path`; otherwise, it names
    `path`.
    """
    named = path
    if isinstance(error.filename, (str, bytes)):
        own = Path(os.fsdecode(error.filename))
        named = own if own.is_relative_to(path) or path.is_relative_to(own) else path
    if os.path.islink(named):
        return SinkError(f"cannot write {named}: it is a symbolic link, which is not followed; remove it")
    reason = _REMEDIES.get(error.errno or 0) or f"{error.strerror or error}; choose another folder"
    return SinkError(f"cannot write {named}: {reason}")


def write_bytes(root: Path, name: str, data: bytes) -> None:
    """Write the file `name` below `root` atomically and durably.

    Raises OSError; in that case, an existing file is unchanged.
    """
    with atomic_writer(root, name) as file:
        file.write(data)


def write_text(root: Path, name: str, text: str) -> None:
    """Like `write_bytes`, for text as UTF-8."""
    write_bytes(root, name, text.encode())


@contextmanager
def atomic_writer(root: Path, name: str) -> Iterator[IO[bytes]]:
    """A temporary file that replaces `name` when the block succeeds, and is removed when the block fails.

    The temporary file is in the same folder, since a rename is atomic only within one file system. A file must not have
    two writers at the same time. Raises OSError.
    """
    path, parts = _parts(root, name)
    temporary = f".{path.name}.tmp"
    with _folder(root, parts[:-1]) as folder:
        try:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            # O_EXCL never follows a symbolic link that someone else put there.
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException as error:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            if isinstance(error, OSError) and not error.filename:
                error.filename = str(path)
            raise
        _sync(folder)


def append_line(root: Path, name: str, text: str) -> None:
    """Append a line durably. If a crash left a partial line at the end, that line is terminated first. Raises OSError.

    If the file has several hard links (because the folder was copied with hard links), it is replaced by a new file, so
    that the copy does not change.
    """
    line = text.encode() + b"\n"
    with open_own(root, name, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            line = line if file.read(1) == b"\n" else b"\n" + line
        if os.fstat(file.fileno()).st_nlink > 1:
            file.seek(0)
            with atomic_writer(root, name) as whole:
                shutil.copyfileobj(file, whole)
                whole.write(line)
            return
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    sync_folder((root / name).parent)


def sync_tree(folder: Path) -> None:
    """Flush everything in `folder` to disk. Raises OSError."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def rename_folder(root: Path, name: str, final: str) -> None:
    """Rename the folder `name` to `final`, both below `root`, atomically and durably. Raises OSError.

    Fails if `final` exists and is not an empty folder.
    """
    (path, parts), (target, others) = _parts(root, name), _parts(root, final)
    with _folder(root, parts[:-1]) as here, _folder(root, others[:-1]) as there:
        try:
            os.rename(path.name, target.name, src_dir_fd=here, dst_dir_fd=there)
        except OSError as error:
            raise _named(error, target) from None
        _sync(there)
        _sync(here)


def sync_folder(folder: Path) -> None:
    """Flush the directory entries of `folder` to disk; does nothing on file systems that do not support this."""
    with _folder(folder, ()) as descriptor:
        _sync(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def open_below(root: Path, name: str) -> IO[bytes]:
    """Open the regular file `name` (`/`-separated, relative to `root`) for reading.

    No link below `root` is followed, and opening a pipe does not block. Raises OSError, including when `name` leads out
    of `root` or is not a regular file.
    """
    path, parts = _parts(root, name)
    with _folder(root, parts[:-1]) as folder:
        try:
            descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            raise _named(error, path) from None
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return file


def open_own(root: Path, name: str, flags: int) -> IO[bytes]:
    """Open the regular file `name` below `root` for reading and writing; no link is followed. Raises OSError."""
    path, parts = _parts(root, name)
    with _folder(root, parts[:-1]) as folder:
        try:
            descriptor = os.open(
                path.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666, dir_fd=folder
            )
        except OSError as error:
            raise _named(error, path) from None
    file = os.fdopen(descriptor, "a+b" if flags & os.O_APPEND else "r+b")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return file


def make_folder(root: Path, name: str, mode: int = 0o777) -> Path:
    """Create the folder `name` below `root`, and its missing parents, with `mode`.

    Raises OSError, including when a part of the path is a link.
    """
    path, parts = _parts(root, name)
    with _folder(root, parts, make=mode):
        return path


def link_or_copy(root: Path, name: str, target: Path) -> None:
    """Create `target` as a hard link to the file `name` below `root`, or as a copy if hard links are not supported.

    Raises OSError, including when `name` leads out of `root` or is not a regular file.
    """
    with open_below(root, name) as file:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(root / name, target, follow_symlinks=False)
        except OSError:
            with open(target, "xb") as copy:
                shutil.copyfileobj(file, copy)


def remove_listed(root: Path, names: Iterable[str]) -> None:
    """Remove the files `names` (`/`-separated, relative to `root`) and the folders that become empty. Raises OSError.

    Missing files are skipped. Names that lead out of `root` by `..` or a symbolic link are skipped as well, since the
    list comes from a file that others can edit.
    """
    folders: set[tuple[str, ...]] = set()
    for name in names:
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            _, parts = _parts(root, name)
            with _folder(root, parts[:-1]) as folder:
                os.unlink(parts[-1], dir_fd=folder)
            folders.update(parts[:depth] for depth in range(1, len(parts)))
    for parts in sorted(folders, key=len, reverse=True):
        # If a folder is not empty, it contains other files and is not removed.
        with suppress(OSError), _folder(root, parts[:-1]) as folder:
            os.rmdir(parts[-1], dir_fd=folder)


def remove_tree(root: Path, name: str) -> None:
    """Remove the file or the folder tree `name` below `root`, as far as possible. Never raises.

    Nothing outside `root` is removed: links are removed, but not their targets.
    """
    with suppress(OSError):
        _, parts = _parts(root, name)
        with _folder(root, parts[:-1]) as folder:
            if stat.S_ISDIR(os.lstat(parts[-1], dir_fd=folder).st_mode):
                shutil.rmtree(parts[-1], ignore_errors=True, dir_fd=folder)
            else:
                os.unlink(parts[-1], dir_fd=folder)


def _parts(root: Path, name: str) -> tuple[Path, tuple[str, ...]]:
    try:
        parts = parts_of(name)
    except ValueError as error:
        raise FileNotFoundError(errno.ENOENT, str(error), str(root)) from None
    return root.joinpath(*parts), parts


@contextmanager
def _folder(root: Path, parts: Sequence[str], *, make: int | None = None) -> Iterator[int]:
    """The descriptor of a folder below `root`. No link is followed. Raises OSError.

    If `make` is given, missing folders are created with this mode.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for depth, part in enumerate(parts, 1):
            try:
                if make is not None:
                    with suppress(FileExistsError):
                        os.mkdir(part, make, dir_fd=descriptor)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                further = os.open(part, flags, dir_fd=descriptor)
            except OSError as error:
                raise _named(error, root.joinpath(*parts[:depth])) from None
            os.close(descriptor)
            descriptor = further
        yield descriptor
    finally:
        os.close(descriptor)


def _named(error: OSError, path: Path) -> OSError:
    """The error with its full path; if the path is a link, an error that says so."""
    if os.path.islink(path):
        return NotADirectoryError(errno.ENOTDIR, "is a symbolic link, which is not followed", str(path))
    return OSError(error.errno, error.strerror, str(path))
