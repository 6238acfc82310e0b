"""A worker process: forked from a small parent that outlives it, heard over a socket, gone when the parent is.

Forking costs a millisecond where starting an interpreter costs fifty, and is safe as long as the parent has one
thread. So the parent must load nothing that starts threads: no numpy, no decoder, no inference runtime.
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
"""Exit status of a worker that nobody listens to any more (EX_OSERR)."""
_PR_SET_PDEATHSIG = 1


class Channel:
    """The worker's end of the socket. Thread-safe.

    Attributes:
        stop: set when the parent or a signal asks the worker to come to an end.
    """

    def __init__(self, connection: socket.socket, stop: threading.Event) -> None:
        self.stop = stop
        self._connection = connection
        self._mutex = threading.Lock()

    def send(self, message: object, file: int | None = None) -> None:
        """Send a message, and with it an open file by its descriptor. What is sent is heard, whatever comes then."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        frame = _LENGTH.pack(len(data)) + data
        try:
            with self._mutex:
                sent = 0 if file is None else socket.send_fds(self._connection, [frame], [file])
                self._connection.sendall(frame[sent:])
        except OSError:
            os._exit(_PARENT_GONE)

    def listen(self) -> None:
        """Hear the parent from now on, in a thread."""
        threading.Thread(target=self._recv_loop, name="streamgate-parent", daemon=True).start()

    def _recv_loop(self) -> None:
        while self._recv_byte() == _STOP:
            self.stop.set()
        # The end of the socket is the end of the parent: nobody waits for results, and OUT must become free.
        os._exit(_PARENT_GONE)

    def _recv_byte(self) -> bytes:
        try:
            return self._connection.recv(1)
        except OSError:
            return b""


class Worker:
    """The parent's end: hears messages, asks to stop, kills, and knows how the worker ended."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.files: list[int] = []
        """Descriptors that came with messages and were not taken yet."""
        self._pid: int | None = pid
        self._connection = connection
        self._buffer = bytearray()
        self._status = 0

    @classmethod
    def start(cls, work: Callable[[Channel], None], *, stopping: bool = False) -> Worker:
        """Fork a process that runs `work` and ends with it, its `stop` set from the start if `stopping`.

        SIGINT and SIGTERM set `stop` there: a terminal sends Ctrl-C to both processes. Raises StreamgateError when
        the system has no room for a process.
        """
        ours, theirs = socket.socketpair()
        _flush()  # what waits in a buffer would be printed twice
        parent = os.getpid()
        # A signal between the fork and the child's own handlers would run the parent's in the child.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                try:
                    ours.close()
                    _run_worker(work, theirs, parent, mask, stopping)
                finally:
                    # Nothing of the parent's may run here: no handler, no clean-up of its files.
                    os._exit(1)
        except OSError as error:
            ours.close()
            raise StreamgateError(f"no process can be started ({error.strerror}); close some programs") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        return cls(pid, ours)

    def recv(self, timeout: float | None = None) -> list[Any]:
        """The messages that have come, waiting for at most `timeout` seconds; raises EOFError when none can come."""
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
        """Ask the worker to come to an end; asking again does nothing. May be called by a signal's handler."""
        with suppress(OSError):  # it may have ended already, which `recv` tells
            self._connection.send(_STOP)

    def kill(self) -> None:
        """End the worker at once, if it lives. May be called by a signal's handler."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> str:
        """Wait for the worker's end; says how it ended: "" when as it should."""
        if self._pid is not None:
            _, self._status = os.waitpid(self._pid, 0)
            self._pid = None
            self._connection.close()
        return _exit_text(self._status)


def run_in_process(call: Callable[[], None]) -> None:
    """Make a call in a process of its own, so that what it loads stays out of this one. Raises StreamgateError.

    Nothing stops it before its end; whoever kills this process ends it too.
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
        raise StreamgateError(f"a process died ({how}); if memory did not run out, please report it")


def _run_worker(
    work: Callable[[Channel], None], connection: socket.socket, parent: int, mask: Iterable[int], stopping: bool
) -> None:
    _die_with(parent)
    # A progress bar of the parent's may have put something of its own in their place.
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
        if stream is not None:  # closed by whoever started us
            stream.flush()


def _die_with(parent: int) -> None:
    """Let the system kill this process when its parent ends; elsewhere than on Linux the socket's end has to do."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(_PARENT_GONE)  # it ended before the call


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
