"""`streamgate` with the CPU's provider as its GPU: python tests/support/simulated_gpu.py run ...

With `--device cuda` the networks run in bound buffers and padded batches. FFmpeg's GPU is one that decodes nothing.
$LOST_AFTER: runs after which the card is lost.
"""

from __future__ import annotations

import os
import sys
from typing import Any

# The worker is forked from this process, which must have one thread.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

from streamgate.__main__ import main
from streamgate.networks import io_binding, network_set
from streamgate.networks.device import Device
from streamgate.sources import container, hardware, live

LIKE_A_GPU = Device("cpu", "used like a GPU", bound=True)


def choose_device(wanted: str) -> Device:
    return LIKE_A_GPU if wanted.startswith("cuda") else Device("cpu", "as requested")


def lose_the_card(after: int) -> None:
    """From that run on every run fails, as it does when a card is reset or falls off the bus."""
    left, on_device = iter(range(after)), io_binding._Buffers._on_device

    def failing(*arguments: Any) -> Any:
        if next(left, None) is None:
            raise RuntimeError("CUDA failure 719: unspecified launch failure ; GPU=0")
        return on_device(*arguments)

    io_binding._Buffers._on_device = failing  # type: ignore[method-assign]


if __name__ == "__main__":
    network_set.choose_device = choose_device
    # What is cheap on a card would take the CPU long.
    io_binding.BATCH, io_binding._BATCHES = 2, {}
    if lost := os.environ.get("LOST_AFTER"):
        lose_the_card(int(lost))
    for module in (container, hardware, live):
        module.accelerator = lambda decode: None  # type: ignore[attr-defined]
    sys.exit(main())
