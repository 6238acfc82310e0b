"""From a ranked candidate to the best shot that users see."""

from __future__ import annotations

from streamgate.frames import BestShot, Crop, TrackInfo
from streamgate.networks.alignment import arcface_enlargement
from streamgate.runtime.scoring import FaceScorer
from streamgate.selection.keeper import Ranked


def best_shot(
    ranked: Ranked,
    track: TrackInfo,
    scorer: FaceScorer,
    *,
    source: str,
    source_id: str,
    calibration_id: str,
    epoch: str = "0",
    keeps_identity: bool = False,
) -> BestShot:
    """The shot of a candidate whose picture has been cut; with its embedding only where `keeps_identity`."""
    candidate = ranked.candidate
    assert candidate.crop is not None
    crops = {}
    if candidate.arcface is not None:
        crops["arcface"] = Crop(candidate.arcface, arcface_enlargement(candidate.face.landmarks))
    return BestShot(
        image=candidate.crop,
        source=source,
        source_id=source_id,
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
        upscaled=scorer.upscaled(candidate),
        embedding=candidate.evidence.embedding if keeps_identity else None,
        ifqa_map=candidate.evidence.ifqa_map,
        crops=crops,
        phash=candidate.phash,
        pose_bin=ranked.pose_bin,
    )
