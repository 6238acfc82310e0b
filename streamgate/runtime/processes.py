"""A worker process that is forked from a small parent, is connected to it by a socket, and ends when the parent ends.

Forking takes about 1 ms, while starting an interpreter takes 50 ms. Forking is safe as long as the parent has only one
thread, so the parent must not load anything that starts threads: no numpy, no decoder, no inference runtime.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import Any

from streamgate.errors import StreamgateError, unexpected

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_LENGTH = struct.Struct(">Q")
_STOP = b"s"
_PARENT_GONE = 71
"""Exit status of a worker whose parent is gone (EX_OSERR)."""
_PR_SET_PDEATHSIG = 1


class Channel:
    """The worker's end of the connection to its parent. Thread-safe.

    Attributes:
        stop: set when the parent or a signal asks the worker to stop.
    """

    def __init__(self, connection: socket.socket, stop: threading.Event) -> None:
        self.stop = stop
        self._connection = connection
        self._mutex = threading.Lock()

    def send(self, message: object, file: int | None = None) -> None:
        """Send a message, optionally with an open file's descriptor. Once sent, a message arrives even if the worker
        dies."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        frame = _LENGTH.pack(len(data)) + data
        try:
            with self._mutex:
                sent = 0 if file is None else socket.send_fds(self._connection, [frame], [file])
                self._connection.sendall(frame[sent:])
        except OSError:
            os._exit(_PARENT_GONE)

    def listen(self) -> None:
        """Start a thread that receives requests from the parent."""
        threading.Thread(target=self._recv_loop, name="streamgate-parent", daemon=True).start()

    def _recv_loop(self) -> None:
        while self._recv_byte() == _STOP:
            self.stop.set()
        # End of file means that the parent has died: the results are no longer needed, and the lock on OUT must be
        # released.
        os._exit(_PARENT_GONE)

    def _recv_byte(self) -> bytes:
        try:
            return self._connection.recv(1)
        except OSError:
            return b""


class Worker:
    """The parent's end of the connection: receives messages, asks the worker to stop, kills it, and reports how it
    ended."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.files: list[int] = []
        """File descriptors that arrived with messages and have not been taken yet."""
        self._pid: int | None = pid
        self._connection = connection
        self._buffer = bytearray()
        self._status = 0

    @classmethod
    def start(cls, work: Callable[[Channel], None], *, stopping: bool = False) -> Worker:
        """Fork a process that runs `work` and then exits; with `stopping`, `stop` is set in the worker from the start.

        In the worker, SIGINT and SIGTERM also set `stop`, because a terminal sends Ctrl-C to both processes. Raises
        StreamgateError when the system cannot start another process.
        """
        ours, theirs = socket.socketpair()
        _flush()  # otherwise the child would print buffered output again
        parent = os.getpid()
        # A signal that arrived before the child has set its own handlers would run the parent's handlers in the child.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                try:
                    ours.close()
                    _run_worker(work, theirs, parent, mask, stopping)
                finally:
                    # No code of the parent may run in the child: no handler, and no cleanup of the parent's files.
                    os._exit(1)
        except OSError as error:
            ours.close()
            raise StreamgateError(
                f"cannot start a process ({error.strerror}); close some programs and try again"
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        return cls(pid, ours)

    def recv(self, timeout: float | None = None) -> list[Any]:
        """Wait at most `timeout` seconds and return the received messages; raises EOFError when no more can arrive."""
        if not select.select([self._connection], [], [], timeout)[0]:
            return []
        try:
            data, files, _, _ = socket.recv_fds(self._connection, 1 << 16, 1)
        except ConnectionResetError:
            data, files = b"", []
        self.files += files
        if not data:
            raise EOFError
        self._buffer += data
        found = []
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            found.append(pickle.loads(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
        return found

    def stop(self) -> None:
        """Ask the worker to stop; asking again has no effect. May be called from a signal handler."""
        with suppress(OSError):  # the worker may have ended already; `recv` reports that
            self._connection.send(_STOP)

    def kill(self) -> None:
        """Kill the worker if it is still running. May be called from a signal handler."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> str:
        """Wait for the worker to end; returns how it ended, "" for a normal exit."""
        if self._pid is not None:
            _, self._status = os.waitpid(self._pid, 0)
            self._pid = None
            self._connection.close()
        return _exit_text(self._status)


def run_in_process(call: Callable[[], None]) -> None:
    """Call a function in a separate process, so that its modules are not loaded here. Raises StreamgateError.

    The call cannot be stopped early; if this process is killed, the separate process ends too.
    """

    def work(channel: Channel) -> None:
        try:
            call()
        except StreamgateError as error:
            channel.send(error)
        except Exception as error:
            if os.environ.get("STREAMGATE_DEBUG"):
                traceback.print_exc()
            channel.send(unexpected(error))

    worker = Worker.start(work)
    try:
        while True:
            for error in worker.recv():
                raise error
    except EOFError:
        how = worker.wait()
    finally:
        worker.kill()
        worker.wait()
    if how:
        raise StreamgateError(f"a worker process died ({how}); if memory did not run out, please report this")


def _run_worker(
    work: Callable[[Channel], None], connection: socket.socket, parent: int, mask: Iterable[int], stopping: bool
) -> None:
    _die_with(parent)
    # The parent's progress bar may have replaced the standard streams.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    stop = threading.Event()

    def handle(signum: int, frame: FrameType | None) -> None:
        stop.set()

    for number in STOP_SIGNALS:
        signal.signal(number, handle)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if stopping:
        stop.set()
    channel = Channel(connection, stop)
    channel.listen()
    work(channel)
    _flush()
    os._exit(0)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None if the calling process has closed the stream
            stream.flush()


def _die_with(parent: int) -> None:
    """Have the system kill this process when its parent ends.

    This works on Linux only; elsewhere, the process ends when it finds that the socket is closed.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(_PARENT_GONE)  # the parent ended before prctl was called


def _exit_text(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            return f"killed by signal {number}"
        return f"killed by signal {number}, {name}"
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code else ""
