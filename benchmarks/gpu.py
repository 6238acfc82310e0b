"""Does a GPU work on this machine, how fast is it, and does it compute the same values as the CPU?

    python benchmarks/gpu.py [CLIP] [--device cuda] [--seconds 460] [--faces FOLDER] [--count 200] [--large]

The script takes at most eight minutes and needs no network access. First it runs each network in batches of 1 to 64,
in fp32 and fp16, and measures faces per second, the share of the GPU's peak, and the largest deviation from the CPU on
real faces. Then it runs the whole pipeline with 1, 4 and 16 files at once, decoded by the CPU and by the GPU, with the
embedded and the large networks, and in exhaustive mode; it measures seconds of video per second, the bottleneck and
memory. The large networks are official IFQA and ArcFace R100 with random weights; they are used with `--large` (the
default if there is a GPU and torch).

Every part runs in a separate process with a time limit and reports results while it runs. Parts that crash or hang are
left out, and the section says so. Without a GPU, the script names what is missing and exits with code 6. `--device cpu`
runs the same code with the CPU provider, to test the script; it only prints the section. Results from a GPU are written
to benchmarks/RESULTS.md after every part.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from common import RESULTS, SHARED, Machine, command_line, say, table, target, write_section
from gpu_card import Card
from gpu_networks import BATCHES, FACES_LARGE, LARGE_BYTES, Measured, crops, parts_of
from gpu_parts import Clock, Running, results_of
from gpu_runs import JOBS, Ran, picks, runs

from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import StreamgateError
from streamgate.networks.device import Device, choose_device, load_onnxruntime
from streamgate.weights.store import models_folder, resolve

SECONDS = 460.0
"""Time limit of all parts together; with a larger limit, each part may take longer in proportion."""
CROPS_S, PICKS_S, LARGE_S = 60.0, 60.0, 150.0
NETWORK_S, LARGE_NETWORK_S = 40.0, 60.0
RUNS_S, EXHAUSTIVE_S = 100.0, 50.0
LARGE_ROLES = ("recognizer", "ifqa")
IMPORTED = "imported"
CALIBRATIONS = {
    "iresnet": {"id": "random", "drop_rate": 0.5, "alpha": 130.0, "r": 0.88},
    "ifqa": {"id": "random", "x0": 0.5, "w": 0.1},
}
"""Arbitrary calibrations of the large networks, whose weights are random; a run needs a calibration."""
HALF = ("precision.ifqa=fp16", "precision.recognizer=fp16")
EXHAUSTIVE = ("exhaustive=true",)
TOLERANCE = 1e-3
"""Largest deviation from the CPU in fp32 (docs/design.md 3): relative for values above 1, absolute below."""


@dataclass(slots=True)
class Found:
    """The results so far."""

    device: Device
    card: Card
    machine: Machine
    clock: Clock
    faces: int = 0
    measured: list[Measured] = field(default_factory=list)
    ran: list[Ran] = field(default_factory=list)
    same: bool | None = None


def main() -> int:
    given = _arguments()
    machine = Machine.here()
    try:
        device = choose_device(given.device)
        resolve(given.models)
    except StreamgateError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return error.exit_code
    if device.index is None:
        device = Device("cpu", f"{device.reason}; it takes the place of a GPU", bound=True)
    say(f"device: {device}")
    clock = Clock.of(given.seconds, max(1.0, given.seconds / SECONDS))
    found = Found(device, Card.here(device.index), machine, clock)
    with tempfile.TemporaryDirectory() as folder:
        for _ in _parts(given, found, Path(folder)):
            if device.index is not None:
                write_section(given.results, "gpu", _body(found))
    body = _body(found)
    if device.index is None:
        print(body)
    else:
        write_section(given.results, "gpu", body)
    # Nothing was measured: the first part gives the reason.
    return 0 if found.measured or found.ran else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, default=SHARED / "videos" / "fsgan_conan.mp4")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit of all parts together")
    parser.add_argument("--faces", type=Path, default=SHARED / "faces" / "hq_val", help="pictures of one face each")
    parser.add_argument("--count", type=int, default=200, help="number of faces")
    parser.add_argument("--models", default=DEFAULT_MODELS)
    parser.add_argument("--large", action=argparse.BooleanOptionalAction, help="also official IFQA and ArcFace R100")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def _parts(given: argparse.Namespace, found: Found, folder: Path) -> Iterator[None]:
    """Run as many parts as there is time for, the most important first; yields after every new result."""
    device, card, clock = found.device, found.card, found.clock
    models, clip = given.models, given.clip
    networks = resolve(models)
    with _large(given, device, clock, folder) as large:
        cutting = partial(crops, given.faces, given.count, networks, folder)
        for found.faces in results_of("crops", cutting, CROPS_S, clock):
            yield
        for name, part in parts_of(networks, folder, device, card):
            yield from _measuring(found, name, part, NETWORK_S)
        what = "kept faces compared with the CPU's"
        for found.same in results_of(what, partial(picks, clip, models, device), PICKS_S, clock):
            say(f"{what}: {'the same' if found.same else 'different'}")
            yield
        yield from _running(found, "embedded" if models == "embedded" else models, models, (), JOBS, clip, RUNS_S)
        if (wide := large()) is not None:
            roles = {role: weights for role, weights in resolve(wide).items() if role in LARGE_ROLES}
            for name, part in parts_of(roles, folder, device, card):
                yield from _measuring(found, name, part, LARGE_NETWORK_S)
            yield from _running(found, "large, fp16", wide, HALF, JOBS, clip, RUNS_S)
            settings = (*HALF, *EXHAUSTIVE)
            yield from _running(found, "large, fp16, exhaustive", wide, settings, JOBS[-1:], clip, EXHAUSTIVE_S)
        yield from _running(found, f"{models}, exhaustive", models, EXHAUSTIVE, JOBS[-1:], clip, EXHAUSTIVE_S)


def _measuring(found: Found, name: str, part: partial[Iterator[Measured]], most_s: float) -> Iterator[None]:
    if not found.faces:
        found.clock.left_out.append(f"{name} by itself (there are no crops)")
        return
    for measured in results_of(f"{name} by itself", part, most_s, found.clock):
        found.measured.append(measured)
        yield


def _running(
    found: Found, name: str, models: str, settings: tuple[str, ...], jobs: tuple[int, ...], clip: Path, most_s: float
) -> Iterator[None]:
    part = partial(runs, name, models, settings, jobs, clip, found.device, found.card)
    for ran in results_of(f"runs: {name}", part, most_s, found.clock):
        found.ran.append(ran)
        yield


def _put_large(models: Path, clock: Clock) -> Iterator[bool]:
    """Put official IFQA and ArcFace R100 into the models folder (which $STREAMGATE_MODELS must name)."""
    import torch

    from streamgate.convert import import_weights
    from streamgate.convert.ifqa import OFFICIAL, Ifqa
    from streamgate.convert.iresnet import DEPTHS, iresnet

    torch.manual_seed(0)
    blocks = next(blocks for blocks, depth in DEPTHS.items() if depth == 100)
    checkpoints: dict[str, Any] = {
        "iresnet": iresnet(blocks).state_dict(),
        "ifqa": {"D": Ifqa(OFFICIAL).state_dict()},
    }
    for name, state in checkpoints.items():
        say(f"{name} at full size with random weights")
        file = models / f"{name}.pth"
        torch.save(state, file)
        made = import_weights(file, name=name)
        file.unlink()
        receipt = made.path.parent / "receipt.json"
        receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"calibration": CALIBRATIONS[name]}))
    yield True


@contextmanager
def _large(
    given: argparse.Namespace, device: Device, clock: Clock, folder: Path
) -> Iterator[Callable[[], str | None]]:
    """Make the large networks in another process while the block runs.

    Yields a function that waits for them and returns their value for `--models`, or None if they could not be made.
    """
    wanted = given.large if given.large is not None else device.index is not None
    if not wanted or importlib.util.find_spec("torch") is None:
        clock.left_out.append("large networks (torch is not installed)" if wanted else "large networks (--no-large)")
        yield lambda: None
        return
    before, models = os.environ.get("STREAMGATE_MODELS"), folder / "models"
    if models_folder().is_dir():
        # Fetched weights remain available next to the large networks.
        shutil.copytree(models_folder(), models, ignore=shutil.ignore_patterns("downloads", IMPORTED))
    models.mkdir(exist_ok=True)
    os.environ["STREAMGATE_MODELS"] = str(models)
    running = Running("large networks", partial(_put_large, models), LARGE_S, clock)
    try:
        yield lambda: f"{IMPORTED},{given.models}" if list(running.results()) else None
    finally:
        running.stop()
        os.environ.pop("STREAMGATE_MODELS")
        if before is not None:
            os.environ["STREAMGATE_MODELS"] = before


def _body(found: Found) -> str:
    ort = load_onnxruntime()
    device, card = found.device, found.card
    networks = [
        [
            one.name,
            one.precision,
            *(f"{one.rates[batch]:,.0f}" if batch in one.rates else "" for batch in BATCHES),
            "" if one.share is None else f"{one.share:.0%}",
            f"{one.deviation:.1e} ({one.where})",
        ]
        for one in found.measured
    ]
    lines = [
        "## GPU",
        "",
        f"`{command_line('gpu.py', sys.argv[1:])}`",
        "",
        *found.machine.lines(),
        f"- GPU: {card.words}",
        f"- ONNX Runtime {ort.__version__}, CUDA {ort.cuda_version or 'none'}; device: {device}",
        *([] if device.index is not None else ["- **not run on a GPU: the CPU took its place, to test the script**"]),
        "",
        "The table shows the faces per second by batch size, including transfers, the share of the GPU's dense peak "
        f"at the best batch size, and the largest deviation from the CPU on {found.faces} real faces ({FACES_LARGE} "
        f"faces for networks of more than {LARGE_BYTES >> 20} MiB, whose weights are random). The deviation is "
        "relative for values above 1 and absolute below.",
        "",
        table(["network", "precision", *(str(batch) for batch in BATCHES), "of peak", "deviation"], networks),
        "",
        "The next table is about the whole pipeline, without the time for opening the networks: seconds of video per "
        "second of wall time, frames per second, the bottleneck, utilisation and memory.",
        "",
        table(
            ["networks", "files at once", "decoding", "video s/s", "frames/s", "bottleneck", "CPU", "GPU", "decoder",
             "GPU GiB", "process GiB"],
            [one.row() for one in found.ran],
        ),
        "",
    ]  # fmt: skip
    if full := [one.deviation for one in found.measured if one.precision == "fp32"]:
        within = max(full) <= TOLERANCE
        lines.append(target("largest deviation in fp32", f"{max(full):.1e}", f"at most {TOLERANCE:.0e}", within))
    if found.same is not None:
        said = "the same" if found.same else "different"
        lines.append(target("kept faces compared with the CPU's", said, "the same", found.same))
    if found.clock.left_out:
        lines.append(f"- left out: {'; '.join(dict.fromkeys(found.clock.left_out))}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
