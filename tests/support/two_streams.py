"""Cameras with a main stream and a substream of one scene, on the loopback.

    python tests/support/two_streams.py PORT SPEC.json

A scene goes on whether anybody looks or not, from `epoch` (CLOCK_MONOTONIC) on; each stream shows it from the key frame
at or before the moment of connecting, with time stamps of its own: another beginning, `drift` parts in a million too
fast or slow, and `delay` seconds late. SPEC maps paths to {clip, delay, drift, phase, epoch}; `phase` moves the scene,
so that not all cameras see the same at once. Prints a JSON line for each connection: its path, and the scene time and
number of the first picture.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from streamgate.networks.alignment import ffhq_matrix
from streamgate.sources.picture import PictureMaker
from support.rtsp_server import Camera, Clip, Packets, _interleaved, free_port, load

_JUDGED = 96
"""Side at which crops are compared."""


class Scenes(Camera):
    """As `Camera`, over the streams of a specification."""

    def __init__(self, streams: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__([])
        self._streams = streams
        self._loaded: dict[str, Clip] = {}
        for stream in streams.values():
            if stream["clip"] not in self._loaded:
                self._loaded[stream["clip"]] = load(stream["clip"])

    def _clip(self, path: str) -> Clip | None:
        stream = self._streams.get(path)
        return None if stream is None else self._loaded[stream["clip"]]

    async def _play(self, path: str, writer: asyncio.StreamWriter, udp: tuple[str, int] | None) -> None:
        clip, stream = self._clip(path), self._streams[path]
        assert clip is not None
        spacing, count = clip.seconds / len(clip.units), len(clip.units)
        delay, pace = stream.get("delay", 0.0), 1 + stream.get("drift", 0.0) / 1e6
        began = stream.get("epoch", 0.0) - stream.get("phase", 0.0)
        base = 1000.0 + 77.7 * (hash(path) % 100)
        packets = Packets()
        number = int((time.monotonic() - delay - began) / spacing)
        while not any(nal[0] & 31 == 5 for nal in clip.units[number % count][1]):
            number -= 1
        print(json.dumps({"path": path, "number": number, "scene": number * spacing, "spacing": spacing}), flush=True)
        # What would have been sent already comes at once, as from cameras that begin with the last key frame.
        with suppress(ConnectionError):
            while True:
                wait = began + delay + number * spacing - time.monotonic()
                if wait > 0:
                    await asyncio.sleep(wait)
                shown, nals = clip.units[number % count]
                seconds = base + (number // count * clip.seconds + shown) * pace
                writer.write(b"".join(_interleaved(packet) for packet in packets.unit(seconds, nals)))
                await writer.drain()
                number += 1
        writer.close()


@dataclass
class ScenesProcess:
    """Such cameras in a process of their own."""

    streams: dict[str, dict[str, Any]]
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    def url(self, path: str) -> str:
        return f"rtsp://127.0.0.1:{self.port}{path}"

    @property
    def log(self) -> Path:
        return self.folder / f"scenes-{self.port}.log"

    def start(self) -> None:
        spec = self.folder / f"scenes-{self.port}.json"
        spec.write_text(json.dumps(self.streams))
        with self.log.open("a") as log:
            command = [sys.executable, __file__, str(self.port), str(spec)]
            tests = Path(__file__).parents[1]
            # Where `support` and the package are found.
            environment = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"}
            self.process = subprocess.Popen(command, stdout=log, text=True, env=environment)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise RuntimeError("the cameras did not come up")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def connections(self, path: str) -> list[dict[str, Any]]:
        """What was told of the connections to a path, oldest first."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["path"] == path]


@contextmanager
def scenes(*groups: dict[str, dict[str, Any]], folder: Path) -> Iterator[list[ScenesProcess]]:
    """Start a process for each group of streams; ends them all."""
    running = [ScenesProcess(streams, folder) for streams in groups]
    try:
        for one in running:
            one.start()
        yield running
    finally:
        for one in running:
            one.kill()


def encode(
    source: Path, target: Path, size: tuple[int, int], fps: float, bitrate: int, group: int,
    seconds: tuple[float, float] = (0.0, 1e9), empty: float = 0.0,
) -> Path:  # fmt: skip
    """A clip, or a stretch of it, as a camera sends it: without B frames, a key frame every `group` pictures.

    `empty` seconds without anybody follow.
    """
    rate = Fraction(fps).limit_denominator(1001)
    options = {
        "preset": "veryfast", "tune": "zerolatency", "g": str(group), "keyint_min": str(group), "sc_threshold": "0",
        "maxrate": str(bitrate * 12 // 10), "bufsize": str(bitrate), "x264-params": "scenecut=0",
    }  # fmt: skip
    with av.open(str(source)) as read, av.open(str(target), "w") as made:
        stream = read.streams.video[0]
        stream.thread_type = "AUTO"
        out = made.add_stream("libx264", rate=rate, options=options)
        out.width, out.height, out.pix_fmt, out.bit_rate = *size, "yuv420p", bitrate
        number = 0
        for frame in read.decode(stream):
            at = (frame.time or 0.0) - seconds[0]
            if at < 0:
                continue
            if at >= seconds[1] - seconds[0]:
                break
            while number / rate <= at:
                picture = frame.reformat(*size, format="yuv420p")
                picture.pts, picture.time_base = number, 1 / rate
                made.mux(out.encode(picture))
                number += 1
        grey = np.full((size[1], size[0], 3), 96, np.uint8)
        for _ in range(round(empty * rate)):
            picture = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = number, 1 / rate
            made.mux(out.encode(picture))
            number += 1
        made.mux(out.encode(None))
    return target


def which_picture(image: Any, record: dict[str, Any], clip: Path, among: Any) -> int | None:
    """The number of the clip's picture that a crop, BGR, was cut from; None where it is none of those."""
    side = image.shape[0]
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    small = cv2.resize(rgb, (_JUDGED, _JUDGED), interpolation=cv2.INTER_AREA).astype(np.float32)
    matrix = ffhq_matrix(np.array(record["landmarks"]), side)
    coarse = ffhq_matrix(np.array(record["landmarks"]), _JUDGED)
    best, least, roughest = None, 4.0, 1e9
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        maker = PictureMaker("h264", None)
        for number, frame in enumerate(container.decode(stream)):
            if among is not None and number not in among:
                continue
            picture = maker.picture(frame)
            rough = np.abs(picture.warp(coarse, _JUDGED, fine=True).astype(np.float32) - small).mean()
            if rough > 1.3 * roughest + 0.5:
                continue
            roughest = min(roughest, float(rough))
            crop = picture.warp(matrix, side, fine=True)
            other = cv2.resize(crop, (_JUDGED, _JUDGED), interpolation=cv2.INTER_AREA).astype(np.float32)
            difference = float(np.abs(other - small).mean())
            if difference < least:
                best, least = number, difference
    return best


async def serve(port: int, streams: Mapping[str, Mapping[str, Any]]) -> None:
    server = await asyncio.start_server(Scenes(streams).client, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main(arguments: Sequence[str]) -> None:
    asyncio.run(serve(int(arguments[0]), json.loads(Path(arguments[1]).read_text())))


if __name__ == "__main__":
    main(sys.argv[1:])
