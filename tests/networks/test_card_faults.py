"""What can be wrong with a card, its driver and its memory, with the CPU's provider behind the code for GPUs."""

from __future__ import annotations

import ctypes
import dataclasses
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streamgate.errors import DeviceError
from streamgate.measures import CropCard, MeasureSpec
from streamgate.networks import Batcher
from streamgate.networks import device as device_module
from streamgate.networks import io_binding as bound_module
from streamgate.networks.crop_measures import CropMeasure, open_measure
from streamgate.networks.device import Device
from streamgate.networks.sessions import RowSession, Session
from streamgate.weights.store import Weights, resolve

onnx = pytest.importorskip("onnx", reason="a GPU needs it, with float inputs or fp16")
LIKE_A_GPU = Device("cpu", "used like a GPU", bound=True)
NO_MEMORY = "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 12"
LOST = "CUDA failure 719: unspecified launch failure ; GPU=0 ; hostname=box ; file=x.cc"


class Card(Device):
    """The CPU's provider as a card with a number: its sessions may be told to capture, and nothing is page-locked."""

    index = 0  # type: ignore[assignment]
    memory = ("cpu", 0)  # type: ignore[assignment]
    provider = "CPUExecutionProvider"  # type: ignore[assignment]

    def providers(self, *, graphs: bool = False) -> list[Any]:
        return [self.provider]


CARD = Card("cuda:0", "a card", bound=True)


class Driver:
    """libcuda of a machine with one card."""

    def __init__(self, cuda: int, capability: tuple[int, int], starts: int = 0) -> None:
        self._cuda, self._capability, self._starts = cuda, capability, starts

    def cuInit(self, flags: int) -> int:
        return self._starts

    def cuDeviceGetCount(self, count: Any) -> None:
        count._obj.value = 1

    def cuDriverGetVersion(self, version: Any) -> None:
        version._obj.value = self._cuda

    def cuDeviceGet(self, card: Any, index: int) -> None:
        assert index == 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, card: Any) -> None:
        value._obj.value = self._capability[(75, 76).index(attribute)]


@pytest.mark.parametrize(
    ("driver", "index", "cuda", "said"),
    [
        (Driver(13000, (9, 0)), 0, "13.0", None),
        (Driver(13010, (7, 5)), 0, "12.8", None),
        (Driver(12080, (7, 0)), 0, "12.8", None),
        (Driver(13000, (9, 0)), 1, "13.0", "reports 1 device(s), numbered from 0"),
        (Driver(13000, (9, 0), 999), 0, "13.0", "cuInit returns error 999"),
        (Driver(12040, (9, 0)), 0, "13.0", "supports CUDA 12.4, but the installed ONNX Runtime needs CUDA 13"),
        (Driver(13000, (7, 0)), 0, "13.0", "compute capability 7.0, which CUDA 13 no longer supports"),
    ],
)
def test_a_driver_or_a_card_that_is_too_old_is_known_before_networks_are_opened(
    driver: Driver, index: int, cuda: str, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that `auto` takes the CPU, where ONNX Runtime would only fail when it opens the first network."""
    ort = SimpleNamespace(cuda_version=cuda, get_available_providers=lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(device_module, "load_onnxruntime", lambda: ort)
    monkeypatch.setattr(device_module, "preload_cuda", lambda ort: None)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    wanted = f"cuda:{index}"
    if said is None:
        assert device_module.choose_device(wanted).name == wanted
        return
    with pytest.raises(DeviceError) as caught:
        device_module.choose_device(wanted)
    assert said in str(caught.value) and caught.value.exit_code == 6
    if index == 0:
        assert device_module.choose_device("auto").name == "cpu"


@pytest.fixture
def recognizer() -> Weights:
    return resolve("embedded")["recognizer"]


class Failing:
    """A session in which some runs fail."""

    def __init__(self, real: Any, fault: Callable[[int], str | None]) -> None:
        self._real, self._fault = real, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def _fail(self, rows: int) -> None:
        if (words := self._fault(rows)) is not None:
            raise RuntimeError(words)

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        self._real.run_with_iobinding(binding, options)
        self._fail(binding.get_outputs()[0].shape()[0])

    def run(self, outputs: Any, given: dict[str, Any]) -> Any:
        self._fail(len(next(iter(given.values()))))
        return self._real.run(outputs, given)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Sessions opened from here on fail as `fault` says; how many of those before were alive, and their options."""
    import onnxruntime

    given: dict[str, Any] = {"fault": lambda rows: None, "alive": [], "options": []}
    real, known = onnxruntime.InferenceSession, []

    def opening(*arguments: Any, **options: Any) -> Failing:
        given["alive"].append(sum(one() is not None for one in known))
        given["options"].append(options)
        session = Failing(real(*arguments, **options), lambda rows: given["fault"](rows))
        known.append(weakref.ref(session))
        return session

    monkeypatch.setattr(onnxruntime, "InferenceSession", opening)
    yield given


def test_what_was_too_large_is_let_go_before_smaller_batches_are_opened(
    recognizer: Weights, opened: dict[str, Any]
) -> None:
    opened["fault"] = lambda rows: NO_MEMORY if rows > 2 else None
    session = Session(recognizer, LIKE_A_GPU, batch=8)
    assert session.batch == 2 and opened["alive"] == [0, 0, 0]
    opened["fault"] = lambda rows: NO_MEMORY if rows > 1 else None
    session.run_pictures(np.zeros((3, 112, 112, 3), np.uint8))
    assert session.batch == 1 and opened["alive"] == [0, 0, 0, 0]


def test_what_could_not_be_captured_is_let_go_before_it_is_opened_without(
    recognizer: Weights, opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter([None, "CUDA failure 900: operation not permitted when stream is capturing"])
    opened["fault"] = lambda rows: next(faults, None)
    session = Session(recognizer, CARD, batch=2)
    assert any("without CUDA graphs" in note for note in session.notes) and opened["alive"] == [0, 0]


def test_pictures_of_any_size_are_never_captured_whatever_role_they_are_for(
    opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One graph would be captured for each size, or that of the first be run for all."""
    asked = []
    run = Failing.run_with_iobinding

    def noting(session: Failing, binding: Any, options: Any) -> None:
        asked.append(options.get_run_config_entry("gpu_graph_id"))
        run(session, binding, options)

    monkeypatch.setattr(Failing, "run_with_iobinding", noting)
    free = dataclasses.replace(resolve("embedded")["detector"], roles=("ifqa",))
    session = Session(free, CARD, batch=1)
    for side in (64, 96, 64, 128):
        session.run_pictures(np.zeros((1, side, side, 3), np.uint8))
    assert set(asked) == {"-1"} and not any("CUDA graphs" in note for note in session.notes)


def test_operators_that_the_card_leaves_to_the_cpu_are_said(
    recognizer: Weights, opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def parts(session: Failing) -> list[Any]:
        nodes = {"CPUExecutionProvider": ["Resize"], "other": ["Resize", "Shape", "Softmax"]}
        return [
            SimpleNamespace(ep_name=name, get_nodes=lambda kinds=kinds: [SimpleNamespace(op_type=one) for one in kinds])
            for name, kinds in nodes.items()
        ]

    monkeypatch.setattr(Failing, "get_provider_graph_assignment_info", parts, raising=False)
    (said,) = [note for note in Session(recognizer, CARD, batch=1).notes if "kernels" in note]
    assert said == (
        "recognizer-slim: cuda:0 has no kernels for Resize, Softmax; these operators run on the CPU, which is slower"
    )
    assert not Session(recognizer, LIKE_A_GPU, batch=1).notes


@pytest.fixture
def mean(tmp_path: Path) -> Path:
    """A measure of one's own: the mean of a float32 picture."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info("x", kind, ["n", 3, 64, 64]), helper.make_tensor_value_info("y", kind, ["n"])]
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2, 3], keepdims=0)
    graph = helper.make_graph([node], "mean", ends[:1], ends[1:])
    path = tmp_path / "mean.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def own(path: Path, device: Device) -> CropMeasure:
    card = CropCard("onnx", str(path), size=64)
    spec = MeasureSpec("bright", "Bright", "", "", "bright", lambda found: found.value, output="value", card=card)
    return open_measure(spec, device, 1)


def faces(count: int) -> list[np.ndarray]:
    return [np.full((64, 64, 3), index, np.uint8) for index in range(count)]


def test_a_measure_of_ones_own_never_falls_back_to_the_cpu(mean: Path, opened: dict[str, Any]) -> None:
    measure = own(mean, CARD)
    assert [options["enable_fallback"] for options in opened["options"]] == [False]
    found = [one.value for one in measure.run(faces(19))]
    assert found == pytest.approx([index / 255 for index in range(19)], abs=1e-6)
    with pytest.raises(DeviceError, match="instead of CUDAExecutionProvider"), pytest.warns(UserWarning):
        own(mean, Device("cuda:0", "gone since it was chosen", bound=True))


def test_a_measure_of_ones_own_whose_card_is_lost_ends_the_run(mean: Path, opened: dict[str, Any]) -> None:
    measure = own(mean, CARD)
    opened["fault"] = lambda rows: LOST
    failing = pytest.raises(DeviceError, match="bright cannot be run")
    with Batcher({"bright": measure.run}) as batcher, failing as caught:
        batcher.submit("bright", faces(1)[0]).result(30)
    assert caught.value.exit_code == 6
    with pytest.raises(DeviceError, match="CUDA failure 719"):
        own(mean, CARD)
    # What is wrong with faces stays with those.
    opened["fault"] = lambda rows: "Non-zero status code returned while running ReduceMean node"
    with pytest.warns(UserWarning, match="failed on a face"):
        assert np.isnan([one.value for one in measure.run(faces(2))]).all()


def test_a_measure_of_ones_own_takes_fewer_faces_when_memory_is_full(mean: Path, opened: dict[str, Any]) -> None:
    measure = own(mean, CARD)
    opened["fault"] = lambda rows: NO_MEMORY if rows > 4 else None
    found = [one.value for one in measure.run(faces(11))]
    assert found == pytest.approx([index / 255 for index in range(11)], abs=1e-6)
    assert len(measure.notes) == 2 and "the network's batch size is 4 instead of 8" in measure.notes[-1]
    opened["fault"] = lambda rows: NO_MEMORY
    with pytest.raises(DeviceError, match="the memory of the device is full"):
        measure.run(faces(1))


def test_row_sessions_of_a_broken_file_say_so_and_print_nothing(
    recognizer: Weights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import hashlib

    from streamgate.errors import WeightsError

    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no graph at all")
    broken = dataclasses.replace(recognizer, path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(WeightsError, match="cannot be run"):
        RowSession(broken, Device("cpu", "as requested"))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "said",
    [NO_MEMORY, "CUDA failure 2: out of memory ; GPU=0", "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
     "CUDNN failure 4002: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", "CUDA out of memory. Tried to"],
)  # fmt: skip
def test_full_memory_is_known_by_the_words_of_each_library(said: str) -> None:
    assert bound_module.is_full(RuntimeError(said)) and bound_module.is_fault(RuntimeError(said))
    assert not bound_module.is_fault(RuntimeError("Got invalid dimensions for input: face"))


def test_the_reason_given_is_what_failed_and_not_where_in_its_source() -> None:
    index = "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 std::conditional_t<THRW, void, Status> "
    kinds = "onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE) [with ERRTYPE = cudaError] "
    said = str(bound_module.device_error(CARD, "ifqa-small", RuntimeError(f"{index}{kinds}{LOST} ; line=129 ; expr=x")))
    assert said.startswith(f"device cuda:0: ifqa-small cannot be run ({LOST.partition(' ; host')[0]}); check")
