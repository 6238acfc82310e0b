"""How many sources are read at once with `--jobs auto`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamgate import parallel
from streamgate.runtime import jobs
from streamgate.runtime.jobs import RESERVED_BYTES, SOURCE_BYTES, automatic_jobs, available_bytes, decoder_threads


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with eight cores and plenty of memory, in a container whose files are in the folder returned."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(jobs, "_CGROUP", tmp_path)
    monkeypatch.setattr(parallel, "_CPU_QUOTA", tmp_path / "cpu.max")
    (tmp_path / "memory.max").write_text(f"{1 << 40}\n")
    (tmp_path / "memory.current").write_text("0\n")
    monkeypatch.setattr(jobs, "_MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:   {64 << 20} kB\n")
    return tmp_path


@pytest.mark.parametrize(("sources", "on_gpu", "expected"), [
    (1, False, 1), (3, False, 3), (1000, False, 8), (0, False, 1), (1000, True, 16), (5, True, 5),
])  # fmt: skip
def test_one_source_per_core_but_no_more_than_there_are(
    machine: Path, sources: int, on_gpu: bool, expected: int
) -> None:
    assert automatic_jobs(sources, on_gpu=on_gpu) == expected


def test_a_quota_of_the_container_counts(machine: Path) -> None:
    (machine / "cpu.max").write_text("250000 100000\n")
    assert automatic_jobs(1000) == 3
    (machine / "cpu.max").write_text("max 100000\n")
    assert automatic_jobs(1000) == 8


def test_little_memory_allows_fewer_sources_but_always_one(machine: Path) -> None:
    (machine / "meminfo").write_text(f"MemAvailable: {(RESERVED_BYTES + 3 * SOURCE_BYTES) >> 10} kB\n")
    assert automatic_jobs(1000) == 3
    (machine / "meminfo").write_text("MemAvailable: 1000 kB\n")
    assert automatic_jobs(1000) == 1


def test_a_memory_limit_of_the_container_counts_without_its_page_cache(machine: Path) -> None:
    (machine / "memory.max").write_text(f"{RESERVED_BYTES + 4 * SOURCE_BYTES}\n")
    (machine / "memory.current").write_text(f"{3 * SOURCE_BYTES}\n")
    assert automatic_jobs(1000) == 1
    (machine / "memory.stat").write_text(f"anon {SOURCE_BYTES}\ninactive_file {2 * SOURCE_BYTES}\n")
    assert automatic_jobs(1000) == 3


def test_memory_that_nothing_reports_does_not_limit(machine: Path) -> None:
    for path in machine.iterdir():
        path.unlink()
    assert available_bytes() is None
    assert automatic_jobs(1000) == 8


def test_many_sources_decode_with_one_thread_each(machine: Path) -> None:
    assert [decoder_threads(at_once) for at_once in (1, 8, 15, 16, 64)] == [0, 0, 0, 1, 1]
