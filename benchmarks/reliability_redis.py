"""The section on Redis in docs/reliability.md: runs and replays while a real redis-server fails in every way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError
from reliability_rows import Row, run, sections, told

from support.faulty_line import Line, line_to
from support.hostile_videos import clip_bytes
from support.lying_redis import LIES, Lie, lying_redis
from support.redis_server import RedisServer, launch, spare_port

CLIPS = 4
RETRY_S = 4
"""Less than the default of 30 s, so that the table does not take hours."""
_QUICK = "socket_timeout=2&socket_connect_timeout=2"


@dataclass(frozen=True)
class Fault:
    """One way to fail.

    Attributes:
        before: done to the server before the run starts.
        during: done when the run has found the server and reads its first source.
        after_s: seconds after `during` (or the start) at which `mend` is done; None for a fault that stays.
        credentials: of the URL.
        on_the_line: the server is reached through the connection that has the fault.
    """

    what: str
    before: Callable[[RedisServer, Line], object] | None = None
    during: Callable[[RedisServer, Line], object] | None = None
    after_s: float | None = None
    mend: Callable[[RedisServer, Line], object] | None = None
    credentials: str = ""
    options: tuple[str, ...] = ()
    on_the_line: bool = False


def config(name: str, value: str) -> Callable[[RedisServer, Line], object]:
    def change(server: RedisServer, line: Line) -> None:
        with server.client() as client:
            client.config_set(name, value)

    return change


def replica(*of: str) -> Callable[[RedisServer, Line], object]:
    def change(server: RedisServer, line: Line) -> None:
        with server.client() as client:
            client.replicaof(*of)

    return change


def stop(server: RedisServer, line: Line) -> None:
    server.stop()


def start(server: RedisServer, line: Line) -> None:
    server.start_again()


def signalled(number: signal.Signals) -> Callable[[RedisServer, Line], object]:
    return lambda server, line: os.kill(server.process.pid, number)


def dropped(server: RedisServer, line: Line) -> None:
    """The next connection is reset 20 kB into a pipeline."""
    line.cut_after[:] = [20_000]
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)


def slow(server: RedisServer, line: Line) -> None:
    line.bytes_per_second = 30_000


def other_password(server: RedisServer, line: Line) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "ann", "resetpass", ">n3w-pass")
        client.client_kill_filter(_type="normal", skipme=True)


_ANN = ("--user", "ann", "on", ">pw-of-ann", "~*", "+@all")
_ADDER = ("--user", "adder", "on", ">pw-of-adder", "~streamgate:*", "+xadd")
_SAVED = ("--appendonly", "yes", "--appendfsync", "always")

FAULTS = [
    Fault("no fault, for comparison"),
    Fault("a user with permission for XADD only", credentials="adder:pw-of-adder@", options=_ADDER),
    Fault("unavailable at the start", before=stop),
    Fault("unavailable at the start, back after 2 s", before=stop, after_s=2, mend=start),
    Fault("becomes unavailable midway", during=stop),
    Fault("is restarted midway, unavailable for 2 s", during=stop, after_s=2, mend=start, options=_SAVED),
    Fault("hangs midway (SIGSTOP)", during=signalled(signal.SIGSTOP)),
    Fault("hangs midway for 3 s", during=signalled(signal.SIGSTOP), after_s=3, mend=signalled(signal.SIGCONT)),
    Fault("a connection of 30 kB/s", during=slow, on_the_line=True),
    Fault("connection reset in the middle of a pipeline", during=dropped, on_the_line=True),
    Fault("out of memory midway", during=config("maxmemory", "1")),
    Fault("out of memory for 2 s", during=config("maxmemory", "1"), after_s=2, mend=config("maxmemory", "0")),
    Fault("a read-only replica", before=replica("127.0.0.1", "1")),
    Fault("becomes a read-only replica midway", during=replica("127.0.0.1", "1")),
    Fault("fails over: read-only for 2 s", during=replica("127.0.0.1", "1"), after_s=2, mend=replica("NO", "ONE")),
    Fault("too few replicas to write", during=config("min-replicas-to-write", "1")),
    Fault("wrong password", credentials="ann:wr0ng-pass@", options=_ANN),
    Fault("password changed midway", during=other_password, credentials="ann:pw-of-ann@", options=_ANN),
    Fault("takes no more clients", before=config("maxclients", "1")),
]


def redis_faults(folder: Path) -> str:
    """Every fault in a separate run; events that were not delivered are replayed to a working server afterwards."""
    clips = folder / "in"
    clips.mkdir()
    for number in range(CLIPS):
        (clips / f"clip{number}.mp4").write_bytes(clip_bytes() + b"\0\0\0\x09free" + bytes([number]))
    rows = [_under(fault, clips, folder / f"fault{number}") for number, fault in enumerate(FAULTS)]
    rows += [*_tls(clips, folder / "tls"), _killed(clips, folder / "killed"), *_replays(folder)]
    lies = [_lied_to(lie, clips, folder / f"lie{number}") for number, lie in enumerate(LIES)]
    text = (
        f"`run` over {CLIPS} clips with one face each, with `--sink` and `--sink-retry {RETRY_S}` (default 30) and "
        "timeouts of 2 s in the address, against a real redis-server. Results on disk are complete whenever the run "
        "started; missing events were then sent by `streamgate replay` to a working server. A server with invalid "
        "replies answers as Redis does until the run has started, and then answers everything with the given reply."
    )
    return sections("Redis", text, {"": rows, "A server with invalid replies": lies})


def _lied_to(lie: Lie, clips: Path, folder: Path) -> Row:
    """A run whose server sends invalid replies once the run has started."""
    folder.mkdir()
    out, done = folder / "out", threading.Event()
    with lying_redis(sound_adds=None) as server:

        def begin() -> None:
            while not (out / ".streamgate" / "manifest.json").exists() and not done.wait(0.01):
                pass
            server.lie = lie

        acting = threading.Thread(target=begin)
        acting.start()
        ran = run(["run", clips, "-o", out, "--sink", server.url(f"?{_QUICK}"), "--sink-retry", RETRY_S])
        done.set()
        acting.join()
    return Row.of(lie.what, "; ".join([*_told(ran.err, folder), _sources(out)]), ran)


def _under(fault: Fault, clips: Path, folder: Path) -> Row:
    folder.mkdir()
    server, out = launch(folder, *fault.options), folder / "out"
    with line_to(server.port) as line, server.client() as holder:
        if fault.before is not None:
            holder.ping()
            fault.before(server, line)
        port = line.port if fault.on_the_line else server.port
        url = f"redis://{fault.credentials}127.0.0.1:{port}/0?{_QUICK}"
        done = threading.Event()
        acting = threading.Thread(target=_act, args=(fault, server, line, out, done))
        acting.start()
        try:
            ran = run(["run", clips, "-o", out, "--sink", url, "--sink-retry", RETRY_S])
        finally:
            done.set()
            acting.join()
            arrived = _arrived(server)
            server.stop()
    words = [*_told(ran.err, folder), *arrived, _sources(out), *_replayed(ran.code, out, folder)]
    return Row.of(fault.what, "; ".join(words), ran)


def _act(fault: Fault, server: RedisServer, line: Line, out: Path, done: threading.Event) -> None:
    while fault.during is not None and not (out / ".streamgate" / "manifest.json").exists():
        if done.wait(0.01):
            return
    if fault.during is not None:
        fault.during(server, line)
    if fault.mend is not None and not done.wait(fault.after_s):
        fault.mend(server, line)


def _told(err: str, folder: Path) -> list[str]:
    """The command's last message if it failed; how often it reported waiting or continuing; no ports or folders."""
    lines = [line.removeprefix("streamgate: ") for line in err.splitlines() if line.startswith("streamgate:")]
    waits = sum("retrying" in line for line in lines)
    told = [line for line in lines if not line.startswith("warning:")]
    text = "; ".join([*(["waited"] if waits else []), *told])
    text = re.sub(r"127\.0\.0\.1:\d+/0\?[^\s:'`]*|127\.0\.0\.1:\d+(/0)?", "HOST", text)
    text = re.sub(r"--sink '(\S+)'", r"--sink \1", text)
    text = re.sub(rf"{re.escape(str(folder.parent))}\S*/(?=out|clip)", "", text)
    return [text] if text else []


def _arrived(server: RedisServer) -> list[str]:
    """How many finals the server has, each counted once; nothing if it is unavailable."""
    if server.process.poll() is not None:
        return []
    os.kill(server.process.pid, signal.SIGCONT)
    try:
        return [f"{len({entry['id'] for entry in server.entries()})} of {CLIPS} finals arrived"]
    except RedisError:
        return []


def _sources(out: Path) -> str:
    found = len(list(out.glob("*/source.json")))
    return f"on disk {found} of {CLIPS} sources" if found else "nothing was begun"


def _replayed(code: int, out: Path, folder: Path) -> list[str]:
    if code != 5 or not (out / "summary.json").exists():
        return []
    server = launch(folder / "sound")
    try:
        ran = run(["replay", out, "--sink", server.url()])
        return [f"replay: exit {ran.code}, {len({entry['id'] for entry in server.entries()})} finals arrived"]
    finally:
        server.stop()


@contextmanager
def _tls_server(folder: Path) -> Iterator[tuple[int, Path, RedisServer]]:
    import trustme

    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    port, pem, ca = spare_port(), str(folder / "server.pem"), str(folder / "ca.pem")
    server = launch(folder, "--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", pem,
                    "--tls-ca-cert-file", ca, "--tls-auth-clients", "no",
                    "--unixsocket", str(folder / "r.sock"))  # fmt: skip
    yield port, folder / "ca.pem", server
    server.stop()


def _tls(clips: Path, folder: Path) -> list[Row]:
    rows = []
    with _tls_server(folder) as (port, authority, server), server.client() as client:
        for number, (what, url) in enumerate((
            ("rediss, certificate not trusted", f"rediss://127.0.0.1:{port}/0"),
            ("rediss, its authority named", f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority}"),
            ("rediss to a server without TLS", f"rediss://127.0.0.1:{server.port}/0?{_QUICK}"),
            ("redis to a port with TLS", f"redis://127.0.0.1:{port}/0?{_QUICK}"),
            ("a unix socket", f"unix://{folder}/r.sock"),
        )):  # fmt: skip
            out = folder / f"out{number}"
            ran = run(["run", clips, "-o", out, "--sink", url, "--sink-retry", RETRY_S])
            words = "; ".join([*_told(ran.err, folder), *_arrived(server), _sources(out)])
            rows.append(Row.of(what, words, ran))
            client.flushall()
    return rows


def _killed(clips: Path, folder: Path) -> Row:
    """kill -9 between the commit of a source and the delivery of its events."""
    folder.mkdir()
    server, out = launch(folder), folder / "out"
    with line_to(server.port) as line:
        command = [sys.executable, "-m", "streamgate", "run", str(clips), "-o", str(out), "--sink", line.url]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (out / ".streamgate" / "manifest.json").exists():
            time.sleep(0.01)
        line.deaf = True
        while not list(out.glob("*/source.json")):
            time.sleep(0.01)
        process.kill()
        process.wait()
    ran = run(["run", clips, "-o", out, "--resume", "--sink", server.url()])
    arrived = {entry["id"] for entry in server.entries()}
    server.stop()
    words = f"`--resume`: {len(arrived)} of {CLIPS} finals arrived; {_sources(out)}"
    return Row.of("the run is killed (kill -9) with a source committed and not sent", words, ran)


def _replays(folder: Path) -> list[Row]:
    """`replay` of folders in every state."""
    whole = folder / "fault0" / "out"
    first = sorted(path.parent.name for path in whole.glob("*/source.json"))[0]

    def schema(out: Path) -> None:
        summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
        (out / "summary.json").write_text(json.dumps({**summary, "schema": 99}))

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def empty(out: Path) -> None:
        shutil.rmtree(out)
        out.mkdir()

    changes: list[tuple[str, Callable[[Path], object]]] = [
        ("replay of a whole folder", lambda out: None),
        ("replay, an image missing", lambda out: next((out / first).glob("track_*/1.png")).unlink()),
        ("replay, an image cut off", lambda out: cut(next((out / first).glob("track_*/1.png")))),
        ("replay, a source's records cut off", lambda out: cut(out / first / "faces.jsonl")),
        ("replay, a source's folder damaged", lambda out: (out / first / "source.json").unlink()),
        ("replay, the summary damaged", lambda out: cut(out / "summary.json")),
        ("replay of another schema", schema),
        ("replay of a folder that is not an output", empty),
    ]
    rows = []
    for number, (what, change) in enumerate(changes):
        out = folder / f"replay{number}" / "out"
        shutil.copytree(whole, out)
        change(out)
        server = launch(out.parent)
        ran = run(["replay", out, "--sink", server.url()])
        words = f"{told(ran, folder)}; {len(server.entries())} of {CLIPS} finals arrived".removeprefix("; ")
        server.stop()
        rows.append(Row.of(what, words, ran))
    return rows
