"""Inference sessions of ONNX Runtime, which is only imported when the first network is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from streamgate.errors import DeviceError, WeightsError
from streamgate.frames import Array
from streamgate.networks.device import Device, choose_device, load_onnxruntime
from streamgate.networks.graphs import prepare, switch_of
from streamgate.networks.io_binding import BoundGraph, batch_of, device_error, is_fault, is_full, notes_on
from streamgate.weights.catalog import InputSpec
from streamgate.weights.store import Weights

BATCH_AXIS = "N"
"""Name of the first axis in the embedded graphs and in those that `streamgate.convert` creates."""

BATCH_SIZES = (1, 2, 4, 8, 16)
"""On a GPU, batches of prepared rows are padded to one of these sizes, to limit the number of shapes and kernels."""


class RowSession:
    """Runs an unmodified ONNX file, verified against its hash, on one device, with rows prepared by the caller.

    On the CPU, `run_rows` runs each row separately, so that the other rows do not change a row's result by a single
    bit. (Batches of 2 to 8 rows are no faster for detector and recognizer, and change the last bits of spread and
    pose.) On a GPU, rows are padded to fixed batch sizes. Thread-safe.
    """

    def __init__(self, weights: Weights, device: Device, threads: int = 1) -> None:
        """Open `weights` on `device`; on the CPU, one run uses `threads` threads.

        Raises:
            WeightsError: the file is missing, was changed, or is not a model that can be run.
            DeviceError: the session does not run on the requested GPU.
            StreamgateError: ONNX Runtime is not installed.
        """
        ort = load_onnxruntime()
        content = _verified_bytes(weights)
        self._device, self._name = device, weights.name
        self._largest = BATCH_SIZES[-1]
        self.notes: list[str] = []
        """Remarks for the user about how the network runs on a GPU, one line each; later runs may add more."""
        try:
            # If ONNX Runtime's own fallback were enabled, it would print to stdout and continue with other providers.
            self._session = self._call(
                lambda: ort.InferenceSession(
                    content, _options(threads), providers=device.providers(), enable_fallback=False
                )
            )
        except DeviceError:
            raise
        except Exception as error:  # onnxruntime raises its own, unrelated exception types
            reason = (str(error).splitlines() or [""])[0]
            raise WeightsError(f"{weights.name}: {weights.path} cannot be run ({reason})") from error
        device.check(self._session, weights.name)
        self.notes += notes_on(self._session, device, weights.name)
        self.inputs = tuple((tuple(one.shape), str(one.type)) for one in self._session.get_inputs())
        """Shape (integers, or names of dynamic axes) and type of each input."""
        if not self.inputs:
            raise WeightsError(f"{weights.name}: {weights.path} has no input")
        self._input = self._session.get_inputs()[0].name
        # In some graphs, the rows of a batch affect each other; the batch axis of such a graph is fixed at 1.
        self._single = self.inputs[0][0][:1] == (1,)
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        switches = {one.name for one in self._session.get_overridable_initializers()}
        self._optional = {name for name in self.outputs if switch_of(name) in switches}

    def run(self, batch: Array, without: str = "") -> dict[str, Array]:
        """All outputs by name for one prepared batch; for `without`, see `run_rows`."""
        fed = {self._input: batch}
        if without in self._optional:
            fed[switch_of(without)] = np.array(False)
        values = self._call(lambda: self._session.run(None, fed))
        return dict(zip(self.outputs, values, strict=True))

    def run_rows(self, rows: Array, without: str = "") -> dict[str, Array]:
        """All outputs by name for rows (N, ...), N >= 1; each row's values are independent of the other rows.

        without: an output that is not needed. If the graph can leave it out, the CPU does not compute it, and its
        values are NaN.
        """
        if self._device.index is None or self._single:
            parts = [self.run(rows[i : i + 1], without) for i in range(len(rows))]
        else:
            parts = []
            done = 0
            while done < len(rows):
                size = self._largest
                part = self._run_padded(rows[done : done + size])
                if part is not None:
                    parts.append(part)
                    done += size
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def _run_padded(self, rows: Array) -> dict[str, Array] | None:
        """Outputs of rows on a GPU; None if its memory was full, in which case the caller tries fewer rows at once."""
        size = next(size for size in BATCH_SIZES if size >= len(rows))
        padding = np.repeat(rows[-1:], size - len(rows), axis=0)
        try:
            outputs = self.run(np.concatenate([rows, padding]))
        except DeviceError as error:
            if size == 1 or error.__cause__ is None or not is_full(error.__cause__):
                raise
            self._largest = min(self._largest, size // 2)
            self.notes.append(
                f"{self._name}: the memory of {self._device.name} is full, so the network's batch size is "
                f"{self._largest} instead of {size}; stop other programs that use {self._device.name}, or lower --jobs"
            )
            return None
        return {name: output[: len(rows)] for name, output in outputs.items()}

    def _call(self, work: Callable[[], Any]) -> Any:
        # A GPU is used from a single thread, the CPU from any thread.
        if self._device.index is None:
            return work()
        try:
            return self._device.call(work)
        except Exception as error:  # onnxruntime raises its own, unrelated exception types
            if is_fault(error):
                raise device_error(self._device, self._name, error) from error
            raise


class Session:
    """Runs the ONNX file of a role, verified against the hash in its receipt or card, on one device.

    On the CPU, the other pictures do not change a picture's result by a single bit (see `RowSession`). On a GPU,
    pictures are run in batches (see `networks.io_binding`), and the other pictures change results by at most 1e-3.
    Thread-safe.
    """

    def __init__(
        self,
        weights: Weights,
        device: str | Device = "auto",
        threads: int = 1,
        precision: str = "fp32",
        batch: int | None = None,
    ) -> None:
        """Open `weights` on `device` (see `choose_device` for names); on the CPU, one run uses `threads` threads.

        On a GPU, `precision` is one of `graphs.PRECISIONS`, and `batch` is the number of pictures per run, which by
        default depends on the roles of the weights.

        Raises:
            WeightsError: the file is missing, was changed, or is not a model that can be run.
            DeviceError: CUDA was requested, but the session does not run on the GPU, or the GPU fails.
            StreamgateError: ONNX Runtime is not installed, or the package onnx, which a GPU requires.
        """
        device = device if isinstance(device, Device) else choose_device(device)
        self.weights = weights
        self._graph: RowSession | BoundGraph
        if device.bound:
            self._graph = _bound(weights, device, threads, precision, batch)
        else:
            self._graph = RowSession(weights, device, threads)
        self.outputs = self._graph.outputs

    @property
    def batch(self) -> int:
        """Pictures per run."""
        return self._graph.batch if isinstance(self._graph, BoundGraph) else 1

    @property
    def notes(self) -> list[str]:
        """Remarks for the user about how the network runs, one line each; later runs may add more."""
        return list(self._graph.notes)

    def run_pictures(self, pictures: Array, without: str = "") -> dict[str, Array]:
        """All outputs by name for N >= 1 pictures RGB uint8 (N, H, W, 3); for `without`, see `RowSession.run_rows`.

        Raises:
            DeviceError: the GPU failed.
        """
        if isinstance(self._graph, BoundGraph):
            return self._graph.run(pictures)
        return self._graph.run_rows(as_input(pictures, self.weights.input), without)

    def need_outputs(self, *names: str) -> None:
        """Check that the graph has the outputs that its role needs.

        Raises:
            WeightsError: one of them is missing.
        """
        missing = [name for name in names if name not in self.outputs]
        if missing:
            raise WeightsError(f"{self.weights.name}: its graph has no output {', '.join(missing)}")


def check_pictures(pictures: Array, size: int | tuple[int, int]) -> Array:
    """Return `pictures` as a contiguous array uint8 (N, H, W, 3); `size` is the side or (H, W).

    Raises ValueError for other types and shapes.
    """
    pictures = np.asarray(pictures)
    height, width = (size, size) if isinstance(size, int) else size
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[1:] != (height, width, 3):
        raise ValueError(f"expected RGB uint8 (N, {height}, {width}, 3), got {pictures.dtype} {pictures.shape}")
    return np.ascontiguousarray(pictures)


def as_input(pictures: Array, spec: InputSpec) -> Array:
    """Convert RGB uint8 (N, H, W, 3) to the graph's input (see InputSpec)."""
    if spec.dtype == "uint8":
        return pictures
    if spec.colour == "BGR":
        pictures = pictures[..., ::-1]
    planes = pictures.transpose(0, 3, 1, 2).astype(np.float32)
    mean = np.asarray(spec.mean, np.float32).reshape(1, 3, 1, 1)
    scale = np.asarray(spec.scale, np.float32).reshape(1, 3, 1, 1)
    return np.ascontiguousarray((planes - mean) * scale)


def _bound(weights: Weights, device: Device, threads: int, precision: str, batch: int | None) -> BoundGraph:
    ort = load_onnxruntime()
    # ONNX Runtime's warnings on a GPU do not concern users; `Device.check` reports a provider that does not load.
    ort.set_default_logger_severity(3)
    prepared = prepare(_verified_bytes(weights), weights.input, precision)

    def opening(providers: list[Any], rows: int) -> Any:
        options = _options(threads)
        # A fixed batch size makes shapes constant, so that no operators have to compute shapes on the CPU.
        options.add_free_dimension_override_by_name(BATCH_AXIS, rows)
        # If ONNX Runtime's own fallback were enabled, it would print to stdout and continue on the CPU.
        return ort.InferenceSession(prepared, options, providers=providers, enable_fallback=False)

    # Pictures for a detector may have any size, but a CUDA graph has a fixed shape.
    graphs = "detector" not in weights.roles
    return BoundGraph(opening, device, weights.name, batch or batch_of(weights.roles), graphs=graphs)


def _options(threads: int) -> Any:
    options = load_onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Waiting threads should sleep instead of occupying a core that decoding could use.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The detector takes pictures of many sizes, and one memory plan per size would use much memory.
    options.enable_mem_pattern = False
    # `io_binding.notes_on` reads this information.
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _verified_bytes(weights: Weights) -> bytes:
    """The file's content, verified against the hash in its receipt or card."""
    try:
        content = weights.path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{weights.name}: {weights.path} cannot be read ({error.strerror}); run `streamgate models pull`"
        ) from error
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        raise WeightsError(f"{weights.name}: {weights.path} does not match its receipt; run `streamgate models pull`")
    return content
