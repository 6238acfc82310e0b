"""Does a GPU work here, how fast, and does it compute what the CPU computes? At most eight minutes, no network.

    python benchmarks/gpu.py [CLIP] [--device cuda] [--seconds 480] [--faces FOLDER] [--count 200] [--large]

Each network in batches of 1 to 64, in fp32 and fp16: faces a second, share of what the card can do, largest deviation
from the CPU on real faces. Then the whole way with 1, 4 and 16 files at once, decoded by the CPU and by the GPU, with
the embedded and the large networks, and exhaustively: seconds of video a second, what limits it, memory. With `--large`
(the default where there are a GPU and torch) official IFQA and ArcFace R100 run at full size with random weights.

What there is no time for is left out, and said. Without a card it says what is missing and exits with 6; `--device cpu`
goes the same way with the CPU's provider, to try the script, and prints what it would write: only a card's results get
into benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from common import RESULTS, SHARED, Machine, command_line, say, table, target, usable_cores, write_section
from gpu_card import Card
from gpu_cost import multiplications
from gpu_faces import crops_of
from gpu_large import IMPORTED, put_large
from gpu_runs import Clock, Ran, picks_of, runs

from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import StreamgateError
from streamgate.frames import Array
from streamgate.networks import sessions
from streamgate.networks.device import Device, choose_device, load_onnxruntime
from streamgate.networks.graphs import PRECISIONS
from streamgate.networks.sessions import Session
from streamgate.weights.store import Weights, resolve

BATCHES = (1, 4, 16, 32, 64)
FACES_LARGE, BATCHES_LARGE = 16, (1, 16, 64)
"""Of networks that take a CPU long, and long to open."""
BATCHES_CPU = (1, 4)
"""Where there is no card: this tries the script."""
LARGE_BYTES = 50 << 20
TRIAL_S = 0.4
"""For which each network, precision and batch size is run."""
NETWORKS_SHARE = 0.5
"""Of the time, for the networks by themselves."""
TOLERANCE = 1e-3
"""Largest deviation of a raw value from the CPU's in fp32, of its own size where that is above 1 (DESIGN 3)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One network in one precision: faces a second by batch size, deviation from the CPU and the output it is of."""

    name: str
    precision: str
    rates: Mapping[int, float]
    deviation: float
    where: str
    share: float | None
    """Of the card's peak, at the best batch size."""


def main() -> int:
    given = _arguments()
    clock = Clock(given.seconds)
    # A large network takes many seconds to convert, and each size of a batch opens it anew.
    sessions.prepare = lru_cache(1)(sessions.prepare)
    try:
        device = choose_device(given.device)
        if device.index is None:
            device = Device("cpu", f"{device.reason}; used like a GPU", bound=True)
        say(f"device: {device}")
        card = Card.here(device.index)
        with _large(given, device, clock) as large:
            measured = _networks(given, device, card, large, clock.part(NETWORKS_SHARE))
            ran = list(runs(given.clip, given.models, large, device, clock))
            picks = None
            if clock.allows("kept faces beside the CPU's", 30):
                with clock.attempt("kept faces beside the CPU's"):
                    picks = picks_of(given.clip, given.models, device)
    except StreamgateError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return error.exit_code
    body = _body(given.count, device, card, measured, ran, picks, clock)
    if device.index is None:
        print(body)
    else:
        write_section(given.results, "gpu", body)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, default=SHARED / "videos" / "fsgan_conan.mp4")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=480.0, help="how long all may take")
    parser.add_argument("--faces", type=Path, default=SHARED / "faces" / "hq_val", help="pictures with a face each")
    parser.add_argument("--count", type=int, default=200, help="how many of them")
    parser.add_argument("--models", default=DEFAULT_MODELS)
    parser.add_argument("--large", action=argparse.BooleanOptionalAction, help="official IFQA and R100, random weights")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


@contextmanager
def _large(given: argparse.Namespace, device: Device, clock: Clock) -> Iterator[str | None]:
    """The large networks as `--models` takes them, for as long as the block runs; None without them."""
    wanted = given.large if given.large is not None else device.index is not None
    if not wanted or importlib.util.find_spec("torch") is None:
        clock.left_out.append("large networks (torch is not installed)" if wanted else "large networks (--no-large)")
        yield None
        return
    before = os.environ.get("STREAMGATE_MODELS")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STREAMGATE_MODELS"] = folder
        models = None
        try:
            with clock.attempt("large networks"):
                put_large(Path(folder), say)
                models = f"{IMPORTED},{given.models}"
            yield models
        finally:
            os.environ.pop("STREAMGATE_MODELS")
            if before is not None:
                os.environ["STREAMGATE_MODELS"] = before


def _networks(
    given: argparse.Namespace, device: Device, card: Card, large: str | None, clock: Clock
) -> list[Measured]:
    found = resolve(given.models)
    crops = crops_of([given.faces], found, given.count)
    chosen = {weights.path: (weights, role) for role, weights in reversed(found.items())}
    if large is not None:
        chosen |= {weights.path: (weights, role) for role, weights in resolve(large).items() if role in LARGE_ROLES}
    measured = []
    for weights, role in chosen.values():
        rows = crops[role]
        if weights.path.stat().st_size > LARGE_BYTES:
            rows = rows[:FACES_LARGE]
        if not clock.allows(f"{weights.name} by itself", 10):
            continue
        with clock.attempt(f"{weights.name} by itself"):
            expected = Session(weights, "cpu", threads=usable_cores()).run_pictures(rows)
            for precision in PRECISIONS:
                what = f"{weights.name} in {precision}"
                if clock.allows(what, 5):
                    with clock.attempt(what):
                        measured.append(_measure(weights, precision, rows, expected, device, card, clock))
    return measured


LARGE_ROLES = ("recognizer", "ifqa")


def _measure(
    weights: Weights,
    precision: str,
    rows: Array,
    expected: Mapping[str, Array],
    device: Device,
    card: Card,
    clock: Clock,
) -> Measured:
    deviations: dict[str, float] = {}
    rates: dict[int, float] = {}
    batches = BATCHES_LARGE if weights.path.stat().st_size > LARGE_BYTES else BATCHES
    for batch in reversed(batches if device.index is not None else BATCHES_CPU):
        if not clock.allows(f"{weights.name} in {precision}, batches of {batch}", 4 * TRIAL_S):
            continue
        session = Session(weights, device, precision=precision, batch=batch)
        if not deviations:
            got = session.run_pictures(rows)
            deviations = {name: _deviation(got[name], value) for name, value in expected.items()}
        rates[batch] = _rate(session, rows, batch)
        for note in session.notes:
            say(f"{weights.name} in {precision}, batches of {batch}: {note}")
    best = max(rates.values(), default=0.0)
    where = max(deviations, key=lambda name: deviations[name], default="")
    done = 2e-12 * multiplications(weights.path.read_bytes(), rows.shape[1:]) * best
    peak = card.peak(precision)
    say(f"{weights.name} in {precision}: {best:.0f} faces a second, deviation {deviations.get(where, 0):.1e}")
    return Measured(
        weights.name, precision, rates, deviations.get(where, float("nan")), where, done / peak if peak else None
    )


def _deviation(got: Array, expected: Array) -> float:
    both = np.isfinite(got) & np.isfinite(expected)
    off = np.abs(got[both] - expected[both]) / np.maximum(1, np.abs(expected[both]))
    return float(off.max(initial=0.0))


def _rate(session: Session, rows: Array, batch: int) -> float:
    """Faces a second in batches of `batch`, transfers included."""
    chunk = np.resize(rows, (batch, *rows.shape[1:]))
    session.run_pictures(chunk)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < TRIAL_S:
        session.run_pictures(chunk)
        count += batch
    return count / (time.perf_counter() - began)


def _body(
    count: int, device: Device, card: Card, measured: list[Measured], ran: list[Ran], same: bool | None, clock: Clock
) -> str:
    ort = load_onnxruntime()
    networks = [
        [
            one.name,
            one.precision,
            *(f"{one.rates[batch]:,.0f}" if batch in one.rates else "" for batch in BATCHES),
            "" if one.share is None else f"{one.share:.0%}",
            f"{one.deviation:.1e} ({one.where})",
        ]
        for one in measured
    ]
    lines = [
        "## GPU",
        "",
        f"`{command_line('gpu.py', sys.argv[1:])}`",
        "",
        *Machine.here().lines(),
        f"- card: {card.words}",
        f"- ONNX Runtime {ort.__version__}, CUDA {ort.cuda_version or 'none'}; device: {device}",
        *([] if device.index is not None else ["- **not run on a card: this is the CPU, used like a GPU**"]),
        "",
        "Faces a second by the pictures of a run, transfers included; share of the card's dense peak at the best one; "
        f"largest deviation from the CPU on {count} real faces ({FACES_LARGE} for the large networks, whose weights "
        "are random), of the value's own size where that is above 1.",
        "",
        table(["network", "precision", *(str(batch) for batch in BATCHES), "of peak", "deviation"], networks),
        "",
        "The whole way, opening of networks apart: seconds of video a second of wall, its frames a second, and what "
        "was at its limit.",
        "",
        table(
            ["networks", "files at once", "decoding", "video s/s", "frames/s", "limit", "CPU", "GPU", "decoder",
             "card GiB", "process GiB"],
            [one.row() for one in ran],
        ),
        "",
    ]  # fmt: skip
    if full := [one.deviation for one in measured if one.precision == "fp32"]:
        within = max(full) <= TOLERANCE
        lines.append(target("largest deviation in fp32", f"{max(full):.1e}", f"{TOLERANCE:.0e}", within))
    if same is not None:
        lines.append(target("kept faces beside the CPU's", "the same" if same else "others", "the same", same))
    if clock.left_out:
        lines.append(f"- left out: {'; '.join(dict.fromkeys(clock.left_out))}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
