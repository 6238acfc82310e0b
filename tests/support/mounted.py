"""Small and read-only file systems for tests; mounting them needs root, and tests skip if it is not permitted."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a tmpfs with the options given (`size=1m`) and gives its folder; all go away after the test."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"mount{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], capture_output=True)


def remount(folder: Path, options: str) -> None:
    """Change the options of a mounted tmpfs, for example to `ro` or another size."""
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True, capture_output=True)
