"""A GPU: its name, its peak performance, and its utilisation over time."""

from __future__ import annotations

import ctypes
import re
import subprocess
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

PEAKS = {
    "T4": (8.1, 65), "A10G": (35, 70), "A10": (31, 125), "A100": (19.5, 312), "A30": (10.3, 165), "L4": (30.3, 121),
    "L40S": (91.6, 362), "L40": (90.5, 181), "H100": (67, 989), "H200": (67, 989),
}  # fmt: skip
"""Dense TFLOP/s in fp32 (without TF32) and fp16 (on tensor cores), from the vendor's data sheets; for GPUs that
exist in several forms, the values of the SXM form."""


@dataclass(frozen=True, slots=True)
class Card:
    """`words`: name, memory and driver, as reported by nvidia-smi. `address`: PCI bus address, None without a card."""

    address: str | None
    words: str

    @classmethod
    def here(cls, index: int | None) -> Card:
        """The GPU with this CUDA index; without an index, a card with the address None."""
        if index is None:
            return cls(None, "none")
        address = _address(index)
        told = _ask(address, "name,memory.total,driver_version")
        return cls(address, told[0] if told else "unknown to nvidia-smi")

    def peak(self, precision: str) -> float | None:
        """Peak TFLOP/s; None if unknown."""
        parts = re.split(r"[\s,-]+", self.words)
        return next((float(peak[precision == "fp16"]) for name, peak in PEAKS.items() if name in parts), None)


@dataclass(frozen=True, slots=True)
class Busy:
    """Mean utilisation (0..1) of a card and of its decoder over some time, and the peak memory in use in GiB."""

    gpu: float
    decoder: float
    memory_gib: float


class Load:
    """Polls the utilisation of a GPU about once per second while the block runs."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._seen: list[Busy] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def busy(self) -> Busy | None:
        """Mean utilisation and peak memory; None without a card or if nvidia-smi does not report them."""
        seen = self._seen
        if not seen:
            return None
        gpu, decoder = sum(one.gpu for one in seen) / len(seen), sum(one.decoder for one in seen) / len(seen)
        return Busy(gpu, decoder, max(one.memory_gib for one in seen))

    def __enter__(self) -> Self:
        if self._address is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        assert self._address is not None
        while not self._stop.wait(1.0):
            told = _ask(self._address, "utilization.gpu,utilization.decoder,memory.used")
            values = [part.strip().split(" ")[0] for part in told[0].split(",")] if told else []
            if len(values) == 3 and all(value.replace(".", "").isdecimal() for value in values):
                gpu, decoder, memory = map(float, values)
                self._seen.append(Busy(gpu / 100, decoder / 100, memory / 1024))


def _address(index: int) -> str:
    """The PCI bus address of a CUDA index. nvidia-smi numbers all cards, in another order."""
    address, card = ctypes.create_string_buffer(32), ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        if not driver.cuDeviceGet(ctypes.byref(card), index) and not driver.cuDeviceGetPCIBusId(address, 32, card):
            return address.value.decode()
    except (OSError, AttributeError):
        pass
    return str(index)


def _ask(address: str, fields: str) -> list[str]:
    query = ["nvidia-smi", "-i", address, f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        ran = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return ran.stdout.strip().splitlines()
