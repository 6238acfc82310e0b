"""Runs of one graph with its inputs and outputs in a device's own memory, in batches of one size.

The way on a GPU. On the CPU it is the same, but for the provider's name, where a `Device` says `bound`.
"""

from __future__ import annotations

import mmap
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import prod
from queue import SimpleQueue
from threading import Lock
from typing import Any

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
_FULL = ("failed to allocate", "out of memory", "alloc_failed", "bad allocation")
"""What ONNX Runtime, CUDA, cuDNN and cuBLAS say when memory is full."""

_Call = Callable[[Callable[[], list[Array]]], list[Array]]


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

    def _tried(self, rows: Array, size: int, call: _Call) -> list[Array] | None:
        """Outputs of at most `size` rows; None when batches are no longer of that size, because memory was full.

        `call` calls what it is given in the device's thread.
        """
        try:
            return self._run(rows, size, call)
        except Exception as error:  # onnxruntime raises its own, unrelated exception types
            if not _is_full(error) or size == 1:
                raise self._failed(error) from error
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
        # What fails is to fail now, and graphs are to be captured before anything else uses the device.
        picture = np.zeros((1, *(size if isinstance(size, int) else _SMALLEST for size in sizes)), np.uint8)
        try:
            self._warm_up(picture)
        except DeviceError as failed:
            if not self._graphs or failed.__cause__ is None:
                raise
            self._note_no_graphs(failed.__cause__)
            self._buffers.clear()
            self._reopen()
            self._warm_up(picture)

    def _warm_up(self, picture: Array) -> None:
        # The second run captures the graph.
        for _ in range(2):
            while self._tried(picture, self.batch, _here) is None:
                pass

    def _note_no_graphs(self, error: BaseException) -> None:
        self._graphs = False
        self.notes.append(f"{self._name}: runs without CUDA graphs, so small batches are slower ({_reason(error)})")

    def _opened(self, providers: list[Any]) -> Exception | None:
        try:
            self._session = self._open_session(providers, self.batch)
        except Exception as error:  # onnxruntime raises its own, unrelated exception types
            return error
        return None

    def _not_opened(self, error: Exception) -> WeightsError | DeviceError:
        """Is it the graph or the device? The CPU tells."""
        if self._device.index is None or self._opened(["CPUExecutionProvider"]) is not None:
            return WeightsError(f"{self._name}: cannot be run ({_reason(error)})")
        return self._failed(error)

    def _run(self, rows: Array, size: int, call: _Call) -> list[Array] | None:
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
            self._buffers.clear()
            # To capture one now would disturb whatever else uses the device.
            self._graphs, self._session = False, None
            call(self._reopen)
            self.notes.append(
                f"{self._name}: the memory of {self._device.name} is full, so its batches have {self.batch} rows "
                f"instead of {size}; end other programs on it, or use fewer --jobs"
            )

    def _reopen(self) -> list[Array]:
        if (error := self._opened(self._device.providers())) is not None:
            raise self._failed(error)
        self._device.check(self._session, self._name)
        return []

    def _failed(self, error: Exception) -> DeviceError:
        remedy = "see `nvidia-smi` and the system's log, or use --device cpu"
        if _is_full(error):
            remedy = "its memory is full: end other programs on it, or use fewer --jobs"
        return DeviceError(f"device {self._device.name}: {self._name} cannot be run ({_reason(error)}); {remedy}")


class _Buffers:
    """Memory for batches of one shape, on the device and on the host's side."""

    def __init__(self, session: Any, device: Device, shape: tuple[int, ...], graphs: bool) -> None:
        self._ort = load_onnxruntime()
        self._session, self._device, self._shape, self._graphs = session, device, shape, graphs
        self._hosts: SimpleQueue[Array] = SimpleQueue()
        self._given: Any = None
        self._results: list[Any] = []
        self.fault: str | None = None
        """Why the host's memory is not page-locked; None where it is, or needs not be."""

    def run(self, rows: Array, call: _Call) -> list[Array]:
        if self._given is None:
            call(self._allocate)
        host = self._hosts.get()
        try:
            count = len(rows)
            host[:count] = rows
            host[count:] = rows[-1]
            return call(lambda: self._on_device(host, count))
        finally:
            self._hosts.put(host)

    def _allocate(self) -> list[Array]:
        if self._given is not None:
            return []  # another thread has asked for it too
        given = self._ort.OrtValue.ortvalue_from_shape_and_type(self._shape, np.uint8, *self._device.memory)
        for _ in range(HOST_BUFFERS):
            # Whole pages of their own, as locking needs.
            host = np.frombuffer(mmap.mmap(-1, prod(self._shape)), np.uint8).reshape(self._shape)
            if self._device.index is not None:
                self.fault = page_lock(host, self._device.index)
            self._hosts.put(host)
        self._io = self._session.io_binding()
        self._io.bind_ortvalue_input(self._session.get_inputs()[0].name, given)
        self._given = given
        return []

    def _on_device(self, host: Array, count: int) -> list[Array]:
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
        # -1: neither capture nor replay.
        options.add_run_config_entry("gpu_graph_id", "0" if capture else "-1")
        return options


def _here(work: Callable[[], list[Array]]) -> list[Array]:
    """For those who are in the device's thread."""
    return work()


def _is_full(error: Exception) -> bool:
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in _FULL)


def _reason(error: BaseException) -> str:
    return one_line((str(error).splitlines() or [""])[0]) or type(error).__name__
