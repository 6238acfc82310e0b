"""`streamgate` where the "GPU" is the CPU's provider behind the code for GPUs: python tests/like_a_gpu.py run ...

With `--device cuda` the networks run in bound buffers and padded batches. FFmpeg's GPU is one that decodes nothing.
"""

from __future__ import annotations

import os
import sys

# The worker is forked from this process, which must have one thread.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

from streamgate.__main__ import main
from streamgate.networks import bound, network_set
from streamgate.networks.device import Device
from streamgate.sources import container, hardware, live

LIKE_A_GPU = Device("cpu", "used like a GPU", bound=True)


def choose_device(wanted: str) -> Device:
    return LIKE_A_GPU if wanted.startswith("cuda") else Device("cpu", "as requested")


if __name__ == "__main__":
    network_set.choose_device = choose_device
    # What is cheap on a card would take the CPU long.
    bound.BATCH, bound._BATCHES = 2, {}
    for module in (container, hardware, live):
        module.accelerator = lambda decode: None  # type: ignore[attr-defined]
    sys.exit(main())
