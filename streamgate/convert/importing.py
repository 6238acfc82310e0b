"""`models import`: converts a user's own checkpoint to one ONNX file with a receipt, for `--models imported`.

The command supports retinaface-pytorch's ResNet-50 (detector), InsightFace's iresnet and MobileFaceNet (recognizers)
and the official IFQA and IFQA++ checkpoints. It recognises the kind of a checkpoint by the names of the tensors.
Recognizers and detectors in ONNX format need a card (`convert.model_card`).
"""

from __future__ import annotations

import math
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streamgate.convert.checkpoints import Converted, convert, discriminator_of, load_checkpoint
from streamgate.convert.onnx_check import OPSET
from streamgate.convert.pulling import write_conversion
from streamgate.errors import UsageError, WeightsError, one_line
from streamgate.networks.device import Device, choose_device
from streamgate.parallel import usable_cores
from streamgate.weights import store
from streamgate.weights.catalog import (
    CONVERTER_VERSION,
    Calibration,
    Entry,
    InputSpec,
    SerfiqCalibration,
)
from streamgate.weights.files import sha256_of

MIN_FACES = 100
"""Minimum number of faces for a calibration."""

MAX_BYTES = 4 << 30
"""Maximum size of a checkpoint, packed or unpacked; IFQA++ has 2.6 GB."""

_IFQA_INPUT = InputSpec("float32", "RGB", (127.5,) * 3, (1 / 127.5,) * 3)
PLAIN_DROP_RATE = 0.5
"""Drop rate in the graph of a recognizer without calibration: the drop rate that the SER-FIQ paper uses."""


def _kind(converter: str, title: str, role: str, training_data: str, described: InputSpec | None = None) -> Entry:
    return Entry(converter, title, (role,), store.IMPORTED, "", training_data, converter, (), described or InputSpec())


KINDS = (
    _kind("retinaface-resnet50", "RetinaFace ResNet-50 of retinaface-pytorch", "detector", "WIDER FACE (research use)"),
    _kind("iresnet", "InsightFace iresnet", "recognizer", "unknown (not in the checkpoint)"),
    _kind("insightface-mobilefacenet", "InsightFace MobileFaceNet", "recognizer", "unknown (not in the checkpoint)"),
    _kind("ifqa-official", "official IFQA", "ifqa", "FFHQ and CelebA-HQ (research use)", _IFQA_INPUT),
    _kind("ifqaplus-official", "official IFQA++", "ifqa", "FFHQ and CelebA-HQ (research use)", _IFQA_INPUT),
)
"""The kinds of checkpoints that can be imported, as catalog entries without files."""


def import_weights(
    file: Path,
    *,
    name: str | None = None,
    card: Path | None = None,
    calibrate: Path | None = None,
    published: SerfiqCalibration | None = None,
    device: str = "auto",
    licence: str = "your own responsibility",
    report: Callable[[str], None] = lambda text: None,
) -> store.Weights:
    """Convert `file` and install it in the models folder, atomically; returns the weights for `--models imported`.

    Args:
        file: the checkpoint (.pth, .pt), a zip that contains only the checkpoint, or an ONNX file.
        name: name of the folder for the weights, by default their kind. An import with the same name is replaced.
        card: card of an ONNX file, required for ONNX files and not allowed for checkpoints; see `convert.model_card`.
        calibrate: a folder with faces for fitting the mapping to 0..100; not for detectors.
        published: constants to use instead of fitting them; only for recognizers. The `calibration_id` in it
            is replaced.
        device: where the networks of a calibration run: auto, cpu, cuda or cuda:N.
        licence: text for `models list`.
        report: called with a line of text that describes the current step.

    Raises:
        UsageError: the file does not exist, or the options are incompatible.
        WeightsError: the file is not a known checkpoint or is hostile, or the conversion is rejected.
    """
    if not file.is_file():
        raise UsageError(f"{file}: no such file; give the path of a checkpoint")
    if file.stat().st_size > MAX_BYTES:
        raise WeightsError(f"{file.name}: is larger than {MAX_BYTES >> 30} GiB; no known checkpoint is that large")
    if calibrate is not None and not calibrate.is_dir():
        raise UsageError(f"--calibrate {calibrate}: no such folder")
    if calibrate is not None and published is not None:
        raise UsageError("--calibrate fits the values of --alpha, --r and --dropout; give it without these options")
    if (card is None) != (file.suffix.lower() != ".onnx"):
        raise UsageError("--card CARD is required for an ONNX file and not allowed for a checkpoint")
    if published is not None and not (
        0 < published.alpha < math.inf and 0 <= published.r <= 1 and 0 < published.drop_rate < 1
    ):
        raise UsageError("--alpha must be above 0, --r from 0 to 1, and --dropout above 0 and below 1")
    chosen_device = choose_device(device) if calibrate is not None else None
    with _unpacked(file) as checkpoint:
        kind, title = _recognise(checkpoint) if card is None else _of_card(card)
        if calibrate is not None and kind.roles[0] == "detector":
            raise UsageError("--calibrate is not for detectors, which have no measure to calibrate; remove the option")
        if published is not None and kind.roles[0] != "recognizer":
            raise UsageError(f"--alpha, --r and --dropout are only for recognizers, not for the role {kind.roles[0]}")
        chosen = name or (file.stem if card else title.split()[-1] if kind.converter == "iresnet" else kind.converter)
        if not chosen or store.safe_name(chosen) != chosen:
            raise UsageError(f"--name {chosen!r}: use letters, digits, '.', '_' and '-'; start with a letter or digit")
        report(f"converting {title} to ONNX")
        drop_rate = PLAIN_DROP_RATE if published is None else published.drop_rate
        converted = convert(kind.converter, [checkpoint], {**kind.options, "drop_rate": drop_rate})
        calibration: Calibration | None = None
        words = ""
        if published is not None:
            identity = f"{chosen}/published/{sha256_of(checkpoint)[:8]}"
            calibration = replace(published, calibration_id=identity)
            words = "published constants"
        elif calibrate is not None:
            report(f"calibrating on {calibrate}")
            calibration, words, converted = _calibrated(kind, chosen, converted, checkpoint, calibrate, chosen_device)
        if calibration is not None:
            report(f"calibration: {_calibration_words(calibration)} ({words})")
    folder = store.imported_folder() / chosen
    record = {
        "name": chosen,
        "imported": True,
        "title": title,
        "roles": list(kind.roles),
        "source": [{"file": file.name, "sha256": sha256_of(file)}],
        "converter": kind.converter,
        "converter_version": CONVERTER_VERSION,
        "opset": None if card else OPSET,
        "versions": converted.versions,
        "licence": licence,
        "training_data": kind.training_data,
        "input": asdict(kind.input),
        "output": dict(kind.output),
        "identity": kind.identity,
        "calibration": None if calibration is None else asdict(calibration),
        "fit": words,
        "imported_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        write_conversion(folder, converted, record)
    except OSError as error:
        raise WeightsError(
            f"{chosen}: cannot write to {folder} ({error.strerror or error}); free space there or set STREAMGATE_MODELS"
        ) from error
    made = store.from_receipt(folder, store.IMPORTED)
    assert made is not None
    return made


def _of_card(path: Path) -> tuple[Entry, str]:
    """The kind that a card describes, and its title.

    Raises UsageError if the card is missing, and WeightsError if it is invalid.
    """
    from streamgate.convert.model_card import read_card

    if not path.is_file():
        raise UsageError(f"--card {path}: no such file")
    kind = read_card(path)
    return kind, kind.title


def _recognise(checkpoint: Path) -> tuple[Entry, str]:
    """The kind of a checkpoint, and its full title. Raises WeightsError if the kind is unknown."""
    content = load_checkpoint(checkpoint)
    by_name = {kind.converter: kind for kind in KINDS}
    if isinstance(content.get("D"), Mapping):
        from streamgate.convert.ifqa import is_ifqa
        from streamgate.convert.ifqaplus import is_ifqaplus

        state = discriminator_of(content, checkpoint)
        for is_kind, name in ((is_ifqaplus, "ifqaplus-official"), (is_ifqa, "ifqa-official")):
            if is_kind(state):
                return by_name[name], by_name[name].title
        raise _unknown(checkpoint, state)
    state = {str(key).removeprefix("module."): value for key, value in content.items()}
    if {"body.layer4.2.bn3.running_var", "ClassHead.0.conv1x1.weight", "fpn.output1.0.weight"} <= state.keys():
        return by_name["retinaface-resnet50"], by_name["retinaface-resnet50"].title
    from streamgate.convert.insightface_mobilefacenet import is_mobilefacenet
    from streamgate.convert.iresnet import DEPTHS, blocks_of

    if is_mobilefacenet(state):
        return by_name["insightface-mobilefacenet"], by_name["insightface-mobilefacenet"].title
    blocks = blocks_of(state)
    if blocks is not None and blocks in DEPTHS:
        return by_name["iresnet"], f"InsightFace iresnet{DEPTHS[blocks]}"
    raise _unknown(checkpoint, state, "" if blocks is None else f"an iresnet of {'+'.join(map(str, blocks))} blocks, ")


def _unknown(checkpoint: Path, state: Mapping[str, Any], guess: str = "") -> WeightsError:
    """The error for an unknown checkpoint: it describes the tensors found and lists what can be imported."""
    tensors = {name: value for name, value in state.items() if hasattr(value, "shape")}
    if tensors:
        ends = [next(iter(tensors)), next(reversed(tensors))]
        span = " to ".join(
            f"{one_line(str(name), 60)} {'x'.join(map(str, tensors[name].shape)) or '1'}"
            for name in dict.fromkeys(ends)
        )
        count = sum(value.numel() for value in tensors.values())
        found = f"{guess}{len(tensors)} tensors with {count:,} values, {span}"
    else:
        found = f"no tensors; keys: {', '.join(one_line(str(name), 40) for name in list(state)[:5]) or 'none'}"
    return WeightsError(
        f"{checkpoint.name}: not a supported network ({found}); supported: retinaface-pytorch ResNet-50, "
        "InsightFace iresnet 18/34/50/100/200 and MobileFaceNet, IFQA_Metric.pth and IFQA++_Metric.pth"
    )


@contextmanager
def _unpacked(file: Path) -> Iterator[Path]:
    """Yield the checkpoint: unpacked if `file` is a plain zip, or else `file`. Raises WeightsError for a bad zip."""
    with tempfile.TemporaryDirectory(prefix="streamgate-import-") as folder:
        try:
            path = _unpack(file, Path(folder)) if zipfile.is_zipfile(file) else file
        except (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError,
                ValueError, LookupError) as error:  # fmt: skip
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise WeightsError(f"{file.name}: the zip cannot be unpacked ({reason}); download it again") from None
        yield path


def _unpack(file: Path, folder: Path) -> Path:
    with zipfile.ZipFile(file) as archive:
        members = [one for one in archive.infolist() if not one.is_dir()]
        if sum(one.file_size for one in members) > MAX_BYTES:
            raise WeightsError(f"{file.name}: unpacks to more than {MAX_BYTES >> 30} GiB; no known checkpoint does")
        # PyTorch's checkpoints are zips too; they are not unpacked.
        if any(one.filename.endswith(("/data.pkl", "/constants.pkl")) for one in members):
            return file
        inside = [one for one in members if one.filename.endswith((".pth", ".pt"))]
        if len(inside) != 1:
            raise WeightsError(f"{file.name}: the zip has {len(inside)} checkpoints; pass the checkpoint itself")
        # The name in the archive is not used unchanged, because it may point outside the folder.
        target = folder / f"{store.safe_name(Path(inside[0].filename).stem) or 'checkpoint'}.pth"
        with archive.open(inside[0]) as packed, target.open("wb") as plain:
            _copy_bounded(packed, plain, inside[0].file_size, file.name)
        return target


def _copy_bounded(packed: Any, plain: Any, size: int, name: str) -> None:
    left = size
    while chunk := packed.read(1 << 20):
        left -= len(chunk)
        if left < 0:
            raise WeightsError(f"{name}: the zip's content is larger than the zip declares; download it again")
        plain.write(chunk)


def _calibrated(
    kind: Entry, name: str, converted: Converted, checkpoint: Path, folder: Path, device: Device | None
) -> tuple[Calibration, str, Converted]:
    """Fit a calibration on the faces of `folder`; a recognizer is converted again with the fitted drop rate."""
    from streamgate.convert import calibrate
    from streamgate.networks.detector import Detector
    from streamgate.networks.ifqa import OUTPUTS
    from streamgate.networks.recognizer import Recognizer
    from streamgate.networks.sessions import Session

    threads = usable_cores()
    identity = f"{name}/{folder.name}/{sha256_of(checkpoint)[:8]}"
    detector = Detector(Session(store.resolve("standard")["detector"], device or "cpu", threads))
    with tempfile.TemporaryDirectory(prefix="streamgate-import-") as temporary:
        path = Path(temporary) / store.ONNX_NAME
        path.write_bytes(converted.onnx)
        weights = store.Weights(name, (kind.roles[0],), "imported", path, sha256_of(path), "", "", kind.input, {}, None)
        session = Session(weights, device or "cpu", threads)
        if kind.roles[0] == "ifqa":
            session.need_outputs(*OUTPUTS)
            faces = list(calibrate.aligned_faces(folder, detector, calibrate.IFQA_LIMIT, ffhq=True))
            mapping, found = calibrate.calibrate_ifqa(session, faces, identity)
            return mapping, _words(found, len(faces)), converted
        faces = list(calibrate.aligned_faces(folder, detector))
        fitted, found = calibrate.fit_serfiq(Recognizer(session), faces, PLAIN_DROP_RATE, identity)
    again = convert(kind.converter, [checkpoint], {**kind.options, "drop_rate": fitted.drop_rate})
    return fitted, _words(found, len(faces)), replace(again, versions=converted.versions)


def _words(found: Any, count: int) -> str:
    return f"{count} faces: clean median {found.clean_median:.4f} -> 90, {found.worst} {found.worst_median:.4f} -> 10"


def _calibration_words(calibration: Calibration) -> str:
    if isinstance(calibration, SerfiqCalibration):
        return f"p {calibration.drop_rate:g}, alpha {calibration.alpha:.4g}, r {calibration.r:.6g}"
    return f"x0 {calibration.x0:.6g}, w {calibration.w:.4g}"
