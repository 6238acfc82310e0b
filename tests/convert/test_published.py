"""Imported networks give the values of their published definitions, which stand here a second time."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402

from streamgate.convert import import_weights  # noqa: E402
from streamgate.convert.checkpoints import convert  # noqa: E402
from streamgate.convert.export import noise, run  # noqa: E402
from streamgate.convert.ifqaplus import IfqaPlus, VitSpec  # noqa: E402
from streamgate.errors import WeightsError  # noqa: E402
from streamgate.measures.serfiq import closed_form_spread  # noqa: E402
from streamgate.networks.ifqa import ifqa_scores  # noqa: E402
from streamgate.networks.recognizer import Recognizer  # noqa: E402
from streamgate.networks.sessions import Session  # noqa: E402
from streamgate.weights import store  # noqa: E402
from support.command import inside  # noqa: E402
from support.real_weights import shared_part  # noqa: E402

SMALL = VitSpec(side=56, patch=14, width=32, depth=2, decoder_width=16, decoder_depth=1)


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMGATE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def randomised(network: nn.Module) -> nn.Module:
    """Every value random, so that none of them can be left out unnoticed."""
    torch.manual_seed(7)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) + 0.5 if "running_var" in name else torch.randn(tensor.shape) * 0.3)
    return network.eval()


def smooth_faces(count: int, side: int) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(one, (0, 0), 2 + row) for row, one in enumerate(noise(count, side, side, 3))])


def published_ifqaplus(state: dict[str, torch.Tensor], face: np.ndarray, spec: VitSpec) -> torch.Tensor:
    """AIM-SKKU/IFQA, model_huge.py and test.py: the map (S, S) of a face RGB uint8 (256, 256, 3)."""

    def block(name: str, width: int) -> nn.Module:
        # timm's Block is torch's encoder layer with the norms first.
        layer = nn.TransformerEncoderLayer(width, 16, 4 * width, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True)
        names = {"self_attn.in_proj_weight": "attn.qkv.weight", "self_attn.in_proj_bias": "attn.qkv.bias",
                 "self_attn.out_proj.weight": "attn.proj.weight", "self_attn.out_proj.bias": "attn.proj.bias",
                 "linear1.weight": "mlp.fc1.weight", "linear1.bias": "mlp.fc1.bias", "linear2.weight": "mlp.fc2.weight",
                 "linear2.bias": "mlp.fc2.bias"}  # fmt: skip
        layer.load_state_dict({key: state[f"{name}.{names.get(key, key)}"] for key in layer.state_dict()})
        return layer.eval()

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    scaled = cv2.resize((face / 255 - 0.5).astype(np.float32) / 0.5, (spec.side,) * 2, interpolation=cv2.INTER_CUBIC)
    x = nn.functional.conv2d(torch.from_numpy(scaled.transpose(2, 0, 1))[None], state["patch_embed.proj.weight"],
                             state["patch_embed.proj.bias"], spec.patch).flatten(2).transpose(1, 2)  # fmt: skip
    x = x + state["pos_embed"][:, 1:]
    shuffle = torch.randperm(x.shape[1])  # "masking" that leaves nothing out
    x = torch.cat([state["cls_token"] + state["pos_embed"][:, :1], x[:, shuffle]], dim=1)
    for number in range(spec.depth):
        x = block(f"blocks.{number}", spec.width)(x)
    x = linear("decoder_embed", norm("norm", x))
    x = torch.cat([x[:, :1], x[:, 1:][:, torch.argsort(shuffle)]], dim=1) + state["decoder_pos_embed"]
    for number in range(spec.decoder_depth):
        x = block(f"decoder_blocks.{number}", spec.decoder_width)(x)
    x = torch.sigmoid(linear("decoder_pred", norm("decoder_norm", x))[0, 1:])
    cells, patch = spec.side // spec.patch, spec.patch
    found = x.reshape(cells, cells, patch, patch).permute(0, 2, 1, 3).reshape(spec.side, spec.side)
    return torch.where(found >= 0, found, torch.zeros_like(found))


def test_ifqaplus_gives_the_published_score_and_map(tmp_path: Path) -> None:
    state = randomised(IfqaPlus(SMALL)).state_dict()
    torch.save({"D": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "IFQA++_Metric.pth")
    done = inside("models", "import", tmp_path / "IFQA++_Metric.pth")
    assert done.code == 0 and "IFQA++" in done.err, done.err
    made = import_weights(tmp_path / "IFQA++_Metric.pth", name="again")
    assert made.roles == ("ifqa",)
    stored = {one.name: one.data_type for one in onnx.load(made.path).graph.initializer}
    assert stored["blocks.0.attn.qkv.weight_fp16"] == onnx.TensorProto.FLOAT16

    faces = smooth_faces(2, 256)
    found = ifqa_scores(Session(made, "cpu"), faces)
    halved = {name: value.half().float() if value.ndim > 1 else value for name, value in state.items()}
    for face, one in zip(faces, found, strict=True):
        with torch.no_grad():
            want = published_ifqaplus(halved, face, SMALL)
            exact = published_ifqaplus(state, face, SMALL)
        assert float(want.std()) > 0.1
        assert one.value == pytest.approx(float(exact.mean()), abs=1e-4)
        larger = nn.functional.interpolate(want[None, None], (256, 256), mode="bilinear")[0, 0]
        assert np.abs(one.map - larger.numpy()).max() < 1e-4


def test_ifqaplus_has_the_published_size() -> None:
    with torch.device("meta"):
        state = IfqaPlus().state_dict()
    assert (len(state), sum(value.numel() for value in state.values())) == (494, 656_873_412)


def test_discriminators_of_other_shapes_are_refused_by_their_shape(tmp_path: Path) -> None:
    state = dict(randomised(IfqaPlus(SMALL)).state_dict())

    def refused(changed: dict[str, torch.Tensor]) -> str:
        torch.save({"D": changed}, tmp_path / "x.pth")
        with pytest.raises(WeightsError) as caught:
            import_weights(tmp_path / "x.pth")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    # Little in the file, much if it were worked with.
    assert "not IFQA++" in refused(state | {"pos_embed": torch.zeros(1).expand(1, 10**6 + 1, 32)})
    assert "layout" in refused({name: value for name, value in state.items() if name != "mask_token"})
    assert "float16" in refused(state | {"decoder_pred.weight": torch.full((196, 16), 1e6)})
    words = refused({"conv.weight": torch.zeros(3, 5), "conv.bias": torch.zeros(3)})
    assert "2 tensors with 18 values, conv.weight 3x5 to conv.bias 3" in words and "IFQA++_Metric.pth" in words


class PublishedMobileFaceNet(nn.Module):
    """InsightFace's recognition/arcface_torch/backbones/mobilefacenet.py."""

    def __init__(self, blocks: tuple[int, int, int, int], scale: int, embedding: int) -> None:
        super().__init__()

        def conv(
            inputs: int, outputs: int, kernel: int, stride: int, pad: int, groups: int = 1, *, act: bool = True
        ) -> nn.Module:
            module = nn.Module()
            module.layers = nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups, bias=False), nn.BatchNorm2d(outputs),
                *([nn.PReLU(outputs)] if act else []),
            )  # fmt: skip
            module.forward = module.layers.forward
            return module

        def depthwise(inputs: int, outputs: int, groups: int, stride: int, *, residual: bool) -> nn.Module:
            module = nn.Module()
            module.layers = nn.Sequential(
                conv(inputs, groups, 1, 1, 0), conv(groups, groups, 3, stride, 1, groups),
                conv(groups, outputs, 1, 1, 0, act=False),
            )  # fmt: skip
            module.forward = lambda x: x + module.layers(x) if residual else module.layers(x)
            return module

        def residual(channels: int, count: int, groups: int) -> nn.Module:
            module = nn.Module()
            parts = [depthwise(channels, channels, groups, 1, residual=True) for _ in range(count)]
            module.layers = nn.Sequential(*parts)
            module.forward = module.layers.forward
            return module

        one, two = 64 * scale, 128 * scale
        first = conv(one, one, 3, 1, 1, 64) if blocks[0] == 1 else residual(one, blocks[0], 128)
        self.layers = nn.ModuleList([
            conv(3, one, 3, 2, 1), first, depthwise(one, one, 128, 2, residual=False), residual(one, blocks[1], 128),
            depthwise(one, two, 256, 2, residual=False), residual(two, blocks[2], 256),
            depthwise(two, two, 512, 2, residual=False), residual(two, blocks[3], 256),
        ])  # fmt: skip
        self.conv_sep = conv(two, 512, 1, 1, 0)
        self.features = nn.Module()
        self.features.layers = nn.Sequential(
            conv(512, 512, 7, 1, 0, 512, act=False), nn.Flatten(), nn.Linear(512, embedding, bias=False),
            nn.BatchNorm1d(embedding),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.features.layers(self.conv_sep(x))


def check_recognizer(weights: store.Weights | None, network: nn.Module, drop_rate: float) -> None:
    assert weights is not None
    faces = smooth_faces(2, 112)
    planes = torch.from_numpy(((faces.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5).astype(np.float32))
    with torch.no_grad():
        want = network(planes).numpy()
    recognizer = Recognizer(Session(weights, "cpu"))
    found, (weight, bias) = recognizer.run(faces), recognizer.last_affine()
    assert np.abs(found.embedding - want).max() < 1e-4 * np.abs(want).max()
    for x, spread in zip(found.features, found.spread, strict=True):
        assert spread == pytest.approx(closed_form_spread(weight, x, bias, drop_rate), rel=1e-3)


def test_mobilefacenet_of_insightface_comes_with_published_constants(tmp_path: Path, models: Path) -> None:
    network = randomised(PublishedMobileFaceNet((1, 2, 1, 1), 2, 64))
    torch.save(network.state_dict(), tmp_path / "backbone.pth")
    done = inside("models", "import", tmp_path / "backbone.pth", "--name", "mbf",
                  "--alpha", "130", "--r", "0.88", "--dropout", "0.4")  # fmt: skip
    assert done.code == 0 and "published constants" in done.err and "not calibrated" not in done.err, done.err
    fitted = json.loads((models / "imported" / "mbf" / "receipt.json").read_text())["calibration"]
    assert (fitted["alpha"], fitted["r"], fitted["drop_rate"]) == (130, 0.88, 0.4)
    check_recognizer(store.from_receipt(models / "imported" / "mbf", "imported"), network, 0.4)


def test_the_large_mobilefacenet_of_insightface_is_told_by_its_tensors(tmp_path: Path) -> None:
    network = randomised(PublishedMobileFaceNet((2, 1, 2, 1), 1, 32))
    torch.save(network.state_dict(), tmp_path / "backbone.pth")
    made = import_weights(tmp_path / "backbone.pth")
    assert (made.name, made.calibration) == ("insightface-mobilefacenet", None)
    check_recognizer(made, network, 0.5)


def test_published_constants_go_with_recognizers_alone(tmp_path: Path) -> None:
    torch.save({"D": randomised(IfqaPlus(SMALL)).state_dict()}, tmp_path / "ifqa.pth")
    for arguments, words in (
        (["--alpha", "130"], "--alpha and --r must be given together"),
        (["--dropout", "0.4"], "--alpha and --r must be given together"),
        (["--alpha", "nan", "--r", "0.5"], "must be above 0"),
        (["--alpha", "130", "--r", "0.88", "--calibrate", tmp_path], "fits the values of --alpha"),
        (["--alpha", "130", "--r", "0.88"], "only for recognizers"),
        (["--card", tmp_path / "card.json"], "not allowed for a checkpoint"),
    ):
        done = inside("models", "import", tmp_path / "ifqa.pth", *arguments)
        assert done.code == 2 and words in done.err, done.err
    done = inside("models", "import", tmp_path / "ifqa.pth", "--calibrate", tmp_path, "--device", "cuda:77")
    assert done.code == 6, done.err


def test_minifasnet_gives_the_published_probability() -> None:
    source = shared_part("weights/minifasnet_v2_2.7_80x80.pth")
    loaded = torch.load(source, map_location="cpu", weights_only=True)
    state = {key.removeprefix("module."): value for key, value in loaded.items()}

    def unit(name: str, x: torch.Tensor, stride: int = 1, pad: int = 0) -> torch.Tensor:
        """Conv_block and Linear_block of src/model_lib/MiniFASNet.py."""
        weight = state[f"{name}.conv.weight"]
        groups = len(weight) if weight.shape[1] == 1 else 1
        x = nn.functional.conv2d(x, weight, None, stride, pad, groups=groups)
        names = (f"{name}.bn.{part}" for part in ("running_mean", "running_var", "weight", "bias"))
        x = nn.functional.batch_norm(x, *(state[one] for one in names))
        return nn.functional.prelu(x, state[f"{name}.prelu.weight"]) if f"{name}.prelu.weight" in state else x

    def depthwise(name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        y = unit(f"{name}.project", unit(f"{name}.conv_dw", unit(f"{name}.conv", x), stride, 1))
        return x + y if stride == 1 else y

    faces = smooth_faces(3, 80)
    x = torch.from_numpy(np.ascontiguousarray(faces[..., ::-1].transpose(0, 3, 1, 2)).astype(np.float32))
    x = unit("conv2_dw", unit("conv1", x, 2, 1), 1, 1)
    for down, stage, count in (("conv_23", "conv_3", 4), ("conv_34", "conv_4", 6), ("conv_45", "conv_5", 2)):
        x = depthwise(down, x, 2)
        for number in range(count):
            x = depthwise(f"{stage}.model.{number}", x)
    x = unit("conv_6_dw", unit("conv_6_sep", x)).flatten(1) @ state["linear.weight"].T
    parts = ("running_mean", "running_var", "weight", "bias")
    x = nn.functional.batch_norm(x, *(state[f"bn.{part}"] for part in parts))
    want = torch.softmax(x @ state["prob.weight"].T, dim=1)[:, 1].numpy()
    (found,) = run(convert("minifasnet", [source], {}).onnx, {"face": faces})
    assert np.abs(found - want).max() < 1e-4 and want.min() < 0.5 < want.max()
