"""Fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def shared_folder() -> Path:
    """The folder of footage and weights: where STREAMGATE_SHARED points, or else `shared` next to the repository."""
    return Path(os.environ.get("STREAMGATE_SHARED") or REPOSITORY.parent / "shared")


@pytest.fixture(scope="session")
def shared_videos() -> Path:
    """The folder of real clips; skips the test if there is none."""
    folder = shared_folder() / "videos"
    if not folder.is_dir():
        pytest.skip(
            f"there is no real footage in {folder}; set STREAMGATE_SHARED to the folder that contains videos/"
        )
    return folder


@pytest.fixture(scope="session")
def shared_clip(shared_videos: Path) -> Callable[[str], Path]:
    """Path of a real clip by its file name; skips the test if it is missing."""

    def find(name: str) -> Path:
        path = shared_videos / name
        if not path.is_file():
            pytest.skip(f"{path} is missing")
        return path

    return find


@pytest.fixture(scope="session")
def shared_case() -> Callable[[str], Path]:
    """Path of a file that once went wrong, by its name in cases/; skips the test if it is missing."""

    def find(name: str) -> Path:
        path = shared_folder() / "cases" / name
        if not path.is_file():
            pytest.skip(f"{path} is missing")
        return path

    return find
