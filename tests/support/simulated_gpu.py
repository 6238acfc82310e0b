"""`streamgate` with the CPU's provider as its GPU: python tests/support/simulated_gpu.py run ...

With `--device cuda` the networks run in bound buffers and padded batches. FFmpeg's GPU is one that decodes nothing, or
with $DECODES what the CPU decodes, as NV12; so many packets and it is lost. $LOST_AFTER: runs after which the card is.
"""

from __future__ import annotations

import os
import sys
from typing import Any

# The worker is forked from this process, which must have one thread.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import av

from streamgate.__main__ import main
from streamgate.networks import io_binding, network_set
from streamgate.networks.device import Device
from streamgate.sources import container, file_reader, hardware, live

LIKE_A_GPU = Device("cpu", "used like a GPU", bound=True)


def choose_device(wanted: str) -> Device:
    return LIKE_A_GPU if wanted.startswith("cuda") else Device("cpu", "as requested")


class GpuDecoder:
    """A decoder of the CPU that gives what one on a GPU gives: NV12, or P010."""

    def __init__(self, real: Any) -> None:
        vars(self)["real"], vars(self)["pix_fmt"] = real, "cuda"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.real, name, value)

    def decode(self, packet: Any = None) -> list[Any]:
        accelerator(hardware.CPU)
        return [self._semi_planar(frame) for frame in self.real.decode(packet)]

    def _semi_planar(self, frame: Any) -> Any:
        name = "p010le" if frame.format.components[0].bits > 8 else "nv12"
        span = frame.color_range
        return frame.reformat(format=name, src_color_range=span, dst_color_range=span)


packets = None
"""That the decoder takes before it is lost; None: any number."""


def accelerator(decode: str) -> None:
    """FFmpeg's door to the GPU, for opening (`decode` names it) and for decoding."""
    global packets
    if packets is not None:
        packets -= decode == hardware.CPU
        if packets < 0:
            raise av.error.ExternalError(-542398533, "Generic error in an external library")


def decoder(stream: Any, decode: str, beside: Any = None) -> Any:
    return stream.codec_context if decode == hardware.CPU else GpuDecoder(stream.codec_context)


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
    if decodes := os.environ.get("DECODES"):
        packets = int(decodes)
        file_reader.decoder = decoder  # type: ignore[assignment]
    hardware._missing = lambda: None  # type: ignore[attr-defined]
    for module in (container, hardware, live):
        module.accelerator = lambda decode: None if decode == hardware.CPU else accelerator(decode)  # type: ignore[attr-defined]
    sys.exit(main())
