"""The networks, settings and stores with which a run or a stream scores its faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from streamgate.config import Config
from streamgate.frames import Array
from streamgate.networks import Networks
from streamgate.networks.cohort import Cohort
from streamgate.networks.pose import takes_aligned
from streamgate.scoring.calibration import Calibration, sampled_head
from streamgate.scoring.evaluator import Evaluator
from streamgate.scoring.lockstep import Infer
from streamgate.scoring.pictures import PictureStore


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """Shared by all tracks and threads of a run, or of one stream of a service.

    Attributes:
        evaluator: computes measures, gate and quality.
        infer: runs networks.
        aligned_pose: whether the pose network takes the recognizer's crop.
        shared_pose: whether the recognizer's graph also returns the pose.
        sampled_head: computes SER-FIQ's d from features (K,) by sampling; None if the graph's closed form is used.
        identity_threshold: the minimum similarity of two faces of one person; None if neither the configuration nor
            the recognizer's card has a threshold.
        pictures: holds the kept pictures of all tracks.
        cohort: normalises similarities of the recognizer's embeddings; None if plain cosines are used.
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
        """Build a context for a configuration.

        Raises WeightsError if the networks lack something that the configuration requires.
        """
        return cls(
            config,
            Evaluator(config, Calibration.of_networks(networks, config)),
            infer,
            takes_aligned(networks.pose),
            networks.shared_pose,
            sampled_head(networks, config),
            identity_threshold=config.identity.threshold or networks.identity_threshold,
            cohort=networks.cohort,
        )
