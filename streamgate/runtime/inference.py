"""The networks of a run behind one call, and what their cards say about calibration."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from streamgate.config import Config
from streamgate.errors import WeightsError
from streamgate.frames import Status
from streamgate.networks import Networks
from streamgate.networks.batcher import Batcher, Observer
from streamgate.quality.calibration import Calibration, SigmoidMapping
from streamgate.selection.steps import Ask, Infer
from streamgate.weights import LogisticCalibration, SerfiqCalibration


class Inference:
    """Runs the asks of all tracks and sources through one batcher. Thread-safe; a context manager."""

    def __init__(self, networks: Networks, threshold: float, observe: Observer | None = None) -> None:
        self.networks = networks
        self._batcher = Batcher.over(networks, threshold, observe=observe)

    def __call__(self, asks: Sequence[Ask]) -> list[Any]:
        """Results in the order of `asks`; all are queued before the first is waited for."""
        futures = [self._batcher.submit(ask.role, ask.crop) for ask in asks]
        return [future.result() for future in futures]

    def party(self, name: str) -> Infer:
        """The same for one of several parties that take turns at the networks (the streams of a service)."""

        def infer(asks: Sequence[Ask]) -> list[Any]:
            futures = [self._batcher.submit(ask.role, ask.crop, name) for ask in asks]
            return [future.result() for future in futures]

        return infer

    def close(self) -> None:
        self._batcher.close()
        self.networks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def calibration_of(networks: Networks, config: Config) -> Calibration:
    """Mappings from the preset and from the cards of the weights at hand.

    Measures whose role has no weights, or whose weights have no calibration, are absent with that status.
    """
    mappings = {
        name: SigmoidMapping(section.x0, section.w)
        for name in ("size", "edge", "sharpness", "exposure")
        for section in [getattr(config.measures, name)]
    }
    absent: dict[str, Status] = {}
    learned: dict[str, str] = {}

    for name, output in (("occlusion", "visible"), ("eyes", "eyes")):
        further = networks.measure_calibration(name)
        if output not in networks.recognizer.extras:
            absent[name] = Status.NO_WEIGHTS
        elif further is None:
            absent[name] = Status.UNCALIBRATED
        else:
            mappings[name] = SigmoidMapping(further.x0, further.w)
            learned[name] = further.calibration_id

    card = networks.calibration("recognizer")
    if isinstance(card, SerfiqCalibration):
        mappings["serfiq"] = SigmoidMapping(card.r, 1.0 / card.alpha)
        learned["serfiq"] = card.calibration_id
    else:
        absent["serfiq"] = Status.UNCALIBRATED

    card = networks.calibration("ifqa")
    if networks.ifqa is None:
        absent["ifqa"] = Status.NO_WEIGHTS
    elif isinstance(card, LogisticCalibration):
        mappings["ifqa"] = SigmoidMapping(card.x0, card.w)
        learned["ifqa"] = card.calibration_id
    else:
        absent["ifqa"] = Status.UNCALIBRATED
    return Calibration(mappings, absent, learned)


def sampled_head(networks: Networks, config: Config) -> Any:
    """A function features (K,) -> d by sampling, when the configuration asks for that form; else None.

    Raises WeightsError when the weights do not bring their last layer.
    """
    if config.serfiq.method != "sampled":
        return None
    from streamgate.quality.serfiq import sample_embeddings, sampled_spread

    card = networks.calibration("recognizer")
    if not isinstance(card, SerfiqCalibration):
        raise WeightsError("serfiq.method=sampled needs a recognizer with a drop rate; this one has none")
    layer = networks.recognizer.last_affine()
    samples, seed = config.serfiq.samples, config.serfiq.seed

    def head(features: Any) -> float:
        drawn = sample_embeddings(layer.weight, features, layer.bias, card.drop_rate, samples, seed)
        return sampled_spread(drawn)

    return head
