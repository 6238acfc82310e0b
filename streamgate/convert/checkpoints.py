"""Upstream checkpoints become one plain ONNX file each, checked against what they came from.

torch and onnx are needed only here (`pip install 'streamgate[convert]'`) and are imported when called.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from streamgate.convert.onnx_check import OPSET, check_self_contained
from streamgate.errors import WeightsError
from streamgate.networks.device import load_onnxruntime

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Converted:
    """The ONNX file's bytes, arrays to keep beside it, and the versions that made it."""

    onnx: bytes
    arrays: Arrays
    versions: dict[str, str]


def convert(converter: str, sources: list[Path], options: Mapping[str, Any]) -> Converted:
    """Convert verified upstream files with the converter of that name (see `CONVERTERS`).

    Raises:
        WeightsError: torch or onnx is missing, a file is not the layout the converter expects, or the
            converted graph does not agree with what it was made from.
    """
    _need("onnx")
    model, arrays = CONVERTERS[converter](sources, options)
    check_self_contained(model, sources[0].name)
    versions = {name: _version(name) for name in ("onnx", "torch")}
    return Converted(model.SerializeToString(deterministic=True), arrays, versions)


def retinaface_mnet025(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """RetinaFace MobileNet-0.25: detector graph of `convert.retinaface`."""
    return _retinaface("mobilenet025", sources[0]), {}


def retinaface_resnet50(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """RetinaFace ResNet-50 of retinaface-pytorch: detector graph of `convert.retinaface`."""
    return _retinaface("resnet50", sources[0]), {}


def mobilefacenet(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """MobileFaceNet with the SER-FIQ head; keeps A and c for the sampled form."""
    state = load_state(sources[0])
    from streamgate.convert.mobilefacenet import foamliu

    graph = _built(lambda: foamliu(state, float(options["drop_rate"])), sources[0])
    model = export(graph, "face", (112, 112), ("embedding", "spread", "features"), free_size=False)
    return model, {"weight": graph.weight.numpy(), "bias": graph.bias.numpy()}


def fsanet(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """Both FSA-Net files merged, with a batch axis; checked against single runs of the originals."""
    from streamgate.convert.fsanet import merge

    first, second = (source.read_bytes() for source in sources)
    model = merge(first, second)
    faces = _noise((3, 64, 64, 3))
    planes = (faces[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 128.0
    runners = [_session(content) for content in (first, second)]
    single = [
        np.mean([runner.run(None, {"input": planes[i : i + 1]})[0][0] for runner in runners], axis=0)
        for i in range(len(faces))
    ]
    (batch,) = _session(model.SerializeToString()).run(None, {"face": faces})
    _agree(batch, np.stack(single), 1e-2, sources[0].name)
    return model, {}


def iresnet(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """InsightFace's iresnet of 18, 34, 50 or 100 layers, with the SER-FIQ head; keeps A and c for the sampled form."""
    state = load_state(sources[0])
    from streamgate.convert.iresnet import graph

    built = _built(lambda: graph(state, float(options["drop_rate"])), sources[0])
    model = export(built, "face", (112, 112), ("embedding", "spread", "features"), free_size=False)
    return model, {"weight": built.weight.numpy(), "bias": built.bias.numpy()}


def ifqa_official(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """The official IFQA checkpoint, key "D": `face` float32 (N, 3, 256, 256) in, `score` and `map` out."""
    import io

    inner = load_checkpoint(sources[0]).get("D")
    if not isinstance(inner, Mapping):
        raise WeightsError(f'{sources[0].name}: has no discriminator under the key "D"')
    state = _tensors_of(inner, sources[0])
    import onnx
    import torch

    from streamgate.convert.ifqa import INPUT_SIDE, OFFICIAL, Ifqa, IfqaScorer

    def build() -> Any:
        network = Ifqa(OFFICIAL)
        network.load_state_dict(state)
        return IfqaScorer(network, "full").eval()

    scorer = _built(build, sources[0])
    noise = _noise((2, INPUT_SIDE, INPUT_SIDE, 3)).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    faces = torch.from_numpy(noise)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            scorer,
            (faces[:1],),
            cast(Any, buffer),
            dynamo=False,
            opset_version=OPSET,
            input_names=["face"],
            output_names=["score", "map"],
            dynamic_axes={"face": {0: "N"}, "score": {0: "N"}, "map": {0: "N"}},
        )
        want = scorer(faces)
    for got, wanted in zip(_session(buffer.getvalue()).run(None, {"face": noise}), want, strict=True):
        _agree(got, wanted.numpy(), 1e-3, sources[0].name)
    return onnx.load_from_string(buffer.getvalue()), {}


CONVERTERS: dict[str, Callable[[list[Path], Mapping[str, Any]], tuple[Any, Arrays]]] = {
    "retinaface-mnet025": retinaface_mnet025,
    "retinaface-resnet50": retinaface_resnet50,
    "mobilefacenet": mobilefacenet,
    "fsanet": fsanet,
    "iresnet": iresnet,
    "ifqa-official": ifqa_official,
}
"""By the name that the catalog uses."""


def load_state(path: Path) -> dict[str, Any]:
    """A checkpoint's tensors, on the CPU, by the restricted unpickler only.

    Raises:
        WeightsError: torch is missing, or the file is no plain state dict (never a fallback to full pickles).
    """
    return _tensors_of(load_checkpoint(path), path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, tensors on the CPU, by the restricted unpickler only.

    Raises:
        WeightsError: torch is missing, or the file is no plain checkpoint (never a fallback to full pickles).
    """
    torch = _need("torch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (Exception, MemoryError) as error:  # damaged or hostile bytes make the unpickler fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        if "weights_only" in reason:
            # torch's own words advise to load it all the same.
            reason = "it is damaged or holds more than tensors; what could run code is never loaded"
        raise WeightsError(f"{path.name}: not a plain PyTorch state dict ({reason})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path.name}: holds something else than a state dict of tensors")
    return dict(content)


def _tensors_of(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The tensors by name, without the prefix that DataParallel puts before each."""
    torch = _need("torch")
    if not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(f"{path.name}: holds something else than a state dict of tensors")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def export(graph: Any, input_name: str, size: tuple[int, int], outputs: tuple[str, ...], free_size: bool) -> Any:
    """Export a torch graph that takes uint8 (N, H, W, 3), with N (and H, W if `free_size`) left open.

    The ONNX is run on noise of another batch (and size) than it was traced with and must agree with torch.

    Raises:
        WeightsError: it does not agree.
    """
    import io

    import onnx
    import torch

    axes: dict[str, dict[int, str]] = {name: {0: "N"} for name in outputs}
    axes[input_name] = {0: "N"}
    if free_size:
        axes[input_name].update({1: "H", 2: "W"})
        for name in outputs:
            axes[name][1] = "P"
    buffer = io.BytesIO()
    graph.eval()
    with warnings.catch_warnings(), torch.no_grad():
        # Deprecated but chosen: torch's new exporter writes external data.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (torch.from_numpy(_noise((2, *size, 3))),),
            cast(Any, buffer),
            dynamo=False,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=list(outputs),
            dynamic_axes=axes,
        )
    model = onnx.load_from_string(buffer.getvalue())
    probe = _noise((3, size[0] + 32, size[1] + 64, 3) if free_size else (3, *size, 3))
    with torch.no_grad():
        expected = graph(torch.from_numpy(probe))
    for name, got, want in zip(outputs, _session(buffer.getvalue()).run(None, {input_name: probe}), expected,
                               strict=True):  # fmt: skip
        _agree(got, want.numpy(), 1e-3, name)
    return model


def _retinaface(layout: str, source: Path) -> Any:
    state = load_state(source)
    from streamgate.convert import retinaface

    graph = _built(lambda: getattr(retinaface, layout)(state), source)
    return export(graph, "image", (64, 96), ("loc", "conf", "landm"), free_size=True)


def _built(build: Callable[[], Any], source: Path) -> Any:
    """Build a network from a state dict; keys or shapes that do not fit are the file's fault."""
    try:
        return build()
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{source.name}: does not have the layout of this converter ({reason})") from error


def _agree(got: npt.NDArray[Any], want: npt.NDArray[Any], tolerance: float, name: str) -> None:
    """Refuse a conversion whose figures differ by more than `tolerance` of their own size (at least of 1)."""
    scale = max(1.0, float(np.abs(want).max()))
    if got.shape != want.shape or not np.abs(got - want).max() <= tolerance * scale:
        raise WeightsError(f"{name}: the converted graph does not agree with the original; nothing was installed")


def _noise(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _session(content: bytes) -> Any:
    runtime = load_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _need(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise WeightsError(
            f"converting weights needs {module}: pip install 'streamgate[convert]' (for the small CPU build "
            "of torch first: pip install torch --index-url https://download.pytorch.org/whl/cpu)"
        ) from error


def _version(module: str) -> str:
    """Version of an already imported module, "" when the conversion did not need it."""
    import sys

    return str(getattr(sys.modules.get(module), "__version__", ""))
