"""Runs of one graph with its inputs and outputs in a device's own memory, in batches of one size.

The way on a GPU. On the CPU it is the same, but for the provider's name, where a `Device` says `bound`.
"""

from __future__ import annotations

import mmap
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import prod
from queue import SimpleQueue
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from streamgate.errors import DeviceError, WeightsError, one_line
from streamgate.frames import Array
from streamgate.networks.device import Device, load_onnxruntime, page_lock

BATCH = 32
_BATCHES = {"detector": 8, "ifqa": 16}
"""Of roles whose pictures are large."""
SHAPES = 8
"""Shapes of pictures for which buffers are held; a detector's vary with the sources."""
HOST_BUFFERS = 2
"""On the host's side of each shape: one is filled while the other is on its way."""
_SMALLEST = 64
"""Side of the picture that a graph for pictures of any size is tried on."""
_FULL = ("failed to allocate", "out of memory", "alloc_failed", "allocation_failed", "bad allocation")
"""What ONNX Runtime, CUDA, cuDNN and cuBLAS say when memory is full."""
_FAULT = re.compile(r"\b(CUDA|CUDNN|CUBLAS|CURAND|CUFFT)( failure|_STATUS| error)", re.IGNORECASE)
"""How they begin when the device fails."""

_COSTLY = frozenset(
    {
        "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "Einsum", "FusedConv", "Gemm",
        "GlobalAveragePool", "InstanceNormalization", "LayerNormalization", "MatMul", "MaxPool", "Resize", "Softmax",
    }
)  # fmt: skip
"""Operators that the device should run; the CPU may work out shapes."""

_Error = TypeVar("_Error", bound=BaseException)
_Outputs = list[Array] | None
_Call = Callable[[Callable[[], _Outputs]], _Outputs]


def batch_of(roles: Sequence[str]) -> int:
    """Rows of each run of a graph that fills these roles."""
    return min(_BATCHES.get(role, BATCH) for role in roles)


class BoundGraph:
    """A graph of pictures uint8 (N, H, W, 3) on a device. Safe to call from several threads.

    Each run has the same number of rows, the last one repeated to fill it: so the kernels are always the same ones, and
    who shares a batch changes nothing beyond rounding. When memory is full the batches are halved, which is noted.

    Args:
        open_session: opens the graph with these providers for batches of that many rows, raising whatever ONNX
            Runtime raises.
        name: of the network, for messages.
        batch: rows of a run.
        graphs: on a GPU a run is a CUDA graph, as it can be where all pictures have one size.

    Raises:
        WeightsError: the graph is not one that runs.
        DeviceError: the device does not run it.
    """

    def __init__(
        self, open_session: Callable[[list[Any], int], Any], device: Device, name: str, batch: int, *, graphs: bool
    ) -> None:
        self._open_session = open_session
        self._device = device
        self._name = name
        self.batch = batch
        """Rows of a run; fewer from when memory was full."""
        self.notes: list[str] = []
        """What a user should know: whatever is not as it should be, one line each."""
        self._buffers: OrderedDict[tuple[int, ...], _Buffers] = OrderedDict()
        self._mutex = Lock()
        self._graphs = graphs and device.index is not None
        device.call(self._open)

    def run(self, pictures: Array) -> dict[str, Array]:
        """All outputs by name for N >= 1 pictures, float32 (N, ...).

        Raises:
            DeviceError: the device fails, or has no memory for a single row.
        """
        parts: list[list[Array]] = []
        done = 0
        while done < len(pictures):
            size = self.batch
            part = self._tried(pictures[done : done + size], size, self._device.call)
            if part is not None:
                parts.append(part)
                done += size
        columns = zip(*parts, strict=True)
        return {name: np.concatenate(column) for name, column in zip(self.outputs, columns, strict=True)}

    def _tried(self, rows: Array, size: int, call: _Call) -> _Outputs:
        """Outputs of at most `size` rows; None when batches are no longer of that size, because memory was full.

        `call` calls what it is given in the device's thread.
        """
        try:
            return self._run(rows, size, call)
        except Exception as error:  # onnxruntime raises its own, unrelated exception types
            if not is_full(error) or size == 1:
                raise device_error(self._device, self._name, error) from error
        # Out here: the error's traceback holds the buffers in whose place smaller ones are to fit.
        self._halve(size, call)
        return None

    def _open(self) -> None:
        error = self._opened(self._device.providers(graphs=self._graphs))
        if error is not None and self._graphs:
            self._note_no_graphs(error)
            error = self._opened(self._device.providers())
        if error is not None:
            raise self._not_opened(error)
        self._device.check(self._session, self._name)
        (given,) = self._session.get_inputs()
        self.outputs: tuple[str, ...] = tuple(one.name for one in self._session.get_outputs())
        rows, *sizes = given.shape
        if isinstance(rows, int):
            self.batch = rows
        if self._graphs and not all(isinstance(size, int) for size in sizes):
            # A CUDA graph is of one shape: each new one would be captured, while decoders use the device.
            self._reopen()
        # What fails is to fail now, and graphs are to be captured before anything else uses the device.
        picture = np.zeros((1, *(size if isinstance(size, int) else _SMALLEST for size in sizes)), np.uint8)
        failed = self._failure_of(picture)
        if failed is not None and self._graphs:
            self._note_no_graphs(failed.__cause__ or failed)
            self._reopen()
            failed = self._failure_of(picture)
        if failed is not None:
            raise failed
        self.notes += notes_on(self._session, self._device, self._name)

    def _failure_of(self, picture: Array) -> DeviceError | None:
        """Run it until CUDA graphs are captured; why that is not possible."""
        try:
            # The second run captures the graph.
            for _ in range(2):
                while self._tried(picture, self.batch, _here) is None:
                    pass
        except DeviceError as error:
            return _without_traceback(error)
        return None

    def _note_no_graphs(self, error: BaseException) -> None:
        self._graphs = False
        self.notes.append(f"{self._name}: runs without CUDA graphs, so small batches are slower ({_reason(error)})")

    def _opened(self, providers: list[Any]) -> Exception | None:
        try:
            self._session = self._open_session(providers, self.batch)
        except Exception as error:  # onnxruntime raises its own, unrelated exception types
            return _without_traceback(error)
        return None

    def _not_opened(self, error: Exception) -> WeightsError | DeviceError:
        """Is it the graph or the device? The CPU tells."""
        if self._device.index is None or self._opened(["CPUExecutionProvider"]) is not None:
            return WeightsError(f"{self._name}: cannot be run ({_reason(error)})")
        return device_error(self._device, self._name, error)

    def _run(self, rows: Array, size: int, call: _Call) -> _Outputs:
        shape = (size, *rows.shape[1:])
        with self._mutex:
            if size != self.batch:
                return None
            if shape not in self._buffers:
                self._buffers[shape] = _Buffers(self._session, self._device, shape, self._graphs)
                while len(self._buffers) > SHAPES:
                    self._buffers.popitem(last=False)
            self._buffers.move_to_end(shape)
            buffers = self._buffers[shape]
        results = buffers.run(rows, call)
        if buffers.fault is not None:
            note = f"{self._name}: its crops are not in page-locked memory, so copying is slower ({buffers.fault})"
            if note not in self.notes:
                self.notes.append(note)
        return results

    def _halve(self, size: int, call: _Call) -> None:
        with self._mutex:
            if self.batch != size:
                return  # another thread has
            self.batch = size // 2
            call(self._reopen)
            self.notes.append(
                f"{self._name}: the memory of {self._device.name} is full, so its batches have {self.batch} rows "
                f"instead of {size}; end other programs on it, or use fewer --jobs"
            )

    def _reopen(self) -> None:
        """Open it again, without CUDA graphs: to capture one later would disturb whatever else uses the device."""
        # First let go of what was, also where another thread still waits with it.
        for buffers in self._buffers.values():
            buffers.release()
        self._buffers.clear()
        self._graphs, self._session = False, None
        if (error := self._opened(self._device.providers())) is not None:
            raise device_error(self._device, self._name, error)
        self._device.check(self._session, self._name)


class _Buffers:
    """Memory for batches of one shape, on the device and on the host's side."""

    def __init__(self, session: Any, device: Device, shape: tuple[int, ...], graphs: bool) -> None:
        self._ort = load_onnxruntime()
        self._session, self._device, self._shape, self._graphs = session, device, shape, graphs
        self._hosts: SimpleQueue[Array] = SimpleQueue()
        self._given: Any = None
        self._io: Any = None
        self._results: list[Any] = []
        self.fault: str | None = None
        """Why the host's memory is not page-locked; None where it is, or needs not be."""

    def run(self, rows: Array, call: _Call) -> _Outputs:
        """Outputs of the rows; None where the memory was released by then."""
        if self._given is None:
            call(self._allocate)
        if self._session is None:
            return None
        host = self._hosts.get()
        try:
            count = len(rows)
            host[:count] = rows
            host[count:] = rows[-1]
            return call(lambda: self._on_device(host, count))
        finally:
            self._hosts.put(host)

    def release(self) -> None:
        """Give the device's memory back; to be called in its thread."""
        self._session = self._given = self._io = None
        self._results = []

    def _allocate(self) -> None:
        if self._session is None or self._given is not None:
            return  # another thread has asked for it too
        given = self._ort.OrtValue.ortvalue_from_shape_and_type(self._shape, np.uint8, *self._device.memory)
        for _ in range(HOST_BUFFERS):
            # Whole pages of their own, as locking needs.
            host = np.frombuffer(mmap.mmap(-1, prod(self._shape)), np.uint8).reshape(self._shape)
            if self._device.index is not None:
                self.fault = page_lock(host, self._device.index) or self.fault
            self._hosts.put(host)
        self._io = self._session.io_binding()
        self._io.bind_ortvalue_input(self._session.get_inputs()[0].name, given)
        self._given = given

    def _on_device(self, host: Array, count: int) -> _Outputs:
        if self._session is None:
            return None
        # The copy is complete when this returns.
        self._given.update_inplace(host)
        if not self._results:
            # The first run finds the outputs' shapes; their memory then stays, as a captured graph needs it.
            names = [one.name for one in self._session.get_outputs()]
            for name in names:
                self._io.bind_output(name, *self._device.memory)
            self._session.run_with_iobinding(self._io, self._options(capture=False))
            self._results = list(self._io.get_outputs())
            for name, value in zip(names, self._results, strict=True):
                self._io.bind_ortvalue_output(name, value)
        else:
            self._session.run_with_iobinding(self._io, self._options(capture=self._graphs))
        return [np.array(value.numpy()[:count]) for value in self._results]

    def _options(self, *, capture: bool) -> Any:
        options = self._ort.RunOptions()
        # -1: neither capture nor replay; 0 ONNX Runtime keeps for itself.
        options.add_run_config_entry("gpu_graph_id", "1" if capture else "-1")
        return options


def _here(work: Callable[[], _Outputs]) -> _Outputs:
    """For those who are in the device's thread."""
    return work()


def is_full(error: BaseException) -> bool:
    """Whether memory, the device's or the host's, was too small."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in _FULL)


def is_fault(error: BaseException) -> bool:
    """Whether it is the device or its memory that failed, rather than a graph or what it was given."""
    return is_full(error) or _FAULT.search(str(error)) is not None


def device_error(device: Device, name: str, error: BaseException) -> DeviceError:
    """The error for users of a network that the device does not run."""
    remedy = "see `nvidia-smi` and the system's log, or use --device cpu"
    if is_full(error):
        remedy = "its memory is full: end other programs on it, or use fewer --jobs"
    return DeviceError(f"device {device.name}: {name} cannot be run ({_reason(error)}); {remedy}")


def notes_on(session: Any, device: Device, name: str) -> list[str]:
    """What ONNX Runtime gives to the CPU although a GPU was asked for: it does so without a word."""
    if device.index is None:
        return []
    found: set[str] = set()
    # It is only a note: where ONNX Runtime does not know, the network runs all the same.
    with suppress(Exception):
        for part in session.get_provider_graph_assignment_info():
            if part.ep_name != device.provider:
                found.update(node.op_type for node in part.get_nodes())
    if not (operators := ", ".join(sorted(found & _COSTLY))):
        return []
    return [f"{name}: {device.name} has no kernels for its {operators}: the CPU runs them, so it is slower"]


def _reason(error: BaseException) -> str:
    said = str(error)
    if (fault := _FAULT.search(said)) is not None:
        # Before it is a place in their source, which is longer than what is shown; after it more of the kind.
        said = said[fault.start() :].partition(" ; hostname=")[0]
    said = (said.splitlines() or [""])[0]
    return one_line(said[max(0, said.find("[ONNXRuntimeError]")) :]) or type(error).__name__


def _without_traceback(error: _Error) -> _Error:
    """The error without what its traceback holds: buffers and sessions, and so the device's memory."""
    one: BaseException | None = error
    while one is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
    return error
