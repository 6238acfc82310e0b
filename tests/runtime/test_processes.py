"""The worker process: heard, stopped, killed, and gone with its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.killing import is_alive

BEGIN = """
import os, signal, sys, time
from streamgate.errors import SinkError, StreamgateError
from streamgate.runtime import processes
from streamgate.runtime.processes import Worker, run_in_process

def recv(worker):
    heard = []
    try:
        while True:
            heard += worker.recv()
    except EOFError:
        return heard, worker.wait()
"""


def python(code: str, *arguments: object) -> str:
    """Output of a fresh interpreter: this one has threads, so it must not fork."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_messages_of_any_size_arrive_in_order_and_an_end_is_an_end() -> None:
    out = python("""
def work(channel):
    for number in range(100):
        channel.send(number)
    channel.send(b"x" * (5 << 20))
heard, how = recv(Worker.start(work))
print(heard[:100] == list(range(100)), len(heard[100]), repr(how))
""")
    assert out.split() == ["True", str(5 << 20), "''"]


def test_an_open_file_comes_with_its_message(tmp_path: Path) -> None:
    out = python("""
def work(channel):
    file = open(sys.argv[1], "w+")
    file.write("hello")
    file.flush()
    channel.send("before")
    channel.send("this", file.fileno())
    channel.send("after")
worker = Worker.start(work)
heard, how = recv(worker)
print(heard, os.pread(worker.files[0], 10, 0))
""", tmp_path / "file")  # fmt: skip
    assert out.strip() == "['before', 'this', 'after'] b'hello'"


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9, SIGKILL"),
        ("os.abort()", "killed by signal 6, SIGABRT"),
        ("os._exit(7)", "exit code 7"),
        ("raise ValueError", "exit code 1"),
    ],
)
def test_how_a_worker_ended_is_told_and_what_it_sent_before_is_heard(end: str, how: str) -> None:
    out = python(f"""
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
def work(channel):
    channel.send("last words")
    {end}
print(recv(Worker.start(work)))
""")
    assert out.strip() == str((["last words"], how))


def test_a_worker_is_asked_to_stop_by_its_parent_or_by_a_signal() -> None:
    out = python("""
def work(channel):
    channel.send(os.getpid())
    channel.send(channel.stop.wait(30))
for way in ("asked", "signal", "before"):
    worker = Worker.start(work, stopping=way == "before")
    pid, *told = worker.recv()
    if way == "asked":
        worker.stop()
    if way == "signal":
        os.kill(pid, signal.SIGTERM)
    print(way, told + recv(worker)[0])
""")
    assert [line.split()[1] for line in out.splitlines()] == ["[True]"] * 3


@pytest.mark.parametrize("told_by_the_system", [True, False])
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_worker_ends_with_its_parent(told_by_the_system: bool) -> None:
    """By the system's signal, and where there is none by the end of the socket."""
    code = "" if told_by_the_system else "processes._die_with = lambda parent: None\n"
    parent = subprocess.Popen(
        [sys.executable, "-c", BEGIN + code + """
def work(channel):
    channel.send(os.getpid())
    time.sleep(100)
worker = Worker.start(work)
print(*worker.recv(), flush=True)
time.sleep(100)
"""],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    worker = int(parent.stdout.readline())
    assert is_alive(worker)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 30
    while is_alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_call_made_apart_leaves_nothing_behind_but_its_effect_or_its_error(tmp_path: Path) -> None:
    out = python("""
def fails(error):
    raise error
run_in_process(lambda: (__import__("decimal"), open(sys.argv[1], "w").write("done")))
print("decimal" in sys.modules)
for error in (SinkError("full"), ValueError("odd")):
    try:
        run_in_process(lambda: fails(error))
    except StreamgateError as told:
        print(type(told).__name__, told)
try:
    run_in_process(lambda: os.kill(os.getpid(), signal.SIGKILL))
except StreamgateError as told:
    print(told)
""", tmp_path / "effect")  # fmt: skip
    assert (tmp_path / "effect").read_text() == "done"
    told = out.splitlines()
    assert told[:2] == ["False", "SinkError full"]
    assert "internal error (ValueError: odd)" in told[2] and "SIGKILL" in told[3]


def test_the_parent_of_a_run_loads_nothing_that_starts_threads() -> None:
    code = (
        "import sys; import streamgate.cli, streamgate.commands.parent, streamgate.commands.progress;"
        "print([name for name in ('numpy', 'av', 'cv2', 'onnxruntime', 'pydantic', 'redis') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.strip() == "[]", done.stderr
