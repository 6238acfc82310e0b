"""Our recognizer's definition: what its graph promises, against docs/design.md 4.1's reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from models.recognizer.architecture import (  # noqa: E402
    EYE_ROWS,
    LEFT_EYE,
    OUTPUTS,
    RIGHT_EYE,
    EyesHead,
    FaceGraph,
    FaceHeads,
    FaceNetwork,
    Taps,
    closed_form,
    export_onnx,
    normalise,
)
from streamgate.measures.serfiq import closed_form_spread  # noqa: E402


@pytest.fixture(scope="module")
def network() -> FaceNetwork:
    torch.manual_seed(0)
    return FaceNetwork(0.5).eval()


@pytest.fixture(scope="module")
def session(network: FaceNetwork, tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    path = tmp_path_factory.mktemp("onnx") / "recognizer.onnx"
    export_onnx(network, path)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def faces(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)


def test_the_closed_form_gives_design_4_1s_vector() -> None:
    weight = torch.tensor([[1.0, 0, 2, 0], [0, 1, 0, -1], [1, 1, 0, 0]])
    features, bias = torch.tensor([[1.0, 2, 0.5, 1]]), torch.tensor([0.5, -0.5, 1])
    _, spread = closed_form(weight, bias, features, odds=1.0)
    assert float(spread) == pytest.approx(0.6586916653, abs=1e-6)


def test_the_graph_agrees_with_the_reference_spread(network: FaceNetwork) -> None:
    weight, bias = (value.numpy() for value in network.backbone.last_affine())
    with torch.no_grad():
        embedding, spread, features, pose, visible = FaceGraph(network)(torch.from_numpy(faces(3)))
    assert embedding.shape == (3, 128) and features.shape == (3, 512) and pose.shape == (3, 3)
    for row in range(3):
        assert float(spread[row]) == pytest.approx(
            closed_form_spread(weight, features[row].numpy(), bias, 0.5), rel=1e-4
        )
    assert bool(((visible > 0) & (visible < 1)).all())


def test_the_exported_file_takes_bytes_and_names_its_outputs(session: onnxruntime.InferenceSession) -> None:
    assert tuple(output.name for output in session.get_outputs()) == OUTPUTS
    assert session.get_inputs()[0].type == "tensor(uint8)"
    assert [len(value) for value in session.run(None, {"face": faces(4)})] == [4] * len(OUTPUTS)


def test_half_storage_keeps_the_embedding(network: FaceNetwork, session: onnxruntime.InferenceSession) -> None:
    with torch.no_grad():
        wanted = FaceGraph(network)(torch.from_numpy(faces(2)))
    for got, want in zip(session.run(None, {"face": faces(2)}), wanted, strict=True):
        assert got == pytest.approx(want.numpy(), rel=2e-2, abs=2e-2)


def test_an_eyes_head_adds_its_output(network: FaceNetwork, tmp_path: Path) -> None:
    export_onnx(network, tmp_path / "a.onnx", EyesHead())
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == [*OUTPUTS, "eyes"]
    eyes = session.run(["eyes"], {"face": faces(3)})[0]
    assert eyes.shape == (3,) and ((eyes > 0) & (eyes < 1)).all()


def test_the_eyes_are_mirror_images_and_the_less_open_one_decides() -> None:
    assert (LEFT_EYE[0], LEFT_EYE[1]) == (112 - RIGHT_EYE[1], 112 - RIGHT_EYE[0])
    head = EyesHead().eval()
    pixels = torch.from_numpy(faces(4))
    with torch.no_grad():
        each, mirrored = head.each(pixels), head.each(pixels.flip(2))
        assert torch.allclose(each, mirrored.flip(0), atol=1e-4)
        assert torch.allclose(head(pixels), torch.sigmoid(each).amin(dim=0))


def test_light_and_what_lies_off_the_eyes_do_not_matter() -> None:
    head = EyesHead().eval()
    pixels = torch.from_numpy(faces(2)) // 2 * 2
    elsewhere = pixels.clone()
    elsewhere[:, EYE_ROWS[1] :] = 0
    with torch.no_grad():
        assert torch.equal(head(pixels), head(elsewhere))
        assert torch.allclose(head(pixels), head(pixels // 2), atol=0.02)


def test_heads_cost_less_than_a_twentieth_of_the_backbone(network: FaceNetwork) -> None:
    counted = {"heads": 0, "backbone": 0}

    def count(place: str) -> object:
        def hook(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
            counted[place] += output[0].numel() * module.weight[0].numel()

        return hook

    handles = [
        module.register_forward_hook(count(place))
        for place in counted
        for module in getattr(network, place).modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    ]
    with torch.no_grad():
        network.heads(network.taps(normalise(torch.from_numpy(faces(1)))))
    for handle in handles:
        handle.remove()
    assert 0 < counted["heads"] < 0.02 * counted["backbone"]


def test_units_chain_to_the_features_of_the_backbone(network: FaceNetwork) -> None:
    planes = normalise(torch.from_numpy(faces(2)))
    with torch.no_grad():
        taps = network.taps(planes)
        assert torch.equal(taps.features, network.backbone(planes))
    assert taps.middle.shape[1:] == (128, 14, 14) and taps.last.shape[1:] == (128, 7, 7)


def test_dropout_is_only_there_while_training(network: FaceNetwork) -> None:
    features = torch.randn(4, 512)
    with torch.no_grad():
        assert torch.equal(network.embed(features), network.embed(features))


def test_heads_take_taps_of_any_batch() -> None:
    taps = Taps(torch.zeros(5, 128, 14, 14), torch.zeros(5, 128, 7, 7), torch.zeros(5, 512))
    pose, logit = FaceHeads().eval()(taps)
    assert pose.shape == (5, 3) and logit.shape == (5,)


def test_a_drop_rate_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="drop rate"):
        FaceNetwork(1.0)


def test_a_file_is_written_whole_or_not_at_all(network: FaceNetwork, tmp_path: Path) -> None:
    export_onnx(network, tmp_path / "a.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    assert (tmp_path / "a.onnx").stat().st_size < 3_000_000
