"""What a run or a stream scores its faces with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from streamgate.config import Config
from streamgate.frames import Array
from streamgate.networks import Networks
from streamgate.networks.cohort import Cohort
from streamgate.scoring.calibration import Calibration, sampled_head
from streamgate.scoring.evaluator import Evaluator
from streamgate.scoring.lockstep import Infer
from streamgate.scoring.pictures import PictureStore


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """Shared by all tracks and threads of a run, or of one stream of a service.

    Attributes:
        judge: draws the conclusions.
        infer: runs networks.
        aligned_pose: the pose role takes the recognizer's crop.
        shared_pose: a run of the recognizer gives the pose.
        sampled_head: features (K,) -> SER-FIQ's d by sampling; None where the graph's closed form counts.
        identity_threshold: the least cosine of two faces of one person; None where the recognizer's is not known.
        pictures: holds the kept pictures of all tracks.
        cohort: what similarities of the recognizer's embeddings are normalised by; None where they are plain cosines.
    """

    config: Config
    evaluator: Evaluator
    infer: Infer
    aligned_pose: bool = False
    shared_pose: bool = False
    sampled_head: Callable[[Array], float] | None = None
    identity_threshold: float | None = None
    pictures: PictureStore = field(default_factory=PictureStore)
    cohort: Cohort | None = None

    @classmethod
    def over(cls, networks: Networks, config: Config, infer: Infer) -> ScoringContext:
        """For a configuration and the networks there are. Raises WeightsError where it asks for what they lack."""
        return cls(
            config,
            Evaluator(config, Calibration.of_networks(networks, config)),
            infer,
            networks.pose.aligned,
            networks.shared_pose,
            sampled_head(networks, config),
            identity_threshold=config.identity.threshold or networks.identity_threshold,
            cohort=networks.cohort,
        )
