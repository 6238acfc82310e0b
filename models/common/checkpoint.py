"""Checkpoints that survive a kill at any moment: files are written under a temporary name, and are named by content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write `state` as one file, whose name contains the step and a digest; only the last `keep` files are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "writing.part"
    with part.open("wb") as out:
        torch.save(state, out)
        out.flush()
        os.fsync(out.fileno())
    path = folder / f"step-{step:08d}-{_digest(part)}.ckpt"
    part.replace(path)
    for old in sorted(folder.glob("step-*.ckpt"))[:-keep]:
        old.unlink()
    return path


def load_latest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest intact checkpoint (None: there is none), and the names of damaged checkpoints that were refused."""
    refused = []
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True):
        if _digest(path) == path.stem.rsplit("-", 1)[1]:
            return torch.load(path, map_location="cpu", weights_only=True), refused
        refused.append(path.name)
    return None, refused


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
