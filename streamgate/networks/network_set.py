"""All networks of a run, opened together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from streamgate.defaults import DEFAULT_MODELS
from streamgate.measures import MeasureSpec
from streamgate.networks.cohort import Cohort
from streamgate.networks.cropmeasures import OUTPUT as CROP_OUTPUT
from streamgate.networks.cropmeasures import CropMeasure, open_measure
from streamgate.networks.detector import NMS_OVERLAP, Detector
from streamgate.networks.device import choose_device
from streamgate.networks.expression import ExpressionNetwork
from streamgate.networks.ifqa import IfqaNetwork
from streamgate.networks.pose import PoseNetwork
from streamgate.networks.recognizer import Recognizer
from streamgate.networks.runtime import Session
from streamgate.weights.catalog import Calibration
from streamgate.weights.store import Weights, resolve

_OWN_MEASURE = {"recognizer": "serfiq", "ifqa": "ifqa"}
"""The measure that a role's own calibration is of; those of further outputs have names on the card."""


class Networks:
    """The adapters of a run: `detector`, `recognizer`, `pose`; `expression` and `ifqa` are None without weights.

    `device` is where they run. `crop_measures` are measures that look at a crop of their own, by name. `shared_pose`:
    recognizer and pose are one graph, so a run of the recognizer gives the pose as well. Adapters are thread-safe and
    may be shared by any number of sources. Use as a context manager.
    """

    def __init__(
        self,
        weights: Mapping[str, Weights],
        device: str,
        threads: int,
        nms_iou: float = NMS_OVERLAP,
        own: Sequence[MeasureSpec] = (),
    ):
        """Open sessions; prefer `Networks.open`, which finds the weights."""
        self.device = choose_device(device)
        # One session may fill several roles (DESIGN 2).
        sessions: dict[Path, Session] = {}
        for found in weights.values():
            if found.path not in sessions:
                sessions[found.path] = Session(found, self.device, threads)
        by_role = {role: sessions[found.path] for role, found in weights.items()}
        self.detector = Detector(by_role["detector"], nms_iou)
        self.recognizer = Recognizer(by_role["recognizer"])
        self.pose = PoseNetwork(by_role["pose"])
        self.shared_pose = by_role["pose"] is by_role["recognizer"]
        self.expression = ExpressionNetwork(by_role["expression"]) if "expression" in by_role else None
        self.ifqa = IfqaNetwork(by_role["ifqa"]) if "ifqa" in by_role else None
        self.on_cuda = any(session.on_cuda for session in sessions.values())
        self._outputs = {role: session.outputs for role, session in by_role.items()}
        self.crop_measures: dict[str, CropMeasure] = {
            spec.name: open_measure(spec, self.device, threads) for spec in own
        }
        self._outputs |= dict.fromkeys(self.crop_measures, (CROP_OUTPUT,))
        self._weights = dict(weights)
        file = weights["recognizer"].cohort
        self._cohort = None if file is None else Cohort.read(file)

    @classmethod
    def open(
        cls,
        models: str = DEFAULT_MODELS,
        device: str = "auto",
        threads: int = 1,
        nms_iou: float = NMS_OVERLAP,
        own: Sequence[MeasureSpec] = (),
    ) -> Networks:
        """Find weights (see `streamgate.weights.resolve`) and open them.

        `own` are measures with a card that are in use. `threads` is the number inside one run on the CPU; 1 costs the
        fewest core-ms, use 2 for latency.

        Raises:
            WeightsError: a required role has no weights, or a file is not what its receipt says (exit 4).
            DeviceError: CUDA was asked for and is not there (exit 6).
        """
        return cls(resolve(models), device, threads, nms_iou, own)

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
            }
            for role, found in self._weights.items()
        ] + [measure.record for measure in self.crop_measures.values()]

    def outputs(self, role: str) -> tuple[str, ...]:
        """Names of the outputs that the role's graph has; none without weights."""
        return self._outputs.get(role, ())

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
