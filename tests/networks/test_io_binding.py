"""The way of a GPU, with the CPU's provider behind the same code: buffers, padded batches, precision, failures."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

from streamgate.errors import DeviceError, StreamgateError, UsageError, WeightsError
from streamgate.networks import Batcher, Networks
from streamgate.networks import io_binding as bound_module
from streamgate.networks.batcher import WITHOUT_REAL, InferenceRequest
from streamgate.networks.device import Device
from streamgate.networks.ifqa import ifqa_scores
from streamgate.networks.pose import head_poses
from streamgate.networks.sessions import Session
from streamgate.weights.store import Weights, resolve
from support.media import astronaut
from support.real_weights import standard_models

pytest.importorskip("onnx", reason="a GPU needs it, with float inputs or fp16")
LIKE_A_GPU = Device("cpu", "used like a GPU", bound=True)
NO_MEMORY = "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 12"


@pytest.fixture(scope="module", autouse=True)
def small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bound_module, "BATCH", 8)
        patch.setattr(bound_module, "_BATCHES", {"detector": 4, "ifqa": 4})
        yield


@pytest.fixture(scope="module")
def gpu(small_batches: None) -> Iterator[Networks]:
    with Networks.open("embedded", LIKE_A_GPU) as opened:
        yield opened


@pytest.fixture(scope="module")
def cpu() -> Iterator[Networks]:
    with Networks.open("embedded", "cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def recognizer() -> Weights:
    return resolve("embedded")["recognizer"]


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    """Pictures of 256 px with a face each, no two alike."""
    picture = astronaut()
    return [np.ascontiguousarray(picture[y : y + 256, x : x + 256]) for y in (0, 4, 9) for x in range(86, 114, 4)]


def crops_of(faces: list[np.ndarray], count: int) -> np.ndarray:
    return np.stack([faces[index % len(faces)][72:184, 72:184] for index in range(count)])


class FailingSession:
    """A real session in which runs of more rows than there is memory for fail, as they do on a card."""

    def __init__(self, real: Any, most: int) -> None:
        self._real = real
        self.most = most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        self._real.run_with_iobinding(binding, options)
        if binding.get_outputs()[0].shape()[0] > self.most:
            raise RuntimeError(NO_MEMORY)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Sessions opened from here on have memory for `most` rows a run."""
    import onnxruntime

    given: dict[str, Any] = {"most": 1 << 30, "opened": []}
    real = onnxruntime.InferenceSession

    def opening(*arguments: Any, **options: Any) -> FailingSession:
        given["opened"].append(FailingSession(real(*arguments, **options), given["most"]))
        return given["opened"][-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", opening)
    return given


def test_every_role_gives_what_it_gives_on_the_cpu(gpu: Networks, cpu: Networks, faces: list[np.ndarray]) -> None:
    crops = crops_of(faces, 11)
    ours, theirs = gpu.recognizer.run(crops), cpu.recognizer.run(crops)
    for name in ("embedding", "spread", "features", "pose", "visible", "eyes"):
        assert np.allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-3, atol=1e-3), name
    assert gpu.ifqa is not None and cpu.ifqa is not None and gpu.expression is not None and cpu.expression is not None
    large = np.stack(faces[:5])
    for one, other in zip(ifqa_scores(gpu.ifqa, large), ifqa_scores(cpu.ifqa, large), strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-3)
        assert np.allclose(one.map, other.map, atol=1e-3)
    upright = np.ascontiguousarray(large[:, 60:204, 64:192])
    for one, other in zip(gpu.expression.run(upright), cpu.expression.run(upright), strict=True):
        assert one.signals == pytest.approx(other.signals, abs=1e-3)
        assert np.allclose(one.landmarks, other.landmarks, atol=1e-2)
        assert one.real == pytest.approx(other.real, abs=1e-3)
    # Of two shapes, and more than a batch of one of them.
    pictures = [face[:200] for face in faces[:3]] + faces[:5]
    for found, wanted in zip(gpu.detector.detect(pictures), cpu.detector.detect(pictures), strict=True):
        assert [face.score for face in found] == pytest.approx([face.score for face in wanted], abs=1e-3)
        assert np.allclose([face.landmarks for face in found], [face.landmarks for face in wanted], atol=1e-2)
    assert gpu.notes == [] and gpu.batch("recognizer") == 8 and cpu.batch("recognizer") == 1


def test_faces_with_and_without_real_share_a_queue(gpu: Networks, faces: list[np.ndarray]) -> None:
    crops = [np.ascontiguousarray(face[40:184, 60:188]) for face in faces[:2]]
    with Batcher.over(gpu) as batcher:
        runs: list[int] = []
        queue = batcher._queues["expression"]
        run, queue._run = queue._run, lambda crops: (runs.append(len(crops)), run(crops))[1]
        asked = [InferenceRequest(role, crop) for crop in crops for role in ("expression", WITHOUT_REAL)]
        found = batcher.infer(asked)
    assert sum(runs) == 4 and all(one.real is not None for one in found)
    assert found[0].signals == found[1].signals and found[2].signals == found[3].signals


def test_who_shares_a_batch_changes_nothing(gpu: Networks, faces: list[np.ndarray]) -> None:
    crops = crops_of(faces, 9)
    together = gpu.recognizer.run(crops)
    for index in (0, 7, 8):
        alone = gpu.recognizer.run(crops[index : index + 1])
        assert np.allclose(alone.embedding[0], together.embedding[index], atol=1e-3)
        assert alone.spread[0] == pytest.approx(together.spread[index], abs=1e-3)


def test_results_given_out_stay_what_they_were(gpu: Networks, faces: list[np.ndarray]) -> None:
    crops = crops_of(faces, 2)
    first = gpu.recognizer.run(crops)
    kept = first.embedding.copy()
    gpu.recognizer.run(crops[::-1].copy())
    assert np.array_equal(first.embedding, kept)


def test_threads_get_their_own_rows(gpu: Networks, faces: list[np.ndarray]) -> None:
    crops = crops_of(faces, 12)
    wanted = gpu.recognizer.run(crops).embedding
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(gpu.recognizer.run, crops[index : index + 1]) for index in range(12)]
        for index, run in enumerate(runs):
            assert np.allclose(run.result().embedding[0], wanted[index], atol=1e-3)


def test_more_shapes_than_buffers_are_held_for(gpu: Networks, faces: list[np.ndarray]) -> None:
    face = faces[0][:192, :192]
    for _ in range(2):
        for number in range(bound_module.SHAPES + 2):
            found = gpu.detector.detect([np.pad(face, ((0, 32 * number), (0, 0), (0, 0)))])[0]
            assert len(found) == 1


def test_full_memory_halves_the_batches_and_says_so(
    recognizer: Weights, memory: dict[str, Any], cpu: Networks, faces: list[np.ndarray]
) -> None:
    memory["most"] = 3
    session = Session(recognizer, LIKE_A_GPU)
    assert session.batch == 2
    first, last = session.notes
    assert "the memory of cpu is full" in first and "2 instead of 4" in last
    crops = crops_of(faces, 5)
    assert np.allclose(
        session.run_pictures(crops)["embedding"], cpu.recognizer.run(crops).embedding, rtol=1e-3, atol=1e-3
    )


def test_memory_that_fills_up_on_the_way_loses_nothing(
    recognizer: Weights, memory: dict[str, Any], cpu: Networks, faces: list[np.ndarray]
) -> None:
    session = Session(recognizer, LIKE_A_GPU)
    crops = crops_of(faces, 11)
    wanted = cpu.recognizer.run(crops).embedding
    assert session.notes == []
    memory["opened"][-1].most = 4
    assert np.allclose(session.run_pictures(crops)["embedding"], wanted, rtol=1e-3, atol=1e-3)
    assert session.batch == 4 and "4 instead of 8" in session.notes[0]
    memory["opened"][-1].most = memory["most"] = 0
    with pytest.raises(DeviceError, match="the memory of the device is full: stop other programs"):
        session.run_pictures(crops)
    assert session.batch == 1


def test_a_device_that_fails_on_the_way_is_an_error_in_words(
    recognizer: Weights, memory: dict[str, Any], faces: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(recognizer, LIKE_A_GPU)

    def lost(binding: Any, options: Any = None) -> None:
        raise RuntimeError("CUDA failure 719: unspecified launch failure ; GPU=0 ; hostname=box\nfile=x.cc ; line=129")

    monkeypatch.setattr(memory["opened"][-1], "run_with_iobinding", lost, raising=False)
    with pytest.raises(DeviceError) as caught:
        session.run_pictures(crops_of(faces, 1))
    assert caught.value.exit_code == 6
    said = str(caught.value)
    assert "recognizer-slim cannot be run (CUDA failure 719" in said and "nvidia-smi" in said and "line=129" not in said


def test_a_provider_that_disappears_is_an_error_and_no_fallback(
    recognizer: Weights, capfd: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime is asked for CUDA, has none, and runs on the CPU without a word of it."""
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.warns(UserWarning, match="not in available provider"), pytest.raises(DeviceError) as caught:
        Session(recognizer, Device("cuda:1", "gone since it was chosen", bound=True))
    assert "device cuda:1" in str(caught.value) and "CPUExecutionProvider instead of CUDA" in str(caught.value)
    assert capfd.readouterr().out == ""


def test_a_provider_that_does_not_start_is_an_error_and_no_fallback(
    recognizer: Weights, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    real = onnxruntime.InferenceSession

    def opening(*arguments: Any, providers: list[Any], **options: Any) -> Any:
        if providers != ["CPUExecutionProvider"]:
            assert not options["enable_fallback"]
            raise RuntimeError("CUDNN failure 1002: CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH")
        return real(*arguments, providers=providers, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opening)
    with pytest.raises(DeviceError, match=r"cuda:0: recognizer-slim cannot be run \(CUDNN failure 1002"):
        Session(recognizer, Device("cuda:0", "chosen", bound=True))
    assert capfd.readouterr().out == ""


class GraphCard(Device):
    """The CPU as a card that would capture graphs: one whose runs are captured where ONNX Runtime is not told -1."""

    index = 0  # type: ignore[assignment]
    memory = ("cpu", 0)  # type: ignore[assignment]
    provider = "CPUExecutionProvider"  # type: ignore[assignment]

    def providers(self, *, graphs: bool = False) -> list[Any]:
        return [self.provider]


@pytest.mark.parametrize("captures", [True, False])
def test_where_nothing_can_be_captured_runs_go_on_without_graphs_and_say_so(
    recognizer: Weights,
    cpu: Networks,
    faces: list[np.ndarray],
    memory: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    captures: bool,
) -> None:
    asked: list[str] = []
    run = FailingSession.run_with_iobinding

    def capturing(session: FailingSession, binding: Any, options: Any) -> None:
        asked.append(options.get_run_config_entry("gpu_graph_id"))
        if asked[-1] == "1" and not captures:
            raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")
        run(session, binding, options)

    monkeypatch.setattr(FailingSession, "run_with_iobinding", capturing)
    session = Session(recognizer, GraphCard("cuda:0", "a card", bound=True))
    crops = crops_of(faces, 3)
    wanted = cpu.recognizer.run(crops).embedding
    assert np.allclose(session.run_pictures(crops)["embedding"], wanted, rtol=1e-3, atol=1e-3)
    # The first run of a shape finds out what comes of it; a graph needs the memory that was found.
    assert asked == (["-1", "1", "1"] if captures else ["-1", "1", "-1", "-1", "-1"])
    locked, *others = sorted(session.notes)
    assert "not in page-locked memory" in locked
    assert [("without CUDA graphs" in note, "CUDA failure 900" in note) for note in others] == [(True, True)] * (
        not captures
    )


def test_a_broken_graph_is_still_one_of_the_weights(recognizer: Weights, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no graph at all")
    broken = dataclasses.replace(recognizer, path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(WeightsError, match="cannot be run"):
        Session(broken, LIKE_A_GPU)


def test_half_precision_is_near_and_the_head_of_serfiq_is_not_in_it(
    recognizer: Weights, cpu: Networks, faces: list[np.ndarray]
) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto

    from streamgate.networks.graphs import HEAD_FROM, prepare

    crops = crops_of(faces, 8)
    half, full = Session(recognizer, LIKE_A_GPU, precision="fp16").run_pictures(crops), cpu.recognizer.run(crops)
    assert all(values.dtype == np.float32 for values in half.values())
    assert np.abs(half["spread"] - full.spread).max() < 1e-3 and np.abs(half["pose"] - full.pose).max() < 0.1
    assert not np.array_equal(half["embedding"], full.embedding)
    graph = onnx.load_model_from_string(prepare(recognizer.path.read_bytes(), recognizer.input, "fp16"))
    inferred = onnx.shape_inference.infer_shapes(graph).graph.value_info
    types = {one.name: one.type.tensor_type.elem_type for one in inferred}
    types |= {one.name: one.data_type for one in graph.graph.initializer}
    assert TensorProto.FLOAT16 in types.values()
    makers = {name: node for node in graph.graph.node for name in node.output}
    head, wanted = set(), ["spread", "embedding"]
    while wanted:
        name = wanted.pop()
        node = makers.get(name)
        # The backbone's last output comes as fp16, once.
        if node is None or (node.op_type == "Cast" and types.get(node.input[0]) == TensorProto.FLOAT16):
            continue
        head.add(node.op_type)
        wanted += node.input
        assert all(types.get(one, TensorProto.FLOAT) != TensorProto.FLOAT16 for one in [*node.input, name]), node
    assert {"Gemm", "Sqrt"} & head and HEAD_FROM in [one.name for one in graph.graph.output]


def test_casts_that_the_conversion_makes_twice_are_one_in_the_graph() -> None:
    """As it does in all releases for CUDA so far (ONNX Runtime 1.24 to 1.31); a name of two nodes is no graph."""
    from onnx import TensorProto, helper

    from streamgate.networks.graphs import _join_full_precision

    def cast(given: str, made: str, kind: int) -> Any:
        return helper.make_node("Cast", [given], [made], f"{made}_node", to=kind)

    full, half = TensorProto.FLOAT, TensorProto.FLOAT16
    nodes = [
        helper.make_node("Sqrt", ["x"], ["y"], "sqrt"),
        cast("y", "y_cast_to_fp16", half),
        *(cast("y_cast_to_fp16", "y_cast_to_fp32", full) for _ in range(3)),
        *(helper.make_node("Neg", ["y_cast_to_fp32"], [f"z{index}"], f"neg{index}") for index in range(3)),
    ]
    ends = [helper.make_tensor_value_info(name, full, [1]) for name in ("x", "z0", "z1", "z2")]
    graph = helper.make_graph(nodes, "twice", ends[:1], ends[1:])
    _join_full_precision(graph)
    casts = [(node.input[0], node.output[0]) for node in graph.node if node.op_type == "Cast"]
    assert casts == [("y", "y_cast_to_fp16"), ("y", "y_cast_to_fp32")]
    assert [node.op_type for node in graph.node].count("Neg") == 3


def test_standard_weights_with_float_inputs_go_the_same_way(networks: Networks, faces: list[np.ndarray]) -> None:
    found = resolve(str(standard_models()))
    with Networks(found, LIKE_A_GPU, 1) as gpu:
        crops = crops_of(faces, 3)
        assert np.allclose(gpu.recognizer.run(crops).embedding, networks.recognizer.run(crops).embedding, atol=1e-3)
        heads = np.ascontiguousarray(crops[:, :64, :64])
        assert np.allclose(head_poses(gpu.pose, heads), head_poses(networks.pose, heads), atol=1e-2)


def test_half_precision_is_refused_where_it_is_not_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"precision\.ifqa = fp16 is for GPUs"):
        Networks.open("embedded", "cpu", precision={"ifqa": "fp16"})
    weights = resolve("embedded")
    if weights["pose"].path == weights["recognizer"].path:
        with pytest.raises(UsageError, match="fills both roles"):
            Networks.open("embedded", LIKE_A_GPU, precision={"pose": "fp16"})
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(StreamgateError, match="pip install onnx"):
        Networks.open("embedded", LIKE_A_GPU)


def test_batches_fill_across_clients_while_one_is_on_its_way() -> None:
    running, release, sizes = Event(), Event(), []

    def run(pictures: Any) -> list[int]:
        sizes.append(len(pictures))
        running.set()
        release.wait(30)
        return [0] * len(pictures)

    with Batcher({"ifqa": run}, {"ifqa": 4}, workers=2, fill_s=30) as batcher:
        futures = [batcher.submit("ifqa", np.zeros(1), "first")]
        # Alone it does not wait for others.
        assert running.wait(30)
        futures += [batcher.submit("ifqa", np.zeros(1), client) for client in "abcd"]
        until = monotonic() + 30
        while len(sizes) < 2 and monotonic() < until:
            sleep(0.001)
        release.set()
        for future in futures:
            future.result(30)
    assert sizes == [1, 4]
