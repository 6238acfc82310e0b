"""Converts each upstream checkpoint to one plain ONNX file, and checks this file against the original.

torch and onnx are imported only when a file is converted.
"""

from __future__ import annotations

import importlib
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamgate.convert.export import check_agreement, export, export_half, noise, run
from streamgate.convert.onnx_check import check_self_contained
from streamgate.errors import WeightsError

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Converted:
    """The ONNX file's bytes, arrays to store next to it, and the library versions used."""

    onnx: bytes
    arrays: Arrays
    versions: dict[str, str]


def convert(converter: str, sources: list[Path], options: Mapping[str, Any]) -> Converted:
    """Convert verified upstream files with the named converter (see `CONVERTERS`).

    Raises:
        WeightsError: torch or onnx is missing, a file does not have the layout that the converter expects, or the
            converted graph does not agree with the original.
    """
    _need("onnx")
    model, arrays = CONVERTERS[converter](sources, options)
    check_self_contained(model, sources[0].name)
    versions = {name: _version(name) for name in ("onnx", "torch")}
    return Converted(model.SerializeToString(deterministic=True), arrays, versions)


def retinaface_mnet025(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """RetinaFace MobileNet-0.25."""
    return _retinaface("mobilenet025", sources[0]), {}


def retinaface_resnet50(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """RetinaFace ResNet-50 of retinaface-pytorch."""
    return _retinaface("resnet50", sources[0]), {}


def mobilefacenet(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """MobileFaceNet of foamliu."""
    state = load_state(sources[0])
    from streamgate.convert.mobilefacenet import foamliu

    return _recognizer(lambda: foamliu(state, float(options["drop_rate"])), sources[0])


def fsanet(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """FSA-Net: both files merged into one graph for batches, which is checked against the originals face by face."""
    from streamgate.convert.fsanet import merge

    first, second = (source.read_bytes() for source in sources)
    model = merge(first, second)
    faces = noise(3, 64, 64, 3)
    planes = (faces[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 128.0
    single = [
        np.mean([run(content, {"input": planes[i : i + 1]})[0][0] for content in (first, second)], axis=0)
        for i in range(len(faces))
    ]
    (batch,) = run(model.SerializeToString(), {"face": faces})
    check_agreement(batch, np.stack(single), 1e-2, sources[0].name)
    return model, {}


def iresnet(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """InsightFace's iresnet of 18, 34, 50, 100 or 200 layers."""
    state = load_state(sources[0])
    from streamgate.convert.iresnet import graph

    return _recognizer(lambda: graph(state, float(options["drop_rate"])), sources[0])


def insightface_mobilefacenet(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """InsightFace's MobileFaceNet, plain or large."""
    state = load_state(sources[0])
    from streamgate.convert.insightface_mobilefacenet import graph

    return _recognizer(lambda: graph(state, float(options["drop_rate"])), sources[0])


def ifqa_official(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """The official IFQA checkpoint, key "D", as a graph from `face`, float32 (N, 3, 256, 256), to `score` and `map`."""
    state = discriminator_of(load_checkpoint(sources[0]), sources[0])
    from streamgate.convert.ifqa import OFFICIAL, OUTPUTS, Ifqa, IfqaScorer

    def build() -> Any:
        network = Ifqa(OFFICIAL)
        network.load_state_dict(state)
        return IfqaScorer(network, "full")

    faces = _ifqa_noise()
    return export(_built(build, sources[0]), "face", OUTPUTS, faces[:1], faces), {}


def ifqaplus_official(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """The official IFQA++ checkpoint, key "D", with IFQA's input and outputs; matrices are stored as float16."""
    from streamgate.convert.ifqa import OUTPUTS
    from streamgate.convert.ifqaplus import scorer

    def build() -> Any:
        state = discriminator_of(load_checkpoint(sources[0]), sources[0])
        return _built(lambda: scorer(state), sources[0])

    # Storing the matrices in half precision changes individual pixels of the map by a few thousandths.
    return export_half(build, "face", OUTPUTS, _ifqa_noise(), 1e-2), {}


def minifasnet(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """MiniFASNetV2 of Silent-Face-Anti-Spoofing, from `face`, uint8 (N, 80, 80, 3) RGB, to `live` (N,)."""
    state = load_state(sources[0])
    from streamgate.convert.minifasnet import CROP_SIDE, graph

    built = _built(lambda: graph(state), sources[0])
    return export(built, "face", ("live",), noise(2, CROP_SIDE, CROP_SIDE, 3), noise(3, CROP_SIDE, CROP_SIDE, 3)), {}


def onnx_recognizer(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """A recognizer from an ONNX file, with SER-FIQ's head added to its last affine layer."""
    from streamgate.convert.onnx_models import recognizer

    return recognizer(sources[0], float(options["drop_rate"]), options)


def onnx_detector(sources: list[Path], options: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """A detector from an ONNX file."""
    from streamgate.convert.onnx_models import detector

    return detector(sources[0], options)


CONVERTERS: dict[str, Callable[[list[Path], Mapping[str, Any]], tuple[Any, Arrays]]] = {
    "retinaface-mnet025": retinaface_mnet025,
    "retinaface-resnet50": retinaface_resnet50,
    "mobilefacenet": mobilefacenet,
    "fsanet": fsanet,
    "iresnet": iresnet,
    "insightface-mobilefacenet": insightface_mobilefacenet,
    "ifqa-official": ifqa_official,
    "ifqaplus-official": ifqaplus_official,
    "minifasnet": minifasnet,
    "onnx-recognizer": onnx_recognizer,
    "onnx-detector": onnx_detector,
}
"""Converters by their name in the catalog."""


def load_state(path: Path) -> dict[str, Any]:
    """Load a checkpoint's tensors on the CPU, with the restricted unpickler only.

    Raises:
        WeightsError: torch is missing, or the file is not a plain state dict; full pickles are never loaded.
    """
    return _tensors_of(load_checkpoint(path), path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint's content with the restricted unpickler only; its tensors are on the CPU.

    Raises:
        WeightsError: torch is missing, or the file is not a plain checkpoint; full pickles are never loaded.
    """
    torch = _need("torch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=_can_be_mapped(path))
    except (Exception, MemoryError) as error:  # damaged or hostile bytes can cause any exception
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        if "weights_only" in reason:
            # torch's own message, which is replaced, advises loading the file without the restriction.
            reason = "it is damaged or contains more than tensors; anything that could run code is never loaded"
        raise WeightsError(f"{path.name}: not a plain PyTorch state dict ({reason})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path.name}: does not contain a state dict of tensors")
    return dict(content)


def discriminator_of(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The tensors of IFQA's discriminator. Raises WeightsError if there is none."""
    inner = content.get("D")
    if not isinstance(inner, Mapping):
        raise WeightsError(f'{path.name}: has no discriminator under the key "D"')
    return _tensors_of(inner, path)


def _can_be_mapped(path: Path) -> bool:
    """Whether torch can map the tensors into memory: the file must be a zip without compression."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())


def _ifqa_noise() -> npt.NDArray[np.float32]:
    faces = noise(2, 256, 256, 3).transpose(0, 3, 1, 2)
    return faces.astype(np.float32) / np.float32(127.5) - 1


def _tensors_of(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The tensors by name, without the prefix that DataParallel adds."""
    torch = _need("torch")
    if not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(f"{path.name}: does not contain a state dict of tensors")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _retinaface(layout: str, source: Path) -> Any:
    state = load_state(source)
    from streamgate.convert import retinaface

    graph = _built(lambda: getattr(retinaface, layout)(state), source)
    return retinaface.export_detector(graph)


def _recognizer(build: Callable[[], Any], source: Path) -> tuple[Any, Arrays]:
    """The graph with the SER-FIQ head, and A and c of its last affine layer for the sampled form of SER-FIQ."""
    graph = _built(build, source)
    outputs = ("embedding", "spread", "features")
    model = export(graph, "face", outputs, noise(2, 112, 112, 3), noise(3, 112, 112, 3))
    return model, {"weight": graph.weight.numpy(), "bias": graph.bias.numpy()}


def _built(build: Callable[[], Any], source: Path) -> Any:
    """Build a network from a state dict; raises WeightsError if keys or shapes do not match."""
    try:
        return build()
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{source.name}: does not have the layout that the converter expects ({reason})") from error


def _need(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise WeightsError(
            f"converting weights needs {module}: pip install 'streamgate[convert]' (for the smaller CPU build of "
            "torch, first run pip install torch --index-url https://download.pytorch.org/whl/cpu)"
        ) from error


def _version(module: str) -> str:
    """Version of a module; empty if the conversion did not need the module, which is then not imported."""
    return str(getattr(sys.modules.get(module), "__version__", ""))
