"""Converts a ranked candidate to a `BestShot`, which is what users get."""

from __future__ import annotations

from dataclasses import replace

from streamgate.config import Config
from streamgate.networks.alignment import arcface_enlargement
from streamgate.scoring.faces import enlargement
from streamgate.selection.keeper import Ranked
from streamgate.sinks.base import SourceInfo
from streamgate.tracks import BestShot, Crop, TrackInfo


def best_shot(
    ranked: Ranked, track: TrackInfo, source: SourceInfo, config: Config, calibration_id: str, epoch: str = "0"
) -> BestShot:
    """The best shot of a ranked candidate whose picture has already been cut.

    The best shot contains the embedding only if `identity.store` allows it.
    """
    candidate = ranked.candidate
    assert candidate.image is not None
    crops = {}
    if candidate.arcface is not None:
        crops["arcface"] = Crop(candidate.arcface, arcface_enlargement(candidate.face.landmarks))
    evidence = candidate.evidence
    if config.identity.store == "none":
        evidence = replace(evidence, embedding=None)
    return BestShot(
        image=candidate.image,
        source=source.location,
        source_id=source.source_id,
        track=track,
        rank=ranked.rank,
        pts_seconds=candidate.pts_seconds,
        face=candidate.face,
        evidence=evidence,
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
        crops=crops,
        phash=candidate.phash,
        pose_bin=ranked.pose_bin,
    )
