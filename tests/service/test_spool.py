"""The spool: in order, bounded, and whole after a kill."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streamgate.errors import SinkError
from streamgate.service.spool import Spool
from support.hostile_spool import FOREIGN, HEAD, INTRUDERS, acked, frame

LIMIT = 1 << 20


def contents(spool: Spool) -> list[bytes]:
    return [data for _, data in spool.peek(10_000, 1 << 30)]


def test_items_leave_in_the_order_in_which_they_came(tmp_path: Path):
    with Spool(tmp_path / "spool", LIMIT) as spool:
        spool.append([b"one", b"two"])
        numbers, problem = spool.append([b"three"])
        assert problem is None
        assert contents(spool) == [b"one", b"two", b"three"]
        spool.done(numbers[0] - 1)
        assert contents(spool) == [b"three"]
        assert (len(spool), spool.size) == (1, 5)


def test_what_was_not_done_with_is_there_after_a_restart_and_numbers_go_on(tmp_path: Path):
    with Spool(tmp_path / "spool", LIMIT) as spool:
        first, _ = spool.append([b"one", b"two", b"three"])
        spool.done(first[0])
    with Spool(tmp_path / "spool", LIMIT) as spool:
        assert contents(spool) == [b"two", b"three"]
        later, _ = spool.append([b"four"])
        assert later[0] > first[-1]
        assert contents(spool) == [b"two", b"three", b"four"]


def test_a_killed_process_loses_nothing_that_append_returned_for(tmp_path: Path):
    script = (
        "import sys, os, signal; from pathlib import Path; from streamgate.service.spool import Spool\n"
        f"spool = Spool(Path({str(tmp_path / 'spool')!r}), 1 << 20).__enter__()\n"
        "for n in range(200):\n    spool.append([b'%d' % n])\n    n == 99 and spool.done(50)\n"
        "print('in', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "in\n" and done.returncode == -signal.SIGKILL
    with Spool(tmp_path / "spool", LIMIT) as spool:
        assert contents(spool) == [b"%d" % n for n in range(50, 200)]


def test_a_torn_end_costs_only_the_torn_item(tmp_path: Path):
    with Spool(tmp_path / "spool", LIMIT) as spool:
        spool.append([b"whole"])
        spool.append([b"torn" * 100])
    (segment,) = (tmp_path / "spool").glob("*.spool")
    with open(segment, "r+b") as file:
        file.truncate(segment.stat().st_size - 7)
    with Spool(tmp_path / "spool", LIMIT) as spool:
        assert contents(spool) == [b"whole"] and spool.damaged == 1
        spool.append([b"next"])
        assert contents(spool) == [b"whole", b"next"]


def only_segment(folder: Path) -> Path:
    (segment,) = (folder / "spool").glob("*.spool")
    return segment


def kept(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "spool" / "damaged").glob("*"))]


@pytest.mark.parametrize("byte", range(HEAD + 30))
def test_a_flipped_bit_costs_one_event_and_the_file_is_set_aside(tmp_path: Path, byte: int):
    """In any byte of the third of fifteen events: mark, length, checksum, number, data."""
    items = [b"%02d" % number + b"SGE1 is a mark, SGE1 is one.." for number in range(15)]
    with Spool(tmp_path / "spool", LIMIT) as spool:
        spool.append(items)
    segment = only_segment(tmp_path)
    data = bytearray(segment.read_bytes())
    data[2 * (HEAD + len(items[0])) + byte] ^= 1 << byte % 8
    segment.write_bytes(data)
    said: list[str] = []
    with Spool(tmp_path / "spool", LIMIT, log=said.append) as spool:
        assert contents(spool) == items[:2] + items[3:]
        assert (spool.damaged, spool.set_aside) == (1, 0)
        spool.done(spool.peek(100, LIMIT)[-1][0])
        assert (len(spool), spool.set_aside) == (0, 1)
        assert not list((tmp_path / "spool").glob("*.spool"))
        numbers, _ = spool.append([b"next"])
        assert contents(spool) == [b"next"] and numbers[0] > 15
    assert kept(tmp_path) == [bytes(data)]
    assert len(said) == 1 and "intact events in these files (14)" in said[0] and "00000001.spool" in said[0]


def test_damage_everywhere_costs_what_it_hits(tmp_path: Path):
    items = [b"%04d" % number + os.urandom(200) for number in range(500)]
    with Spool(tmp_path / "spool", 1 << 22, segment_bytes=20_000) as spool:
        for start in range(0, 500, 10):
            spool.append(items[start : start + 10])
    rng = random.Random(3)
    lost = set()
    for path in sorted((tmp_path / "spool").glob("*.spool")):
        data = bytearray(path.read_bytes())
        for _ in range(3):
            index = rng.randrange(len(data))
            data[index] ^= 0xFF
            lost.add((path.name, index // (HEAD + 204)))
        path.write_bytes(data)
    with Spool(tmp_path / "spool", 1 << 22) as spool:
        assert len(spool) == 500 - len(lost)
        assert set(contents(spool)) <= set(items) and contents(spool) == sorted(contents(spool))


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_file_is_set_aside_and_not_deleted(tmp_path: Path, content: bytes):
    with Spool(tmp_path / "spool", LIMIT) as spool:
        spool.append([b"one", b"two"])
    (tmp_path / "spool" / "00000007.spool").write_bytes(content)
    said: list[str] = []
    with Spool(tmp_path / "spool", LIMIT, log=said.append) as spool:
        assert contents(spool) == [b"one", b"two"]
        assert (spool.damaged, spool.set_aside) == (1, 1)
        spool.append([b"three"])
        assert contents(spool) == [b"one", b"two", b"three"]
    assert kept(tmp_path) == [content] and "00000007.spool" in said[0]


def test_what_is_set_aside_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("streamgate.service.spool._SET_ASIDE_BYTES", 5000)
    (tmp_path / "spool").mkdir()
    for number in range(1, 21):
        path = tmp_path / "spool" / f"{number:08d}.spool"
        path.write_bytes(b"%02d" % number + bytes(998))
        os.utime(path, (number, number))
    with Spool(tmp_path / "spool", LIMIT) as spool:
        assert spool.set_aside == 20
    assert [data[:2] for data in kept(tmp_path)] == [b"16", b"17", b"18", b"19", b"20"]


def test_damage_while_events_wait_costs_one_and_is_told(tmp_path: Path):
    said: list[str] = []
    with Spool(tmp_path / "spool", LIMIT, log=said.append) as spool:
        spool.append([b"one", b"two", b"three"])
        segment = only_segment(tmp_path)
        with open(segment, "r+b") as file:
            file.seek(HEAD + 3 + HEAD)
            file.write(b"T")
        assert contents(spool) == [b"one", b"three"]
        assert spool.damaged == 1 and len(said) == 1


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what a process reads")
def test_damage_at_every_event_is_not_read_again_and_again(tmp_path: Path):
    count, size = 4000, 400

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    folder = tmp_path / "spool"
    folder.mkdir()
    content = b"".join(frame(number, bytes(size)) + b"junk" for number in range(1, count + 1))
    (folder / "00000001.spool").write_bytes(content)
    before = bytes_read()
    with Spool(folder, 1 << 30) as spool:
        assert bytes_read() - before < 100 * len(content)
        assert len(spool) == spool.damaged == count


@pytest.mark.parametrize("put", INTRUDERS.values(), ids=INTRUDERS.keys())
def test_what_no_spool_has_written_is_refused_at_the_start(tmp_path: Path, put: Callable[[Path], object]):
    with Spool(tmp_path / "spool", LIMIT) as spool:
        spool.append([b"one", b"two"])
    put(tmp_path / "spool")
    before = sorted(path.name for path in (tmp_path / "spool").iterdir())
    with pytest.raises(SinkError) as caught:
        Spool(tmp_path / "spool", LIMIT).__enter__()
    assert str(tmp_path / "spool") in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "spool").iterdir()) == before


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 12, b"\0" * 500, acked(7)[:-1] + b"\0"])
def test_a_damaged_number_of_what_arrived_lets_events_come_again(tmp_path: Path, content: bytes):
    with Spool(tmp_path / "spool", LIMIT) as spool:
        numbers, _ = spool.append([b"one", b"two"])
        spool.done(numbers[0])
    (tmp_path / "spool" / "acked").write_bytes(content)
    said: list[str] = []
    with Spool(tmp_path / "spool", LIMIT, log=said.append) as spool:
        assert contents(spool) == [b"one", b"two"]
        assert spool.damaged == 1 and len(said) == 1


def test_past_the_bound_the_oldest_are_dropped_and_counted(tmp_path: Path):
    with Spool(tmp_path / "spool", 1000) as spool:
        for number in range(30):
            spool.append([b"%02d" % number + b"x" * 98])
        assert len(spool) == 10 and spool.dropped == 20
        assert contents(spool)[0].startswith(b"20")
        on_disk = sum(path.stat().st_size for path in (tmp_path / "spool").glob("*.spool"))
        assert on_disk < 2000
    with Spool(tmp_path / "spool", 1000) as spool:
        assert contents(spool)[0].startswith(b"20"), "what was dropped came back"


def test_done_segments_are_removed(tmp_path: Path):
    with Spool(tmp_path / "spool", LIMIT, segment_bytes=500) as spool:
        for _ in range(20):
            numbers, _ = spool.append([b"x" * 200])
            spool.done(numbers[0])
        assert len(list((tmp_path / "spool").glob("*.spool"))) <= 2


def test_two_processes_cannot_share_a_spool(tmp_path: Path):
    with Spool(tmp_path / "spool", LIMIT), pytest.raises(SinkError, match="in use"):
        Spool(tmp_path / "spool", LIMIT).__enter__()


def test_a_disk_that_refuses_costs_nothing_while_the_process_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    full = True
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with Spool(tmp_path / "spool", LIMIT) as spool:
        full = False
        monkeypatch.setattr(os, "fsync", failing)
        spool.append([b"one"])
        full = True
        _, problem = spool.append([b"two"])
        assert problem is not None and "no space left" in str(problem)
        spool.append([b"three"])
        assert contents(spool) == [b"one", b"two", b"three"]
        full = False
        _, problem = spool.append([b"four"])
        assert problem is None
    with Spool(tmp_path / "spool", LIMIT) as spool:
        assert contents(spool) == [b"one", b"two", b"three", b"four"], "held items were not written afterwards"


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 256 KiB."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    folder = tmp_path / "small"
    folder.mkdir()
    if mount is None or umount is None:
        pytest.skip("mount is not installed")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("a tmpfs cannot be mounted here (needs root)")
    yield folder
    subprocess.run([umount, "-l", str(folder)], check=False)


def test_a_full_disk_keeps_order_and_counts(small_disk: Path):
    with Spool(small_disk / "spool", LIMIT) as spool:
        problems = [spool.append([b"%03d" % number + b"x" * 16_000])[1] for number in range(24)]
        assert any(problems) and problems[0] is None
        assert [data[:3] for data in contents(spool)] == [b"%03d" % number for number in range(24)]
        assert spool.dropped == 0
