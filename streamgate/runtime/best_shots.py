"""From a ranked candidate to the best shot that users see."""

from __future__ import annotations

from streamgate.config import Config
from streamgate.frames import BestShot, Crop, TrackInfo
from streamgate.networks.alignment import arcface_enlargement
from streamgate.scoring.faces import enlargement
from streamgate.selection.keeper import Ranked
from streamgate.sinks.base import SourceInfo


def best_shot(
    ranked: Ranked, track: TrackInfo, source: SourceInfo, config: Config, calibration_id: str, epoch: str = "0"
) -> BestShot:
    """The shot of a candidate whose picture has been cut; with its embedding only where `identity.store` allows it."""
    candidate = ranked.candidate
    assert candidate.crop is not None
    crops = {}
    if candidate.arcface is not None:
        crops["arcface"] = Crop(candidate.arcface, arcface_enlargement(candidate.face.landmarks))
    return BestShot(
        image=candidate.crop,
        source=source.location,
        source_id=source.source_id,
        track=track,
        rank=ranked.rank,
        pts_seconds=candidate.pts_seconds,
        face=candidate.face,
        pose=candidate.evidence.pose,
        measures=candidate.measures,
        quality=candidate.quality,
        quality_smoothed=ranked.quality_smoothed,
        quality_context=ranked.quality_context,
        calibration_id=calibration_id,
        gate=candidate.gate,
        frame_index=candidate.frame_index,
        pts_estimated=candidate.pts_estimated,
        captured_at=candidate.captured_at,
        epoch=epoch,
        name=candidate.name,
        upscaled=enlargement(candidate.face, config.output),
        embedding=candidate.evidence.embedding if config.identity.store != "none" else None,
        ifqa_map=candidate.evidence.ifqa_map,
        crops=crops,
        phash=candidate.phash,
        pose_bin=ranked.pose_bin,
    )
