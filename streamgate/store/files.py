"""Files that are whole or not there: atomic writes, the lock of an output folder, errors in plain words."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO

from streamgate.errors import SinkError

_REMEDIES = {
    errno.ENOSPC: "no space left on the disk; free some or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file is too large for this file system; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "no permission to write here; change it or choose another folder",
    errno.EPERM: "no permission to write here; change it or choose another folder",
    errno.ENOTDIR: "is a file where a folder is needed; move it or choose another folder",
    errno.EEXIST: "is a file where a folder is needed; move it or choose another folder",
    errno.EISDIR: "is a folder where a file is needed; move it or choose another folder",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
    errno.ELOOP: "goes round in symbolic links; choose another folder",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n) or lower --jobs",
    errno.ENFILE: "too many open files in the whole system; close some programs",
    errno.EIO: "the disk reports an input/output error; check it or choose another folder",
}

_ENDING_S = 10.0


@contextmanager
def sink_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a SinkError of one line: the path, what is wrong, the remedy."""
    try:
        yield
    except OSError as error:
        raise sink_error(error, path) from error


def sink_error(error: OSError, path: Path) -> SinkError:
    """The SinkError that says `error` in plain words; it names the error's own path where that lies below."""
    named = path
    if isinstance(error.filename, (str, bytes)):
        own = Path(os.fsdecode(error.filename))
        named = own if own.is_relative_to(path) or path.is_relative_to(own) else path
    reason = _REMEDIES.get(error.errno or 0) or f"{error.strerror or error}; choose another folder"
    return SinkError(f"cannot write {named}: {reason}")


def write_bytes(path: Path, data: bytes) -> None:
    """Write `path` atomically and durably. Raises OSError; then the old file, if any, is still whole."""
    with atomic_writer(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes `path`'s place when the block ends well, and vanishes when it does not.

    It lies in the same folder, since a rename is atomic only inside one file system. One writer a path at a
    time. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        # "x" never follows a symbolic link that someone else put there, and keeps the umask's permissions.
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_line(path: Path, text: str) -> None:
    """Append a line durably. A line torn by an earlier crash is closed off first. Raises OSError."""
    with open(path, "a+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(text.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Make everything in `folder` durable. Raises OSError."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def rename_folder(folder: Path, final: Path) -> None:
    """Give `folder` its final name in one durable step. Raises OSError.

    Fails when something other than an empty folder already has that name.
    """
    os.rename(folder, final)
    sync_folder(final.parent)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make names in `folder` durable; file systems that cannot are left alone."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def link_or_copy(folder: Path, name: str, target: Path) -> None:
    """Give `folder`/`name` (with `/`) the same name below `target`: a hard link, or a copy where there are none.

    Raises OSError, also for a name that leads out of `folder` and for anything that is no plain file.
    """
    parts = PurePosixPath(name).parts
    path = folder.joinpath(*parts)
    inside = bool(parts) and ".." not in parts and not PurePosixPath(name).is_absolute()
    if not inside or any(one.is_symlink() for one in (path, *path.parents[: len(parts)])) or not path.is_file():
        raise OSError(errno.ENOENT, "is missing or no plain file; run its source again", str(path))
    made = target.joinpath(*parts)
    made.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, made)
    except OSError:
        shutil.copyfile(path, made)


def remove_listed(root: Path, files: Iterable[str]) -> None:
    """Remove `files` (relative to `root`, with `/`) and the folders that this empties. Raises OSError.

    What is missing is passed over; so is every name that leads out of `root`, by `..` or by a symbolic link,
    for the list comes from a file that others can edit.
    """
    folders: set[Path] = set()
    for name in files:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute():
            continue
        parents = [root.joinpath(*parts[:depth]) for depth in range(1, len(parts))]
        if any(parent.is_symlink() or not parent.is_dir() for parent in parents):
            continue
        path = root.joinpath(*parts)
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        folders.update(parents)
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        with suppress(OSError):  # not empty: somebody else's file is in there and stays
            folder.rmdir()


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours with all it holds; whatever refuses stays. Never raises."""
    shutil.rmtree(folder, ignore_errors=True)


class Lock:
    """One run an output folder at a time, by `flock` on a file that stays.

    The system releases it when every process that holds it has ended in whatever way; a process may share it with
    the one it was forked from, or with another by its descriptor.

    Args:
        path: the file, OUT/.streamgate/lock.
        holder: the process to name to others, this one by default.
    """

    def __init__(self, path: Path, *, holder: int | None = None) -> None:
        self._path = path
        self._holder = os.getpid() if holder is None else holder
        self._file: IO[bytes] | None = None

    @classmethod
    def held(cls, path: Path, descriptor: int) -> Lock:
        """The lock that another process took and gave this one by its `descriptor`."""
        lock = cls(path)
        lock._file = os.fdopen(descriptor, "a+b")
        return lock

    def acquire(self) -> None:
        """Take the lock; does nothing when it is held already. Raises SinkError when another run holds it.

        A run that has been killed may leave a process that is ending, for as long as the disk makes it wait: that
        one is waited for, ten seconds at most.
        """
        if self._file is not None:
            return
        patience = time.monotonic() + _ENDING_S
        while (other := self._try()) is not None:
            if time.monotonic() > patience or not (other.isdigit() and _has_ended(int(other))):
                process = f" (process {other})" if other.isdigit() else ""
                raise SinkError(
                    f"{self._path.parent.parent} is in use by another run{process}; wait for it to end or choose "
                    "another folder with -o"
                )
            time.sleep(0.05)

    def _try(self) -> str | None:
        """Take the lock, or tell who holds it."""
        with sink_errors(self._path):
            file = open(self._path, "a+b")  # noqa: SIM115 - it stays open as long as the lock is held
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.truncate(0)
                file.write(b"%d\n" % self._holder)
                file.flush()
            except BlockingIOError:
                file.seek(0)
                holder = file.read(32).decode("ascii", "replace").strip()
                file.close()
                return holder
            except BaseException:
                file.close()
                raise
            self._file = file
            return None

    def fileno(self) -> int:
        """The descriptor of the held lock, to share it. Raises ValueError when it is not held."""
        if self._file is None:
            raise ValueError("the lock is not held")
        return self._file.fileno()

    def release(self) -> None:
        """Let the next run in; does nothing when the lock is not held."""
        if self._file is not None:
            # The file stays: removing it would let a third run lock a new one beside a waiting second.
            self._file.close()
            self._file = None


def _has_ended(process: int) -> bool:
    """Whether there is no such process, or only its entry that nobody has asked for yet."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    with suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False
