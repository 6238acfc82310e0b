"""The lock of an output folder, which allows only one command at a time to write to it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from streamgate.errors import SinkError, display
from streamgate.store import files
from streamgate.store.layout import STATE_DIR

_NAME = f"{STATE_DIR}/lock"
_ENDING_S = 10.0


class Lock:
    """Keeps other processes from writing to a folder, by `flock` on the permanent file OUT/.streamgate/lock.

    The system releases the lock when all processes that hold it have ended, even after a crash. A process may inherit
    the lock from its parent, or pass its descriptor to another process. The lock is a context manager.

    Args:
        folder: the folder, which must exist.
        name: the lock file, `/`-separated and relative to the folder.
        holder: the process id that other processes name in their error message; by default, the id of this process.
    """

    def __init__(self, folder: Path, name: str = _NAME, *, holder: int | None = None) -> None:
        self._folder = Path(folder)
        self._name = name
        self._holder = os.getpid() if holder is None else holder
        self._file: IO[bytes] | None = None

    @classmethod
    def held(cls, folder: Path, descriptor: int) -> Lock:
        """The lock that another process acquired and passed to this process as `descriptor`."""
        lock = cls(folder)
        lock._file = os.fdopen(descriptor, "r+b")
        return lock

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Acquire the lock; does nothing if it is already held. Raises SinkError if another process holds it.

        If that process was killed and is still exiting (for example, because it must finish disk writes), `acquire`
        waits up to ten seconds.
        """
        if self._file is not None:
            return
        patience = time.monotonic() + _ENDING_S
        while (other := self._try()) is not None:
            if time.monotonic() > patience or not (other.isdigit() and _has_ended(int(other))):
                process = f" (process {other})" if other.isdigit() else ""
                raise SinkError(
                    f"{display(self._folder)} is in use by another run{process}; wait for it to end or choose another "
                    "folder with -o"
                )
            time.sleep(0.05)

    def _try(self) -> str | None:
        """Acquire the lock and return None, or return the id of the process that holds it."""
        with files.sink_errors(self._folder):
            file = files.open_own(self._folder, self._name, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # If the file has hard links elsewhere, writing to it would change those files too.
                if os.fstat(file.fileno()).st_nlink == 1:
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
        """The descriptor of the held lock, to pass it to another process. Raises ValueError if it is not held."""
        if self._file is None:
            raise ValueError("the lock is not held")
        return self._file.fileno()

    def release(self) -> None:
        """Release the lock; does nothing if it is not held."""
        if self._file is not None:
            # Do not remove the file: while a second run waits for it, a third run could lock a new file of that name.
            self._file.close()
            self._file = None


@contextmanager
def unchanged(out: Path) -> Iterator[None]:
    """Keep runs out of the folder while it is read. Raises SinkError if a run is using the folder."""
    try:
        file = files.open_below(out, _NAME)
    except OSError:
        # If there is no lock file, the folder is only a copy of results, to which no run writes.
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SinkError(f"{display(out)} is in use by a run; wait for it to end") from None
        except OSError:
            pass  # the file system does not support locks
        yield


def _has_ended(process: int) -> bool:
    """Whether the process does not exist or is a zombie."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    with suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False
