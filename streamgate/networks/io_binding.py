"""Runs a graph with inputs and outputs in device memory, in batches of a fixed size.

This is the code path for GPUs. A CPU `Device` with `bound` uses it as well; only the provider differs.
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
"""Batch sizes for roles with large pictures."""
SHAPES = 8
"""Number of picture shapes for which buffers are kept; a detector's pictures differ in shape from source to source."""
HOST_BUFFERS = 2
"""Number of host buffers per shape: one is filled while the other is copied to the device."""
_SMALLEST = 64
"""Side of the test picture for a graph that takes pictures of any size."""
_MEMORY_FULL = ("failed to allocate", "out of memory", "alloc_failed", "allocation_failed", "bad allocation")
"""Parts of the messages of ONNX Runtime, CUDA, cuDNN and cuBLAS when memory is full."""
_FAULT = re.compile(r"\b(CUDA|CUDNN|CUBLAS|CURAND|CUFFT)( failure|_STATUS| error)", re.IGNORECASE)
"""Matches the part of an error message that describes a failure of the device."""

_DEVICE_OPERATORS = frozenset(
    {
        "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "Einsum", "FusedConv", "Gemm",
        "GlobalAveragePool", "InstanceNormalization", "LayerNormalization", "MatMul", "MaxPool", "Resize", "Softmax",
    }
)  # fmt: skip
"""Operators that should run on the device; shape computations may run on the CPU."""

_Error = TypeVar("_Error", bound=BaseException)
_Outputs = list[Array] | None
_Call = Callable[[Callable[[], _Outputs]], _Outputs]


def batch_of(roles: Sequence[str]) -> int:
    """Rows per run of a graph that fills these roles."""
    return min(_BATCHES.get(role, BATCH) for role in roles)


class BoundGraph:
    """Runs a graph that takes pictures uint8 (N, H, W, 3) on a device. Thread-safe.

    Each run has the same number of rows; if there are fewer, the last row is repeated. Therefore, the same kernels are
    always used, and the other rows of a batch affect a result only by rounding. If memory is full, the batch size is
    halved, and a note is added.

    Args:
        open_session: opens the graph with the given providers and batch size; may raise any error of ONNX Runtime.
        device: where to run the graph.
        name: name of the network for messages.
        batch: rows per run.
        graphs: capture runs as CUDA graphs on a GPU; requires that all pictures have the same size.

    Raises:
        WeightsError: the graph cannot be run.
        DeviceError: the device cannot run it.
    """

    def __init__(
        self, open_session: Callable[[list[Any], int], Any], device: Device, name: str, batch: int, *, graphs: bool
    ) -> None:
        self._open_session = open_session
        self._device = device
        self._name = name
        self.batch = batch
        """Rows per run; reduced if memory was full."""
        self.notes: list[str] = []
        """Remarks for the user about anything that makes the graph slower, one line each."""
        self._buffers: OrderedDict[tuple[int, ...], _Buffers] = OrderedDict()
        self._mutex = Lock()
        self._graphs = graphs and device.index is not None
        device.call(self._open)

    def run(self, pictures: Array) -> dict[str, Array]:
        """All outputs by name for N >= 1 pictures, float32 (N, ...).

        Raises:
            DeviceError: the device failed, or does not have enough memory for a single row.
        """
        parts: list[list[Array]] = []
        done = 0
        while done < len(pictures):
            size = self.batch
            part = self._try_run(pictures[done : done + size], size, self._device.call)
            if part is not None:
                parts.append(part)
                done += size
        columns = zip(*parts, strict=True)
        return {name: np.concatenate(column) for name, column in zip(self.outputs, columns, strict=True)}

    def _try_run(self, rows: Array, size: int, call: _Call) -> _Outputs:
        """Outputs of at most `size` rows; None if the batch size was changed because memory was full.

        `call` runs a function in the device's thread.
        """
        try:
            return self._run(rows, size, call)
        except Exception as error:  # onnxruntime raises its own, unrelated exception types
            if not is_full(error) or size == 1:
                raise device_error(self._device, self._name, error) from error
        # This is not in the except block, because the error's traceback holds the buffers whose memory is needed here.
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
            # A CUDA graph has a fixed shape. With a variable input size, each new shape would be captured while
            # decoders use the device, so reopen the network without CUDA graphs.
            self._reopen()
        # A test run reports errors early, and captures CUDA graphs before anything else uses the device.
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
        """Run the graph on `picture` until CUDA graphs are captured; returns the error if a run fails."""
        try:
            # The second run captures the graph.
            for _ in range(2):
                while self._try_run(picture, self.batch, _call_directly) is None:
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
        """The error for a session that cannot be opened; if it opens on the CPU, the cause is the device."""
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
            note = f"{self._name}: its input is not in page-locked memory, so copying is slower ({buffers.fault})"
            if note not in self.notes:
                self.notes.append(note)
        return results

    def _halve(self, size: int, call: _Call) -> None:
        with self._mutex:
            if self.batch != size:
                return  # another thread has already halved the batch size
            self.batch = size // 2
            call(self._reopen)
            self.notes.append(
                f"{self._name}: the memory of {self._device.name} is full, so the network's batch size is {self.batch} "
                f"instead of {size}; stop other programs that use {self._device.name}, or lower --jobs"
            )

    def _reopen(self) -> None:
        """Open the session again without CUDA graphs, because capturing them now would disturb work on the device."""
        # The old buffers are released first, even if another thread still waits to use them.
        for buffers in self._buffers.values():
            buffers.release()
        self._buffers.clear()
        self._graphs, self._session = False, None
        if (error := self._opened(self._device.providers())) is not None:
            raise device_error(self._device, self._name, error)
        self._device.check(self._session, self._name)


class _Buffers:
    """Memory for batches of one shape, on the device and on the host."""

    def __init__(self, session: Any, device: Device, shape: tuple[int, ...], graphs: bool) -> None:
        self._ort = load_onnxruntime()
        self._session, self._device, self._shape, self._graphs = session, device, shape, graphs
        self._hosts: SimpleQueue[Array] = SimpleQueue()
        self._given: Any = None
        self._io: Any = None
        self._results: list[Any] = []
        self.fault: str | None = None
        """Why the host memory could not be page-locked; None if it is page-locked, or does not have to be."""

    def run(self, rows: Array, call: _Call) -> _Outputs:
        """Outputs of the rows; None if the memory was released in the meantime."""
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
        """Release the device memory; call it in the device's thread."""
        self._session = self._given = self._io = None
        self._results = []

    def _allocate(self) -> None:
        if self._session is None or self._given is not None:
            return  # the buffers were released, or another thread has allocated them
        given = self._ort.OrtValue.ortvalue_from_shape_and_type(self._shape, np.uint8, *self._device.memory)
        for _ in range(HOST_BUFFERS):
            # `mmap` provides whole pages of its own, which page-locking requires.
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
        # When this call returns, the copy is complete.
        self._given.update_inplace(host)
        if not self._results:
            # The first run determines the output shapes. The memory of the outputs is then reused, as a captured graph
            # requires.
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
        # -1 means neither capture nor replay; 0 is reserved by ONNX Runtime.
        options.add_run_config_entry("gpu_graph_id", "1" if capture else "-1")
        return options


def _call_directly(work: Callable[[], _Outputs]) -> _Outputs:
    """Run `work` directly, for callers that are already in the device's thread."""
    return work()


def is_full(error: BaseException) -> bool:
    """Whether the error means that device or host memory was full."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in _MEMORY_FULL)


def is_fault(error: BaseException) -> bool:
    """Whether the error comes from the device or its memory, rather than from a graph or its input."""
    return is_full(error) or _FAULT.search(str(error)) is not None


def device_error(device: Device, name: str, error: BaseException) -> DeviceError:
    """The error for a network that the device cannot run."""
    remedy = "check `nvidia-smi` and the system log, or use --device cpu"
    if is_full(error):
        remedy = "the memory of the device is full: stop other programs that use it, or lower --jobs"
    return DeviceError(f"device {device.name}: {name} cannot be run ({_reason(error)}); {remedy}")


def notes_on(session: Any, device: Device, name: str) -> list[str]:
    """A note on operators that ONNX Runtime silently runs on the CPU although a GPU was requested, if there are any."""
    if device.index is None:
        return []
    found: set[str] = set()
    # If ONNX Runtime cannot report this, there is no note, but the network still runs.
    with suppress(Exception):
        for part in session.get_provider_graph_assignment_info():
            if part.ep_name != device.provider:
                found.update(node.op_type for node in part.get_nodes())
    if not (operators := ", ".join(sorted(found & _DEVICE_OPERATORS))):
        return []
    return [f"{name}: {device.name} has no kernels for {operators}; these operators run on the CPU, which is slower"]


def _reason(error: BaseException) -> str:
    said = str(error)
    if (fault := _FAULT.search(said)) is not None:
        # The text before the match is a long location in ONNX Runtime's source, and the text from "hostname" on has no
        # useful details.
        said = said[fault.start() :].partition(" ; hostname=")[0]
    said = (said.splitlines() or [""])[0]
    return one_line(said[max(0, said.find("[ONNXRuntimeError]")) :]) or type(error).__name__


def _without_traceback(error: _Error) -> _Error:
    """Remove the tracebacks from the error, because they would hold buffers and sessions, and thus device memory."""
    one: BaseException | None = error
    while one is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
    return error
