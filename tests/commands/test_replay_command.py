"""`streamgate replay`: a finished folder once more, through the command, to a real redis-server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streamgate.sinks.disk import DiskSink
from support.command import inside, lines, streamgate
from support.faulty_line import line_to
from support.hostile import run_limited
from support.hostile_videos import clip_bytes
from support.media import plain_frames, write_clip
from support.real_weights import standard_models
from support.redis_server import RedisServer, TlsServer

if TYPE_CHECKING:
    from support.sink_values import Make

Start = Callable[..., RedisServer]


def finished(make: Make, folder: Path, names: str = "ab", tracks: int = 0) -> Path:
    """The folder of a run; four finals a source, or `tracks` of some 50 kB."""
    with DiskSink(folder, make.run()) as sink:
        for name in names:
            if not tracks:
                make.send(sink, name)
                continue
            writer = sink.open_source(make.source(name))
            for track_id in range(tracks):
                writer.track(make.ended(name, track_id, size=256))
            writer.commit(make.result(name))
        sink.finish([make.result(name) for name in names], {})
    return folder


def test_run_and_replay_give_a_consumer_every_final_once(tmp_path: Path, start_redis: Start) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"clip{number}.mp4").write_bytes(clip_bytes() + b"\0\0\0\x09free" + bytes([number]))
    write_clip(folder / "nobody.mp4", plain_frames(10))
    server, models = start_redis(), standard_models()
    done = streamgate("run", folder, "-o", tmp_path / "out", "--sink", server.url(), "--min-size", 20, models=models)
    assert done.code == 0, done.err
    first = server.entries()
    assert len(first) >= 3
    done = streamgate("replay", tmp_path / "out", "--sink", server.url())
    assert done.code == 0, done.err
    second = server.entries()[len(first) :]
    # The very same entries, in the same order: by the ids everything is there exactly once.
    assert second == first
    known = {record["id"] for record in lines(tmp_path / "out" / "faces.jsonl")}
    assert known <= {entry["id"].decode() for entry in second}
    consumed = subprocess.run(
        [sys.executable, Path(__file__).parents[2] / "examples" / "consume.py", server.url(), tmp_path / "taken",
         "--until-idle", "1"], capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    taken = [line for line in consumed.stdout.splitlines() if line]
    assert consumed.returncode == 0 and len(taken) == len(first), consumed.stderr


def test_a_run_whose_redis_is_away_is_complete_on_disk_and_replayed(tmp_path: Path, start_redis: Start) -> None:
    # The server goes away after the run has looked for it: here for good, behind an address that closes.
    server, models = start_redis("--requirepass", "s3cret-pw"), standard_models()
    (tmp_path / "in").mkdir()
    for number in range(2):
        (tmp_path / "in" / f"clip{number}.mp4").write_bytes(clip_bytes() + b"\0\0\0\x09free" + bytes([number]))
    with server.client(":s3cret-pw@") as client:
        # What the run may use to look for the server, but not to send.
        client.execute_command("ACL", "SETUSER", "default", "-xadd")
    url = server.url(":s3cret-pw@")
    ran = run_limited(
        ["run", tmp_path / "in", "-o", tmp_path / "out", "--sink", url, "--json", "--sink-retry", "0.2"],
        {"STREAMGATE_MODELS": str(models)},
    )
    assert ran.code == 5, ran.err
    told = [line for line in ran.err.splitlines() if line.startswith("streamgate: ") and "warning" not in line]
    assert len(told) == 1 and "0 of 2 finals delivered, 2 missing, from 2 of 2 sources" in told[0], ran.err
    assert f"streamgate replay {tmp_path}/out --sink" in told[0] and "s3cret-pw" not in ran.err + ran.out
    # The other destinations have everything.
    assert len(lines(tmp_path / "out" / "faces.jsonl")) == 2 == len(ran.out.splitlines())
    assert "2 faces kept" in ran.err
    with server.client(":s3cret-pw@") as client:
        client.execute_command("ACL", "SETUSER", "default", "+xadd")
    done = inside("replay", tmp_path / "out", "--sink", url)
    assert done.code == 0 and "2 of 2 finals of 2 sources sent to redis://***@" in done.err, done.err
    assert len(server.entries(":s3cret-pw@")) == 2
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"s3cret-pw" not in path.read_bytes()


def test_a_run_killed_while_it_sends_is_resumed_and_every_final_arrives(tmp_path: Path, start_redis: Start) -> None:
    server, models = start_redis(), standard_models()
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"clip{number}.mp4").write_bytes(clip_bytes() + b"\0\0\0\x09free" + bytes([number]))
    out = tmp_path / "out"
    with line_to(server.port) as line:
        command = ["run", tmp_path / "in", "-o", out, "--sink", f"{line.url}?socket_timeout=60"]
        process = subprocess.Popen(
            [sys.executable, "-m", "streamgate", *map(str, command)],
            env=os.environ | {"STREAMGATE_MODELS": str(models)}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until(lambda: (out / ".streamgate" / "manifest.json").exists())
            line.deaf = True
            # The first source is committed, and its events get lost on the way.
            until(lambda: list(out.glob("*/source.json")))
        finally:
            process.kill()
            process.wait()
    command[-1] = server.url()
    done = streamgate(*command, "--resume", models=models)
    assert done.code == 0, done.err
    records = lines(out / "faces.jsonl")
    assert len(records) == 3
    assert {entry["id"].decode() for entry in server.entries()} == {record["id"] for record in records}
    sent = len(server.entries())
    again = streamgate(*command, "--resume", models=models)
    assert again.code == 0 and len(server.entries()) == sent


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def test_what_is_damaged_is_named_and_the_rest_sent(tmp_path: Path, make: Make, start_redis: Start) -> None:
    out, server = finished(make, tmp_path / "out"), start_redis()
    (out / "a-0a1b2c3d" / "track_0001" / "1.png").unlink()
    done = inside("replay", out, "--sink", server.url())
    assert done.code == 1 and len(server.entries()) == 7
    (told,) = [line for line in done.err.splitlines() if line.startswith("streamgate:")]
    assert "1 of 4 finals cannot be sent: a-0a1b2c3d/track_0001/1.png is missing; run the source again" in told
    assert "7 of 8 finals of 2 sources sent" in done.err
    quiet = inside("replay", out, "--sink", server.url(), "--quiet")
    assert quiet.code == 1 and quiet.err.splitlines() == [told]


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def to_another_schema(path: Path) -> None:
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 7', 1))


@pytest.mark.parametrize(
    ("name", "damage", "sent", "words"),
    [
        ("summary.json", cut_off, 8, "summary.json is damaged"),
        ("summary.json", to_another_schema, 8, "another version (schema 7"),
        ("a-0a1b2c3d/faces.jsonl", cut_off, 7, "faces.jsonl is damaged"),
        ("a-0a1b2c3d/source.json", Path.unlink, 4, "source.json is missing"),
    ],
)
def test_a_damaged_file_of_the_run_is_named_and_the_rest_sent(
    tmp_path: Path, make: Make, start_redis: Start, name: str, damage: Callable[[Path], object], sent: int, words: str
) -> None:
    out, server = finished(make, tmp_path / "out"), start_redis()
    damage(out / name)
    done = inside("replay", out, "--sink", server.url())
    assert done.code == 1 and words in done.err, done.err
    assert len(server.entries()) == sent


def test_many_damages_of_a_source_are_one_line(tmp_path: Path, make: Make, start_redis: Start) -> None:
    out = finished(make, tmp_path / "out", "a", tracks=30)
    for path in (out / "a-0a1b2c3d").glob("track_*/1.png"):
        path.unlink()
    done = inside("replay", out, "--sink", start_redis().url(), "--quiet")
    # Nothing of it could be read.
    assert done.code == 3 and len(done.err.splitlines()) == 1
    assert "30 of 30 finals cannot be sent" in done.err and "and 25 more" in done.err


def test_exit_codes_of_a_replay_that_cannot_be(tmp_path: Path, make: Make, start_redis: Start) -> None:
    out, server = finished(make, tmp_path / "out"), start_redis()
    for folder in (tmp_path / "nowhere", tmp_path):
        done = inside("replay", folder, "--sink", server.url())
        assert done.code == 3 and len(done.err.splitlines()) == 1, done.err
    assert inside("replay", out).code == 2
    assert inside("replay", out, "--sink", "kafka://u:s3cret-pw@h").code == 2
    server.stop()
    done = inside("replay", out, "--sink", server.url("ann:s3cret-pw@"), "--sink-retry", 0.2)
    assert done.code == 5 and "nothing was sent" in done.err and "s3cret-pw" not in done.err + done.out


def test_a_server_that_fills_up_midway(tmp_path: Path, make: Make, start_redis: Start) -> None:
    out = finished(make, tmp_path / "out", "ab", tracks=60)
    server = start_redis("--maxmemory", "5mb", "--maxmemory-policy", "noeviction")
    done = inside("replay", out, "--sink", server.url(), "--sink-retry", 3)
    sent = len(server.entries())
    assert done.code == 5 and 0 < sent < 120
    assert f"{sent} of 120 finals were delivered" in done.err and "out of memory" in done.err
    with server.client() as client:
        client.config_set("maxmemory", "0")
    assert inside("replay", out, "--sink", server.url()).code == 0
    # Deduplicated by id, everything is there once, in order.
    assert len(dict.fromkeys(entry["id"] for entry in server.entries())) == 120


def test_over_tls(tmp_path: Path, make: Make, start_tls_redis: Callable[..., TlsServer]) -> None:
    out, server = finished(make, tmp_path / "out"), start_tls_redis("--requirepass", "s3cret-pw")
    done = inside("replay", out, "--sink", server.url(":s3cret-pw@"))
    assert done.code == 5 and "certificate is not trusted" in done.err and "s3cret-pw" not in done.err
    done = inside("replay", out, "--sink", server.url(":s3cret-pw@", server.trusted))
    assert done.code == 0, done.err
    assert len(server.plain.entries(":s3cret-pw@")) == 8


def test_memory_does_not_grow_with_the_folder(tmp_path: Path, make: Make, start_redis: Start) -> None:
    server = start_redis("--maxmemory", "30mb", "--maxmemory-policy", "noeviction", "--stream-node-max-entries", "1")
    small = finished(make, tmp_path / "small", "a", tracks=4)
    large = finished(make, tmp_path / "large", "a", tracks=250)  # 10 MB of JPEG, 50 MB of PNG
    peaks = [run_limited(["replay", out, "--sink", server.url()], {}) for out in (small, large)]
    assert [ran.code for ran in peaks] == [0, 0], peaks[1].err
    assert peaks[1].peak_mib - peaks[0].peak_mib < 30


def test_an_interrupt_says_how_far_it_came(tmp_path: Path, make: Make, start_redis: Start) -> None:
    out, server = finished(make, tmp_path / "out", "a", tracks=100), start_redis()
    os.kill(server.process.pid, signal.SIGSTOP)
    process = subprocess.Popen(
        [sys.executable, "-m", "streamgate", "replay", str(out), "--sink", f"{server.url()}?socket_timeout=0.5"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        first = process.stderr.readline()
        assert "retrying" in first
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        os.kill(server.process.pid, signal.SIGCONT)
    assert "interrupted" in process.stderr.read()


def test_a_folder_without_faces_has_nothing_to_send(tmp_path: Path, make: Make, start_redis: Start) -> None:
    with DiskSink(tmp_path / "out", make.run()) as sink:
        writer = sink.open_source(make.source("a"))
        writer.commit(make.result("a", tracks=0, kept=0))
        sink.finish([make.result("a", tracks=0, kept=0)], {})
    done = inside("replay", tmp_path / "out", "--sink", start_redis().url())
    assert done.code == 0 and "0 of 0 finals of 1 sources sent" in done.err
