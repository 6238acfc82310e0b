"""All networks of a run, opened together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import UsageError
from streamgate.measures import MeasureSpec
from streamgate.networks.cohort import Cohort
from streamgate.networks.crop_measures import OUTPUT as CROP_OUTPUT
from streamgate.networks.crop_measures import CropMeasure, open_measure
from streamgate.networks.detector import NMS_OVERLAP, Detector
from streamgate.networks.device import Device, choose_device
from streamgate.networks.expression import ExpressionNetwork
from streamgate.networks.ifqa import OUTPUTS as IFQA_OUTPUTS
from streamgate.networks.recognizer import Recognizer
from streamgate.networks.sessions import BATCH_SIZES, Session
from streamgate.weights.catalog import Calibration
from streamgate.weights.store import Weights, resolve

_OWN_MEASURE = {"recognizer": "serfiq", "ifqa": "ifqa"}
"""The measure to which a role's main calibration belongs; the card names the measures of further outputs."""


class Networks:
    """The networks of a run; use it as a context manager.

    The networks are thread-safe and may be shared by any number of sources.

    Attributes:
        detector, recognizer: the networks of these roles.
        pose: the session of this role, for `pose.head_poses`.
        expression: the network of this role; None if there are no weights.
        ifqa: the session of this role, for `ifqa.ifqa_scores`; None if there are no weights.
        crop_measures: the measures that take their own crop, by name.
        device: where the networks run.
        bound: whether the networks use the code path for GPUs (see `Device.bound`).
        shared_pose: whether recognizer and pose are the same graph, so that a run of the recognizer includes the pose.
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
        # One session may fill several roles (docs/design.md 2).
        sessions: dict[Path, Session] = {}
        for role, found in weights.items():
            if found.path not in sessions:
                sessions[found.path] = Session(found, self.device, threads, self._precision[role])
        self._sessions = by_role = {role: sessions[found.path] for role, found in weights.items()}
        self.detector = Detector(by_role["detector"], nms_iou)
        self.recognizer = Recognizer(by_role["recognizer"])
        self.pose = by_role["pose"]
        self.pose.need_outputs("pose")
        self.shared_pose = by_role["pose"] is by_role["recognizer"]
        self.expression = ExpressionNetwork(by_role["expression"]) if "expression" in by_role else None
        self.ifqa = by_role.get("ifqa")
        if self.ifqa is not None:
            self.ifqa.need_outputs(*IFQA_OUTPUTS)
        # These measures are opened last, because nothing may use the GPU while other networks capture CUDA graphs.
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

        `own` are the measures in use that have a card. `threads` is the number of threads of one run on the CPU: 1
        needs the least CPU time, 2 gives lower latency. `precision` is "fp32" (the default) or "fp16" for each role;
        fp16 requires a GPU.

        Raises:
            UsageError: fp16 on the CPU, or different precisions for two roles that share one file.
            WeightsError: a required role has no weights, or a file does not match its receipt (exit 4).
            DeviceError: CUDA was requested and is not available, or fails (exit 6).
        """
        return cls(resolve(models), device, threads, nms_iou, own, precision)

    @property
    def weights(self) -> list[dict[str, str]]:
        """One record for each role that has weights, for `summary.json`."""
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
        """Output names of the graph of a role or of a crop measure; empty if there are no weights."""
        if role in self.crop_measures:
            return (CROP_OUTPUT,)
        session = self._sessions.get(role)
        return () if session is None else session.outputs

    def batch(self, role: str) -> int:
        """Pictures per run of a role or of a crop measure: 1 on the CPU, more on a GPU."""
        if role in self.crop_measures:
            return BATCH_SIZES[-1] if self.bound else 1
        return self._sessions[role].batch

    @property
    def notes(self) -> list[str]:
        """Remarks for the user about how the networks run, one line each; later runs may add more."""
        running: list[Session | CropMeasure] = [*self._sessions.values(), *self.crop_measures.values()]
        return list(dict.fromkeys(note for one in running for note in one.notes))

    def calibration(self, role: str, measure: str = "") -> Calibration | None:
        """The calibration from raw value to scalar for `measure`; by default for the role's main measure.

        None if there are no weights, or the measure is `uncalibrated`.
        """
        found = self._weights.get(role)
        if found is None:
            return None
        return found.calibration if measure in ("", _OWN_MEASURE.get(role)) else found.measures.get(measure)

    @property
    def identity_threshold(self) -> float | None:
        """Minimum similarity of two faces of one person; None if the recognizer's card has none."""
        found = self._weights.get("recognizer")
        return found.identity_threshold if found else None

    @property
    def cohort(self) -> Cohort | None:
        """The cohort that normalises similarities of embeddings; None if similarities are plain cosines."""
        return self._cohort

    def close(self) -> None:
        """Release the weights; networks that are still referenced elsewhere continue to work."""
        self._weights = {}

    def __enter__(self) -> Networks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _precisions(weights: Mapping[str, Weights], wanted: Mapping[str, str], device: Device) -> dict[str, str]:
    """The precision of each role. Raises UsageError for unsupported combinations."""
    found = {role: wanted.get(role, "fp32") for role in weights}
    for role, precision in found.items():
        if precision == "fp16" and not device.bound:
            raise UsageError(
                f"precision.{role} = fp16 is for GPUs, but the networks run on {device}; use --device cuda, or fp32"
            )
        for other, its in found.items():
            if its != precision and weights[other].path == weights[role].path:
                raise UsageError(
                    f"precision.{role} and precision.{other} differ, but one file ({weights[role].name}) fills both "
                    "roles; set both to the same value"
                )
    return found
