"""Inference sessions of ONNX Runtime, which is imported when the first network opens."""

from __future__ import annotations

import hashlib

import numpy as np

from streamgate.errors import DeviceError, StreamgateError, WeightsError
from streamgate.frames import Array
from streamgate.networks.device import Device, choose_device, load_onnxruntime
from streamgate.weights.catalog import InputSpec
from streamgate.weights.store import Weights

BATCH_SIZES = (1, 2, 4, 8, 16)
"""Batches on a GPU are padded to one of these, so that shapes, and with them kernels, stay few."""


class Session:
    """One ONNX file on one device, verified against the hash of its receipt or card.

    `run_rows` gives the same bits for a row whatever rows come with it: on the CPU each row is run by
    itself (measured: batches of 2 to 8 are no faster for detector and recognizer, and change the last bits of
    spread and pose); on CUDA rows are padded to fixed batch sizes. Safe to call from several threads.
    """

    def __init__(self, weights: Weights, device: str | Device = "auto", threads: int = 1) -> None:
        """Open `weights` on `device` (or what `choose_device` makes of it), with `threads` inside one run (CPU).

        Raises:
            WeightsError: the file is missing, changed, or not a model that runs.
            DeviceError: CUDA was asked for and is not what the session runs on.
            StreamgateError: ONNX Runtime is not installed.
        """
        ort = load_onnxruntime()
        chosen = device if isinstance(device, Device) else choose_device(device)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Waiting threads sleep instead of burning a core that decoding could use.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Pictures of many sizes pass through the detector; a memory plan for each would add up.
        options.enable_mem_pattern = False
        self.weights = weights
        try:
            self._session = ort.InferenceSession(
                _verified_bytes(weights), options, providers=chosen.providers()
            )
        except StreamgateError:
            raise
        except Exception as error:  # onnxruntime raises its own, unrelated exception types
            reason = (str(error).splitlines() or [""])[0]
            raise WeightsError(f"{weights.name}: {weights.path} cannot be run ({reason})") from error
        self.on_cuda = self._session.get_providers()[0] == "CUDAExecutionProvider"
        # Asking for CUDA never raises: it silently runs on the CPU (DESIGN 7).
        if chosen.index is not None and not self.on_cuda:
            raise DeviceError(
                f"device {chosen.name}: driver and libraries load, but ONNX Runtime runs {weights.name} on the CPU; "
                "see that its CUDA version and the driver fit, or use --device cpu"
            )
        self.inputs = tuple((tuple(one.shape), str(one.type)) for one in self._session.get_inputs())
        """Shape (numbers, or names of what may vary) and type of each input."""
        if not self.inputs:
            raise WeightsError(f"{weights.name}: {weights.path} has no input")
        self._input = self._session.get_inputs()[0].name
        # Some imported graphs mix the rows of a batch; their batch axis is fixed at 1.
        self._single = self.inputs[0][0][:1] == (1,)
        self.outputs = tuple(output.name for output in self._session.get_outputs())

    def run(self, batch: Array) -> dict[str, Array]:
        """All outputs by name for one ready-made batch."""
        return dict(zip(self.outputs, self._session.run(None, {self._input: batch}), strict=True))

    def run_rows(self, rows: Array) -> dict[str, Array]:
        """All outputs by name for rows (N, ...), N >= 1, each row's figures independent of the others."""
        if not self.on_cuda or self._single:
            parts = [self.run(rows[i : i + 1]) for i in range(len(rows))]
        else:
            largest = BATCH_SIZES[-1]
            parts = [self._run_padded(rows[i : i + largest]) for i in range(0, len(rows), largest)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def _run_padded(self, rows: Array) -> dict[str, Array]:
        size = next(size for size in BATCH_SIZES if size >= len(rows))
        padding = np.repeat(rows[-1:], size - len(rows), axis=0)
        outputs = self.run(np.concatenate([rows, padding]))
        return {name: output[: len(rows)] for name, output in outputs.items()}

    def need_outputs(self, *names: str) -> None:
        """Refuse a graph that lacks one of the outputs its role is read from.

        Raises:
            WeightsError: it does.
        """
        missing = [name for name in names if name not in self.outputs]
        if missing:
            raise WeightsError(f"{self.weights.name}: its graph has no output {', '.join(missing)}")


def check_pictures(pictures: Array, size: int | tuple[int, int]) -> Array:
    """Contiguous uint8 (N, H, W, 3), size the side or (H, W), or a ValueError that says what came instead."""
    pictures = np.asarray(pictures)
    height, width = (size, size) if isinstance(size, int) else size
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[1:] != (height, width, 3):
        raise ValueError(f"expected RGB uint8 (N, {height}, {width}, 3), got {pictures.dtype} {pictures.shape}")
    return np.ascontiguousarray(pictures)


def as_input(pictures: Array, spec: InputSpec) -> Array:
    """RGB uint8 (N, H, W, 3) as the graph wants it (see InputSpec)."""
    if spec.dtype == "uint8":
        return pictures
    if spec.colour == "BGR":
        pictures = pictures[..., ::-1]
    planes = pictures.transpose(0, 3, 1, 2).astype(np.float32)
    mean = np.asarray(spec.mean, np.float32).reshape(1, 3, 1, 1)
    scale = np.asarray(spec.scale, np.float32).reshape(1, 3, 1, 1)
    return np.ascontiguousarray((planes - mean) * scale)


def _verified_bytes(weights: Weights) -> bytes:
    """The file's content, which must hash to what its receipt or card says."""
    try:
        content = weights.path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{weights.name}: {weights.path} cannot be read ({error.strerror}); run `streamgate models pull`"
        ) from error
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        raise WeightsError(
            f"{weights.name}: {weights.path} is not what its receipt describes; run `streamgate models pull`"
        )
    return content
