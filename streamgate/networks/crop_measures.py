"""Measures that use their own crop: users' ONNX files, pyiqa metrics, NIQE and BRISQUE."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamgate.errors import DeviceError, UsageError, WeightsError, display, one_line
from streamgate.frames import Array
from streamgate.measures import CropCard, MeasureSpec
from streamgate.networks.device import Device
from streamgate.networks.io_binding import device_error, is_fault
from streamgate.networks.natural_statistics import brisque, niqe
from streamgate.networks.sessions import RowSession
from streamgate.weights.catalog import InputSpec
from streamgate.weights.parameters import identity_of, parameters_of
from streamgate.weights.store import Weights, pulled

OUTPUT = "value"
"""Name of the single output of a measure that takes its own crop."""
MAX_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class CropOutput:
    """Result for one crop: the value (NaN if it failed), and a map float32 (h, w) if there is one."""

    value: float
    map: Array | None = None


Rate = Callable[[Array], tuple[Array, Array | None]]
"""A function that takes crops RGB uint8 (N, S, S, 3) and returns values (N,) and maps (N, h, w) or None."""


class CropMeasure:
    """An opened measure that rates crops. Thread-safe if its engine is.

    `sha256` is the hash of the measure's file or parameters, and `record` is the measure's entry for `summary.json`.
    `notes` are remarks for the user about how the measure runs on a GPU; later runs may add more.
    """

    def __init__(
        self, name: str, card: CropCard, rate: Rate, sha256: str, licence: str = "", notes: Sequence[str] = ()
    ) -> None:
        self.name, self.card, self.sha256, self._licence, self.notes = name, card, sha256, licence, notes
        self._rate = rate

    @property
    def identity(self) -> str:
        """A short hash of everything that determines the meaning of a value."""
        text = json.dumps([self.sha256, self.card.meaning()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def record(self) -> dict[str, str]:
        file = Path(self.card.file).name if self.card.file else self.card.engine
        return {
            "role": f"measure {self.name}", "name": self.name, "tier": self.card.engine, "file": file,
            "sha256": self.sha256, "licence": self._licence,
        }  # fmt: skip

    def run(self, crops: Sequence[Array]) -> list[CropOutput]:
        """Rate crops. If this fails, issue a warning and return NaN for each crop.

        Raises DeviceError if a GPU fails.
        """
        try:
            values, maps = self._rate(np.stack(crops))
            return [CropOutput(float(value), None if maps is None else maps[row]) for row, value in enumerate(values)]
        except DeviceError:
            raise
        except Exception as error:  # an error in a third-party network or library affects only these faces
            words = one_line(f"{type(error).__name__}: {error}")
            warnings.warn(f"measure {self.name} failed on a face ({words})", stacklevel=2)
            return [CropOutput(float("nan")) for _ in crops]


def open_measure(spec: MeasureSpec, device: Device, threads: int) -> CropMeasure:
    """Open the measure of a spec that has a card.

    Raises WeightsError if the file or the parameters of the measure are missing or do not match its card, UsageError if
    pyiqa is needed but missing, and DeviceError if the measure does not run on the GPU.
    """
    assert spec.card is not None
    card = spec.card
    if card.engine == "onnx":
        return _of_onnx(spec.name, card, device, threads)
    if card.engine == "pulled":
        return _of_graph(spec.name, card, pulled(card.file, f"measure {spec.name}"), device, threads)
    if card.engine == "pyiqa":
        return _of_pyiqa(spec, card, device)
    parameters = parameters_of(card.engine)
    try:
        single = niqe(*parameters) if card.engine == "niqe" else brisque(*parameters)
    except (ValueError, KeyError, OSError) as error:
        raise WeightsError(
            f"measure {spec.name}: its parameters cannot be read ({one_line(str(error))}); run `streamgate models pull "
            "measures`"
        ) from None
    return CropMeasure(spec.name, card, lambda crops: (np.array([single(one) for one in crops]), None),
                       identity_of(card.engine))  # fmt: skip


def _of_onnx(name: str, card: CropCard, device: Device, threads: int) -> CropMeasure:
    path = Path(card.file)
    what = f"measure {name}: {display(path)}"
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise WeightsError(f"{what} does not exist or is larger than 2 GiB; check measures.{name}.onnx")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"{what} cannot be read ({error.strerror})") from None
    weights = Weights(f"measure {name}", (), "own", path, sha256, "", "", InputSpec(), {}, None)
    return _of_graph(name, card, weights, device, threads)


def _of_graph(name: str, card: CropCard, weights: Weights, device: Device, threads: int) -> CropMeasure:
    what = f"measure {name}: {display(weights.path)}"
    session = RowSession(weights, device, threads)
    (shape, dtype), *others = session.inputs
    if others:
        raise WeightsError(f"{what} has {1 + len(others)} inputs; export it with one input, a batch of crops")
    known = [size if isinstance(size, int) else None for size in shape]
    if len(known) != 4 or dtype not in ("tensor(float)", "tensor(uint8)", "tensor(float16)"):
        raise WeightsError(f"{what} takes {dtype} of shape {list(shape)}; export it for a batch of pictures")
    channels_last = known[3] in (1, 3) and known[1] not in (1, 3)
    channels = known[3] if channels_last else known[1]
    sides = known[1:3] if channels_last else known[2:]
    if channels not in (None, 1 if card.colour == "grey" else 3):
        raise WeightsError(f"{what} takes {channels} channels; set measures.{name}.colour to match")
    if known[0] not in (None, 1):
        raise WeightsError(f"{what} takes batches of {known[0]}; export it with a dynamic batch size, or with size 1")
    if any(side not in (None, card.size) for side in sides):
        raise WeightsError(f"{what} takes pictures of {sides[0]}x{sides[1]}; set measures.{name}.size to match")
    for output in (card.output, card.map):
        if output and output not in session.outputs:
            raise WeightsError(f"{what} has no output {output!r}; it has {', '.join(session.outputs)}")
    output = card.output or session.outputs[0]

    def rate(crops: Array) -> tuple[Array, Array | None]:
        found = session.run_rows(_batch(crops, card, channels_last, dtype))
        return _numbers(found[output], output, len(crops)), _maps(found[card.map], len(crops)) if card.map else None

    two = np.full((1 if known[0] == 1 else 2, card.size, card.size, 3), 128, np.uint8)
    try:
        # This check needs a batch of several crops. On the CPU, `run_rows` runs crops one by one, so it would not
        # reveal a graph that returns one value per batch.
        _numbers(session.run(_batch(two, card, channels_last, dtype))[output], output, len(two))
        rate(two)
    except DeviceError:
        raise
    except Exception as error:
        reason = one_line((str(error).splitlines() or [""])[0])
        raise WeightsError(f"{what} fails on a crop of {card.size} pixels ({reason})") from None
    return CropMeasure(name, card, rate, weights.sha256, weights.licence, session.notes)


def _batch(crops: Array, card: CropCard, channels_last: bool, dtype: str) -> Array:
    """Convert crops RGB uint8 (N, S, S, 3) to the graph's input."""
    if card.colour == "BGR":
        crops = crops[..., ::-1]
    elif card.colour == "grey":
        crops = np.round(crops @ np.array([0.299, 0.587, 0.114]))[..., None]
    if dtype == "tensor(uint8)":
        found: Array = crops.astype(np.uint8)
    else:
        low, high = card.span
        count = crops.shape[-1]
        scaled = crops.astype(np.float32) / 255 * (high - low) + low
        found = (scaled - np.array(card.mean[:count], np.float32)) / np.array(card.std[:count], np.float32)
        found = found.astype(np.float16 if dtype == "tensor(float16)" else np.float32)
    return np.ascontiguousarray(found if channels_last else found.transpose(0, 3, 1, 2))


def _numbers(found: Array, output: str, count: int) -> Array:
    """Values float64 (N,)."""
    values = np.asarray(found, np.float64)
    if values.ndim == 0 or values.shape[0] != count or values.size != count:
        shape = list(values.shape)
        raise ValueError(f"output {output} has shape {shape} for {count} faces; expected one number per face")
    return values.reshape(count)


def _maps(found: Array, count: int) -> Array:
    """Maps float32 (N, h, w)."""
    maps = np.asarray(found, np.float32)
    sides = [size for size in maps.shape[1:] if size != 1]
    if len(maps) != count or len(sides) != 2:
        raise ValueError(f"the map has shape {list(maps.shape)} for {count} faces; expected one 2D map per face")
    return maps.reshape(count, *sides)


def _of_pyiqa(spec: MeasureSpec, card: CropCard, device: Device) -> CropMeasure:
    try:
        import pyiqa
        import torch
    except ImportError:
        raise UsageError(f"measure {spec.name} needs pyiqa: pip install 'streamgate[iqa]'") from None
    where = "cpu" if device.index is None else f"cuda:{device.index}"
    if device.index is not None:
        if not torch.cuda.is_available():
            raise DeviceError(
                f"device {device.name}: measure {spec.name} needs torch with CUDA, but torch {torch.__version__} "
                "finds no CUDA device; install the build for your CUDA from pytorch.org, or use --device cpu"
            )
        # TF32 is disabled, as for the other networks, because it changes values by 1e-2.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        metric: Any = pyiqa.create_metric(card.file, device=torch.device(where))
    except Exception as error:
        raise WeightsError(f"measure {spec.name}: pyiqa cannot create the metric {one_line(card.file)!r} "
                           f"({one_line(str(error))}); check measures.{spec.name}.pyiqa") from None  # fmt: skip
    if getattr(metric, "metric_mode", "NR") != "NR":
        raise WeightsError(
            f"measure {spec.name}: {one_line(card.file)} needs a reference picture; use a no-reference metric"
        )
    falls = bool(getattr(metric, "lower_better", False))
    if falls != (spec.better == "lower"):
        right = "lower" if falls else "higher"
        raise WeightsError(
            f'measure {spec.name}: {right} values of {one_line(card.file)} are better; set '
            f'measures.{spec.name}.better = "{right}"'
        )

    def values_of(crops: Array) -> Array:
        batch = torch.from_numpy(np.ascontiguousarray(crops.transpose(0, 3, 1, 2)).astype(np.float32) / 255).to(where)
        with torch.no_grad():
            found: Array = metric(batch).detach().cpu().numpy().astype(np.float64)
        return found

    def rate(crops: Array) -> tuple[Array, Array | None]:
        if device.index is None:
            values = values_of(crops)
        else:
            try:
                values = device.call(lambda: values_of(crops))
            except Exception as error:
                if is_fault(error):
                    raise device_error(device, f"measure {spec.name}", error) from error
                raise
        if values.size != len(crops):
            raise ValueError(f"{values.size} values for {len(crops)} faces")
        return values.reshape(len(crops)), None

    version = f"pyiqa {getattr(pyiqa, '__version__', '')} {card.file}"
    return CropMeasure(spec.name, card, rate, hashlib.sha256(version.encode()).hexdigest())
