"""Measures each network on crops of real faces: faces per second by batch size, and the deviation from the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
from common import say
from gpu_card import Card
from gpu_parts import Clock

from streamgate.errors import StreamgateError
from streamgate.frames import Array
from streamgate.networks import io_binding, sessions
from streamgate.networks.alignment import EXPRESSION_SIZE, arcface_matrix, box_matrix, expression_matrix, ffhq_matrix
from streamgate.networks.detector import Detector
from streamgate.networks.device import Device, choose_device
from streamgate.networks.graphs import PRECISIONS
from streamgate.networks.sessions import Session
from streamgate.parallel import usable_cores
from streamgate.weights.store import Weights

BATCHES = (1, 4, 16, 32, 64)
BATCHES_LARGE = (1, 16, 64)
"""Batch sizes for networks that take long to open."""
BATCHES_CPU = (1, 4)
"""Batch sizes without a GPU, to test the script."""
FACES_LARGE = 16
"""Number of faces for networks that are slow on the CPU."""
LARGE_BYTES = 50 << 20
TRIAL_S = 0.4
"""Duration of the measurement for each network, precision and batch size."""
SCENE = (384, 640)
"""Size of the detector's pictures (H, W)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One network in one precision: faces per second by batch size, and the largest deviation from the CPU.

    `where` is the output with this deviation. `share` is the share of the card's peak at the best batch size.
    """

    name: str
    precision: str
    rates: Mapping[int, float]
    deviation: float
    where: str
    share: float | None


def ready(device: Device) -> None:
    """Prepare this process for the device, as `choose_device` did in the parent process."""
    if device.index is not None:
        choose_device(device.name)
    else:
        # Large batches are fast on a GPU, but slow on the CPU.
        io_binding.BATCH, io_binding._BATCHES = 2, {}


def crops_of(
    folders: Sequence[Path], networks: Mapping[str, Weights], most: int, clock: Clock | None = None
) -> dict[str, Array]:
    """Up to `most` crops for each role, RGB uint8, from the pictures in `folders`; uses half of the remaining time."""
    until = -1.0 if clock is None else clock.left / 2
    detector = Detector(Session(networks["detector"], "cpu"))
    rows: dict[str, list[Array]] = {role: [] for role in networks}
    for path in (path for folder in folders for path in sorted(folder.glob("*"))):
        if len(rows["detector"]) == most or (clock is not None and rows["detector"] and clock.left < until):
            break
        picture = cv2.imread(str(path))
        if picture is None:
            continue
        picture = np.ascontiguousarray(picture[..., ::-1])
        if not (found := detector.detect([picture])[0]):
            continue
        face = found[0]
        scale = SCENE[0] / max(picture.shape[:2])
        aligned = (arcface_matrix(face.landmarks), (112, 112))
        views = {
            "detector": (np.array([[scale, 0, 0], [0, scale, 0]]), SCENE[::-1]),
            "recognizer": aligned,
            "pose": aligned if "recognizer" in networks["pose"].roles else (box_matrix(face.box, 64), (64, 64)),
            "expression": (expression_matrix(face.landmarks), EXPRESSION_SIZE[::-1]),
            "ifqa": (ffhq_matrix(face.landmarks, 256), (256, 256)),
        }
        for role in rows:
            matrix, size = views[role]
            rows[role].append(cv2.warpAffine(picture, matrix, size))
    if not rows["detector"]:
        raise StreamgateError(f"no faces in {', '.join(map(str, folders))}; give folders with pictures of faces")
    return {role: np.stack(pictures) for role, pictures in rows.items()}


def crops(folder: Path, count: int, networks: Mapping[str, Weights], into: Path, clock: Clock) -> Iterator[int]:
    """Write the crops for each role to a file in `into`; yields the number of faces."""
    rows = crops_of([folder], networks, count, clock)
    for role, pictures in rows.items():
        np.save(into / f"{role}.npy", pictures)
    yield len(next(iter(rows.values())))


def measure(weights: Weights, rows_file: Path, device: Device, card: Card, clock: Clock) -> Iterator[Measured]:
    """Measure one network in each precision."""
    ready(device)
    # Converting a large network takes many seconds, and the network is opened again for each batch size.
    sessions.prepare = lru_cache(1)(sessions.prepare)
    large = weights.path.stat().st_size > LARGE_BYTES
    rows = np.load(rows_file)
    if large:
        rows = rows[:FACES_LARGE]
    expected = Session(weights, "cpu", threads=usable_cores()).run_pictures(rows)
    content = weights.path.read_bytes()
    for precision in PRECISIONS:
        what = f"{weights.name} in {precision}"
        if clock.allows(what, 5):
            try:
                yield _measured(weights, precision, rows, expected, device, card, content, clock, large=large)
            except Exception as error:
                clock.failed(what, error)


def _measured(
    weights: Weights, precision: str, rows: Array, expected: Mapping[str, Array], device: Device, card: Card,
    content: bytes, clock: Clock, *, large: bool,
) -> Measured:  # fmt: skip
    deviations: dict[str, float] = {}
    rates: dict[int, float] = {}
    sizes = BATCHES_CPU if device.index is None else BATCHES_LARGE if large else BATCHES
    for batch in reversed(sizes):
        what = f"{weights.name} in {precision}, batches of {batch}"
        if not clock.allows(what, 4 * TRIAL_S):
            continue
        session = Session(weights, device, precision=precision, batch=batch)
        if not deviations:
            got = session.run_pictures(rows)
            deviations = {name: _deviation(got[name], value) for name, value in expected.items()}
        rates[batch] = _rate(session, rows, batch)
        for note in session.notes:
            say(f"{what}: {note}")
    best = max(rates.values(), default=0.0)
    where = max(deviations, key=lambda name: deviations[name], default="")
    deviation = deviations.get(where, float("nan"))
    said = ", ".join(f"{batch}: {rate:,.0f}" for batch, rate in sorted(rates.items()))
    say(f"{weights.name} in {precision}: faces a second by batch {said}; deviation {deviation:.1e} ({where})")
    peak = card.peak(precision)
    share = 2e-12 * multiplications(content, rows.shape[1:]) * best / peak if peak else None
    return Measured(weights.name, precision, rates, deviation, where, share)


def _deviation(got: Array, expected: Array) -> float:
    both = np.isfinite(got) & np.isfinite(expected)
    if not np.array_equal(np.isfinite(got), np.isfinite(expected)):
        return float("inf")
    off = np.abs(got[both] - expected[both]) / np.maximum(1, np.abs(expected[both]))
    return float(off.max(initial=0.0))


def _rate(session: Session, rows: Array, batch: int) -> float:
    """Faces per second in batches of `batch`, including transfers."""
    chunk = np.resize(rows, (batch, *rows.shape[1:]))
    session.run_pictures(chunk)
    began, count = perf_counter(), 0
    while perf_counter() - began < TRIAL_S:
        session.run_pictures(chunk)
        count += batch
    return count / (perf_counter() - began)


def parts_of(
    networks: Mapping[str, Weights], folder: Path, device: Device, card: Card
) -> Iterator[tuple[str, partial[Iterator[Measured]]]]:
    """The name of each network, once, and the function that measures it."""
    once = {weights.path: (weights, role) for role, weights in reversed(list(networks.items()))}
    for weights, role in once.values():
        yield weights.name, partial(measure, weights, folder / f"{role}.npy", device, card)


def multiplications(content: bytes, size: tuple[int, ...]) -> int:
    """Number of multiplications in convolutions and matrix products for one picture of `size` (H, W, 3)."""
    import onnx

    model = onnx.load_model_from_string(content)
    stored = {one.name: tuple(one.dims) for one in model.graph.initializer}
    (given,) = [one for one in model.graph.input if one.name not in stored]
    dims = given.type.tensor_type.shape.dim
    wanted = (1, *size) if dims[-1].dim_value == 3 else (1, 3, *size[:2])
    for dim, value in zip(dims, wanted, strict=True):
        dim.dim_value = value
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {one.name: _shape(one) for one in (*inferred.value_info, *inferred.output, *inferred.input)} | stored
    total = 0
    for node in inferred.node:
        made = prod(shapes.get(node.output[0]) or (0,))
        if node.op_type == "Conv":
            total += made * prod((shapes.get(node.input[1]) or (0, 0))[1:])
        elif node.op_type in ("Gemm", "MatMul"):
            total += made * (shapes.get(node.input[0]) or (0,))[-1]
    return total


def _shape(value: Any) -> tuple[int, ...]:
    # Only the batch axis may have no fixed size here.
    return tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
