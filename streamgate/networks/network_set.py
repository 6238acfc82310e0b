"""All networks of a run, opened together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import UsageError
from streamgate.measures import MeasureSpec
from streamgate.networks.cohort import Cohort
from streamgate.networks.cropmeasures import OUTPUT as CROP_OUTPUT
from streamgate.networks.cropmeasures import CropMeasure, open_measure
from streamgate.networks.detector import NMS_OVERLAP, Detector
from streamgate.networks.device import Device, choose_device
from streamgate.networks.expression import ExpressionNetwork
from streamgate.networks.ifqa import IfqaNetwork
from streamgate.networks.pose import PoseNetwork
from streamgate.networks.recognizer import Recognizer
from streamgate.networks.sessions import BATCH_SIZES, Session
from streamgate.weights.catalog import Calibration
from streamgate.weights.store import Weights, resolve

_OWN_MEASURE = {"recognizer": "serfiq", "ifqa": "ifqa"}
"""The measure that a role's own calibration is of; those of further outputs have names on the card."""


class Networks:
    """The adapters of a run: `detector`, `recognizer`, `pose`; `expression` and `ifqa` are None without weights.

    `device` is where they run; `bound`: it is a GPU, or is to be used like one. `crop_measures` are measures that look
    at a crop of their own, by name. `shared_pose`: recognizer and pose are one graph, so a run of the recognizer gives
    the pose as well. Adapters are thread-safe and may be shared by any number of sources. Use as a context manager.
    """

    def __init__(
        self,
        weights: Mapping[str, Weights],
        device: str | Device,
        threads: int,
        nms_iou: float = NMS_OVERLAP,
        own: Sequence[MeasureSpec] = (),
        precision: Mapping[str, str] | None = None,
    ):
        """Open sessions; prefer `Networks.open`, which finds the weights."""
        self.device = device if isinstance(device, Device) else choose_device(device)
        self.bound = self.device.bound
        self._precision = _precisions(weights, precision or {}, self.device)
        # One session may fill several roles (DESIGN 2).
        sessions: dict[Path, Session] = {}
        for role, found in weights.items():
            if found.path not in sessions:
                sessions[found.path] = Session(found, self.device, threads, self._precision[role])
        self._sessions = by_role = {role: sessions[found.path] for role, found in weights.items()}
        self.detector = Detector(by_role["detector"], nms_iou)
        self.recognizer = Recognizer(by_role["recognizer"])
        self.pose = PoseNetwork(by_role["pose"])
        self.shared_pose = by_role["pose"] is by_role["recognizer"]
        self.expression = ExpressionNetwork(by_role["expression"]) if "expression" in by_role else None
        self.ifqa = IfqaNetwork(by_role["ifqa"]) if "ifqa" in by_role else None
        # After the others: while those capture their graphs nothing else may use a GPU.
        self.crop_measures: dict[str, CropMeasure] = {
            spec.name: open_measure(spec, self.device, threads) for spec in own
        }
        self._weights = dict(weights)
        file = weights["recognizer"].cohort
        self._cohort = None if file is None else Cohort.read(file)

    @classmethod
    def open(
        cls,
        models: str = DEFAULT_MODELS,
        device: str | Device = "auto",
        threads: int = 1,
        nms_iou: float = NMS_OVERLAP,
        own: Sequence[MeasureSpec] = (),
        precision: Mapping[str, str] | None = None,
    ) -> Networks:
        """Find weights (see `streamgate.weights.resolve`) and open them.

        `own` are measures with a card that are in use. `threads` is the number inside one run on the CPU; 1 costs the
        fewest core-ms, use 2 for latency. `precision` is "fp32" or "fp16" by role, fp32 where none is given; fp16 is
        for GPUs.

        Raises:
            UsageError: fp16 on the CPU, or for one of two roles that one file fills.
            WeightsError: a required role has no weights, or a file is not what its receipt says (exit 4).
            DeviceError: CUDA was asked for and is not there, or fails (exit 6).
        """
        return cls(resolve(models), device, threads, nms_iou, own, precision)

    @property
    def weights(self) -> list[dict[str, str]]:
        """One record per filled role, for `summary.json`."""
        return [
            {
                "role": role,
                "name": found.name,
                "tier": found.tier,
                "file": f"{found.path.parent.name}/{found.path.name}",
                "sha256": found.sha256,
                "licence": found.licence,
                **({"cohort": found.cohort.sha256} if role == "recognizer" and found.cohort is not None else {}),
                **({"precision": "fp16"} if self._precision[role] == "fp16" else {}),
            }
            for role, found in self._weights.items()
        ] + [measure.record for measure in self.crop_measures.values()]

    def outputs(self, role: str) -> tuple[str, ...]:
        """Names of the outputs that the graph of a role or of a crop measure has; none without weights."""
        if role in self.crop_measures:
            return (CROP_OUTPUT,)
        session = self._sessions.get(role)
        return () if session is None else session.outputs

    def batch(self, role: str) -> int:
        """Pictures that one run of a role, or of a crop measure, takes: 1 on the CPU, more on a GPU."""
        if role in self.crop_measures:
            return BATCH_SIZES[-1] if self.bound else 1
        return self._sessions[role].batch

    @property
    def notes(self) -> list[str]:
        """What a user should know about how they run, one line each; may grow while they do."""
        return list(dict.fromkeys(note for session in self._sessions.values() for note in session.notes))

    def calibration(self, role: str, measure: str = "") -> Calibration | None:
        """How a raw figure of the role becomes a scalar: that of `measure`, the role's own one where none is named.

        None: no weights, or `uncalibrated`.
        """
        found = self._weights.get(role)
        if found is None:
            return None
        return found.calibration if measure in ("", _OWN_MEASURE.get(role)) else found.measures.get(measure)

    @property
    def identity_threshold(self) -> float | None:
        """Similarity from which two faces count as one person; None where the recognizer's is unknown."""
        found = self._weights.get("recognizer")
        return found.identity_threshold if found else None

    @property
    def cohort(self) -> Cohort | None:
        """What similarities of embeddings are normalised by; None where they are plain cosines."""
        return self._cohort

    def close(self) -> None:
        """Let go of the sessions; adapters held elsewhere keep working until they are dropped."""
        self._weights = {}

    def __enter__(self) -> Networks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _precisions(weights: Mapping[str, Weights], wanted: Mapping[str, str], device: Device) -> dict[str, str]:
    """The precision of each role. Raises UsageError for what cannot be had."""
    found = {role: wanted.get(role, "fp32") for role in weights}
    for role, precision in found.items():
        if precision == "fp16" and not device.bound:
            raise UsageError(
                f"precision.{role} = fp16 is for GPUs, and the networks run on {device}; use --device cuda, or fp32"
            )
        for other, its in found.items():
            if its != precision and weights[other].path == weights[role].path:
                raise UsageError(
                    f"precision.{role} and precision.{other}: one file ({weights[role].name}) fills both roles, so set "
                    "both to the same"
                )
    return found
