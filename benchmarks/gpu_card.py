"""A card: what it is, what it can do, and how busy it is meanwhile."""

from __future__ import annotations

import re
import subprocess
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

PEAKS = {
    "T4": (8.1, 65), "A10G": (35, 70), "A10": (31, 125), "A100": (19.5, 312), "A30": (10.3, 165), "L4": (30.3, 121),
    "L40S": (91.6, 362), "L40": (90.5, 181), "H100": (67, 989), "H200": (67, 989),
}  # fmt: skip
"""Dense TFLOP/s in fp32 (without TF32) and fp16 (on tensor cores), by the vendor's data sheets; of the SXM form where
there are several."""


@dataclass(frozen=True, slots=True)
class Card:
    """`words`: name, memory and driver, as the driver's own tool tells them."""

    index: int | None
    words: str

    @classmethod
    def here(cls, index: int | None) -> Card:
        """The card of that number; None: there is none."""
        if index is None:
            return cls(None, "none")
        told = _ask(index, "name,memory.total,driver_version")
        return cls(index, told[0] if told else "unknown to nvidia-smi")

    def peak(self, precision: str) -> float | None:
        """TFLOP/s; None where it is not known."""
        parts = re.split(r"[\s,-]+", self.words)
        return next((float(peak[precision == "fp16"]) for name, peak in PEAKS.items() if name in parts), None)


@dataclass(slots=True)
class Load:
    """Asks a card about once a second how busy it is, while the block runs."""

    index: int | None
    gpu: list[float] = field(default_factory=list)
    decoder: list[float] = field(default_factory=list)
    memory_gib: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self.index is not None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        assert self.index is not None
        while not self._stop.wait(1.0):
            told = _ask(self.index, "utilization.gpu,utilization.decoder,memory.used")
            values = [part.strip().split(" ")[0] for part in told[0].split(",")] if told else []
            if len(values) == 3 and all(value.replace(".", "").isdecimal() for value in values):
                gpu, decoder, memory = map(float, values)
                self.gpu.append(gpu / 100)
                self.decoder.append(decoder / 100)
                self.memory_gib = max(self.memory_gib, memory / 1024)


def _ask(index: int, fields: str) -> list[str]:
    query = ["nvidia-smi", "-i", str(index), f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        ran = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return ran.stdout.strip().splitlines()
