"""The JSON records of docs/design.md 6: events, and the lines of faces.jsonl, candidates.jsonl.gz and tracks.jsonl.

The functions return plain dicts, whose keys have the same order as in the files; `dumps` converts a dict to text.
Records never contain NaN or infinity: an optional value that is not finite becomes null, and a required one (box,
landmarks, time, detection score) raises ValueError. Values are rounded, so that identical runs give identical bytes:

    times: 6 decimals (seconds)
    boxes and landmarks: 2 decimals (source pixels)
    detection score: 4 decimals (0..1)
    pose: 2 decimals (degrees)
    raw: 8 significant digits
    scalar and quality: 4 decimals (0..100)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from streamgate.faces import Evidence, Face, GateResult, Measure, Pose, ScoredFace, Status
from streamgate.frames import SPOILED
from streamgate.measures import built_in_measures
from streamgate.measures.registry import position_of
from streamgate.redaction import redact_url
from streamgate.store.jsonlines import SCHEMA, Record, dumps
from streamgate.store.layout import picture_name
from streamgate.store.run import counts
from streamgate.tracks import BestShot, Candidate, Crop, TrackEnd, TrackInfo


def face_record(shot: BestShot, image: str | None) -> Record:
    """A line of faces.jsonl, and the `json` of a `final` event.

    `image` is the `/`-separated path of the crop relative to OUT; None for an event, whose crop is not in a file.
    `person_id` and `person_rank` (from 1, among the listed faces of the person) are known only in OUT/faces.jsonl,
    which combines all sources; elsewhere, they are null. The keys, in this order, are:

        schema, id, source, source_id, track_id, person_id, rank, frame_index, pts_seconds, pts_estimated,
        captured_at, box [4], landmarks [5][2], detection_score, pose {yaw, pitch, roll} | null,
        measures {NAME: {raw, scalar, status}}, quality, quality_smoothed, quality_context, calibration_id,
        gate {passed, reasons}, image, track {first_pts, last_pts, frames_seen, frames_scored}, upscaled, outside, name,
        person_rank, crops {NAME: {image, size [2], upscaled, quality, box [4] | null}}, pose_bin, phash,
        still

    `upscaled` is the factor by which the face was enlarged if it is smaller in the source than in the crop, else null.
    `outside` is the share of the crop that is outside the frame (black bars count as outside); null if unknown.
    `pose_bin` names the yaw and pitch, in degrees, of the bin for which the face was kept with `keep.poses` = "all".
    `phash` is a perceptual hash of 63 bits, as 16 hex digits. The hashes of faces that look alike differ in few bits.
    `crops` contains all pictures of this face that were written, first `ffhq` (the same file as `image`); empty if none
    was written. `size` is [width, height], `quality` is that of the encoder (null: lossless), and `box` is the region
    of the upright source frame that a crop without alignment shows.
    `still` is true if the face did not move for at least 3 s while another face did.
    `name` is the file name of the picture if the source is a folder of images, else null.
    `stream` is present only for cameras with two streams. It is "main" or "sub", the stream from which the face was
    cropped. Box and landmarks are in pixels of that stream; times are those of the substream.
    """
    return {
        "schema": SCHEMA,
        "id": shot.id,
        "source": redact_url(shot.source),
        "source_id": shot.source_id,
        "track_id": shot.track.track_id,
        "person_id": None,
        "rank": shot.rank,
        "frame_index": shot.frame_index,
        "pts_seconds": _required(shot.pts_seconds, 6, "pts_seconds"),
        "pts_estimated": shot.pts_estimated,
        "captured_at": utc_text(shot.captured_at),
        **_face(shot.face),
        "pose": _pose(shot.pose),
        "measures": _measures(shot.measures),
        "quality": _number(shot.quality, 4),
        "quality_smoothed": _number(shot.quality_smoothed, 4),
        "quality_context": _number(shot.quality_context, 4),
        "calibration_id": shot.calibration_id,
        "gate": _gate(shot.gate),
        "image": image,
        "track": _track(shot.track),
        "upscaled": _upscaled(shot.upscaled),
        "outside": _outside(shot.measures),
        "name": shot.name,
        "person_rank": None,
        "crops": {} if image is None else _crops(shot, image),
        "pose_bin": shot.pose_bin,
        "phash": None if shot.phash is None else f"{shot.phash:016x}",
        "still": shot.track.still,
        **({} if shot.stream is None else {"stream": shot.stream}),
    }


def image_path(shot: BestShot, crop: str = "ffhq") -> str:
    """Path of a picture of a shot relative to OUT, for example `<source_id>/track_0001/1.png`."""
    suffix = (shot.encoding if crop == "ffhq" else shot.crops[crop].encoding).suffix
    return f"{shot.source_id}/{picture_name(shot.track.track_id, shot.rank, suffix, crop)}"


def _crops(shot: BestShot, image: str) -> Record:
    found = {"ffhq": _crop(Crop(shot.image, shot.upscaled, None, shot.encoding), image)}
    return found | {name: _crop(crop, image_path(shot, name)) for name, crop in shot.crops.items()}


def _crop(crop: Crop, image: str) -> Record:
    return {
        "image": image,
        "size": [crop.image.shape[1], crop.image.shape[0]],
        "upscaled": _upscaled(crop.upscaled),
        "quality": crop.encoding.quality,
        "box": None if crop.box is None else list(crop.box),
    }


def _outside(measures: Mapping[str, Measure]) -> float | None:
    edge = measures.get("edge")
    return None if edge is None or edge.raw is None else round(1.0 - edge.raw, 4)


def _upscaled(times: float) -> float | None:
    return round(times, 2) if times > 1.005 else None


def candidate_record(candidate: Candidate, source_id: str) -> Record:
    """A line of candidates.jsonl.gz: one evaluated face, with everything needed to evaluate it again.

    `evidence` contains all values to which limits and calibration are applied (null: not computed) and, under `failed`,
    the measures whose computation failed. Embeddings are biometric data and are never written here.
    """
    return {
        "schema": SCHEMA,
        "source_id": source_id,
        "track_id": candidate.track_id,
        "frame_index": candidate.frame_index,
        "pts_seconds": _required(candidate.pts_seconds, 6, "pts_seconds"),
        "pts_estimated": candidate.pts_estimated,
        "captured_at": utc_text(candidate.captured_at),
        "name": candidate.name,
        **_face(candidate.face),
        "interpolated": candidate.interpolated,
        "refined": candidate.refined,
        "pose": _pose(candidate.evidence.pose),
        "measures": _measures(candidate.measures),
        "quality": _number(candidate.quality, 4),
        "gate": _gate(candidate.gate),
        "evidence": _evidence(candidate.evidence),
    }


def candidate_of(record: Mapping[str, Any], known: Collection[str]) -> Candidate:
    """The candidate that a valid line of candidates.jsonl.gz describes. Its values are rounded as in the file.

    `known` are the names of the measures that the run can have. Raises ValueError if a time is invalid or a measure is
    unknown.
    """
    pose, captured = record["pose"], record["captured_at"]
    gate = GateResult(record["gate"]["passed"], tuple(record["gate"]["reasons"]))
    evidence = record["evidence"]
    values = {name: float(value) for name, value in evidence.items() if name != "failed" and value is not None}
    if unknown := record["measures"].keys() - set(known):
        raise ValueError(f"unknown measures: {', '.join(sorted(unknown))}")
    return Candidate(
        track_id=record["track_id"],
        pts_seconds=float(record["pts_seconds"]),
        face=Face(
            np.array(record["box"], np.float32),
            np.array(record["landmarks"], np.float32),
            float(record["detection_score"]),
        ),
        frame_index=record["frame_index"],
        pts_estimated=record["pts_estimated"],
        captured_at=None if captured is None else datetime.fromisoformat(captured),
        name=record["name"],
        interpolated=record["interpolated"],
        refined=record["refined"],
        evidence=Evidence(
            values=values,
            pose=None if pose is None else Pose(float(pose["yaw"]), float(pose["pitch"]), float(pose["roll"])),
            failed=set(evidence["failed"]),
        ),
        measures={name: _measure_of(name, measure) for name, measure in record["measures"].items()},
        quality=record["quality"],
        gate=gate,
        spoiled=gate.reasons[0] if len(gate.reasons) == 1 and gate.reasons[0] in SPOILED else None,
    )


def track_record(ended: TrackEnd) -> Record:
    """A line of tracks.jsonl: the result of a track, with or without kept faces.

    The keys are schema, source_id, epoch, track_id, first_pts, last_pts, frames_seen, frames_scored, still (true if it
    did not move while another track did), kept (number of shots), rejected {reason: number of faces}, reasons (why the
    best near miss was rejected) and reference {measure: typical value for the person}.
    """
    return {
        "schema": SCHEMA,
        "source_id": ended.source_id,
        "epoch": ended.epoch,
        "track_id": ended.track.track_id,
        **_track(ended.track),
        "still": ended.track.still,
        "kept": len(ended.shots),
        "rejected": counts(ended.rejected),
        "reasons": list(ended.reasons),
        "reference": {name: _significant(value) for name, value in sorted(ended.reference.items())},
    }


def missed_record(track: Mapping[str, Any], source: str, calibration_id: str) -> Record:
    """The `json` of the `final` event (rank 0) of a track without kept faces; `track` is its `track_record`.

    It has the keys of `face_record` and the key `rejected`. Values that only a face can have are null.
    """
    source_id, track_id = track["source_id"], track["track_id"]
    return {
        "schema": SCHEMA,
        "id": f"{source_id}/{track['epoch']}/{track_id}/final/0/0",
        "source": redact_url(source),
        "source_id": source_id,
        "track_id": track_id,
        "person_id": None,
        "rank": 0,
        "frame_index": None,
        "pts_seconds": None,
        "pts_estimated": None,
        "captured_at": None,
        "box": None,
        "landmarks": None,
        "detection_score": None,
        "pose": None,
        "measures": None,
        "quality": None,
        "quality_smoothed": None,
        "quality_context": None,
        "calibration_id": calibration_id,
        "gate": {"passed": False, "reasons": list(track["reasons"])},
        "image": None,
        "track": {key: track[key] for key in ("first_pts", "last_pts", "frames_seen", "frames_scored")},
        "upscaled": None,
        "outside": None,
        "name": None,
        "person_rank": None,
        "crops": {},
        "pose_bin": None,
        "phash": None,
        "still": track["still"],
        "rejected": dict(track["rejected"]),
    }


def event(record: Mapping[str, Any], kind: str, jpeg: bytes | None) -> dict[str, str | bytes]:
    """The fields of a Redis stream entry: id, kind, json, and jpeg (binary; absent if there is no face)."""
    fields: dict[str, str | bytes] = {"id": record["id"], "kind": kind, "json": dumps(record)}
    if jpeg is not None:
        fields["jpeg"] = jpeg
    return fields


def score_record(image: str, faces: Iterable[ScoredFace], *, embedding: bool = False) -> Record:
    """A line that `streamgate score` prints.

    Its form is {image, faces: [{box, landmarks, detection_score, pose, measures, quality, gate}]}. With `embedding`,
    each face also has its `embedding`, not normalised (null if it was not computed).
    """
    return {"image": redact_url(image), "faces": [_scored(face, embedding) for face in faces]}


def _number(value: float | None, decimals: int) -> float | None:
    if value is None:
        return None
    value = float(value)
    # Adding zero turns -0.0 into 0.0, because equal values must be written as identical text.
    return round(value, decimals) + 0.0 if math.isfinite(value) else None


def _required(value: float, decimals: int, what: str) -> float:
    number = _number(value, decimals)
    if number is None:
        raise ValueError(f"{what} is not finite: {value}")
    return number


def _significant(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.8g}") + 0.0


def utc_text(moment: datetime | None) -> str | None:
    """A time in RFC 3339 format, in UTC with milliseconds. Raises ValueError if it has no time zone."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError("captured_at needs a time zone")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _face(face: Face) -> Record:
    return {
        "box": [_required(value, 2, "box") for value in face.box.tolist()],
        "landmarks": [
            [_required(value, 2, "landmarks") for value in point] for point in face.landmarks.tolist()
        ],
        "detection_score": _required(face.score, 4, "detection_score"),
    }


def _pose(pose: Pose | None) -> Record | None:
    if pose is None:
        return None
    return {"yaw": _number(pose.yaw, 2), "pitch": _number(pose.pitch, 2), "roll": _number(pose.roll, 2)}


_MISSING = {status: Measure.missing(status) for status in Status if status is not Status.OK}


def _measures(measures: Mapping[str, Measure]) -> Record:
    names = {*measures, *(spec.name for spec in built_in_measures())}
    missing = _MISSING[Status.NOT_SCORED]
    return {name: _measure(measures.get(name, missing)) for name in sorted(names, key=position_of)}


def _measure(measure: Measure) -> Record:
    raw, scalar, status = _significant(measure.raw), _number(measure.scalar, 4), measure.status
    if status is Status.OK and (raw is None or scalar is None):
        status = Status.ERROR
    if status is not Status.OK:
        # An uncalibrated measure still has a raw value.
        raw, scalar = raw if status is Status.UNCALIBRATED else None, None
    return {"raw": raw, "scalar": scalar, "status": status.value}


def _measure_of(name: str, record: Mapping[str, Any]) -> Measure:
    status = Status(record["status"])
    if status is Status.UNCALIBRATED and record["raw"] is not None:
        return Measure(float(record["raw"]), None, status)
    if status is not Status.OK:
        return _MISSING[status]
    raw, scalar = record["raw"], record["scalar"]
    if raw is None or scalar is None:
        raise ValueError(f"measure {name} has the status ok but no value")
    return Measure(raw, scalar, status)


def _gate(gate: GateResult) -> Record:
    return {"passed": gate.passed, "reasons": list(gate.reasons)}


def _track(track: TrackInfo) -> Record:
    return {
        "first_pts": _required(track.first_pts, 6, "first_pts"),
        "last_pts": _required(track.last_pts, 6, "last_pts"),
        "frames_seen": track.frames_seen,
        "frames_scored": track.frames_scored,
    }


def _evidence(evidence: Evidence) -> Record:
    names = [name for spec in built_in_measures() for name in spec.evidence]
    values: Record = {name: _significant(evidence.values.get(name)) for name in names}
    others = {name: _significant(value) for name, value in sorted(evidence.values.items()) if name not in values}
    return {**values, **others, "failed": sorted(evidence.failed)}


def _scored(face: ScoredFace, embedding: bool) -> Record:
    record = {
        **_face(face.face),
        "pose": _pose(face.pose),
        "measures": _measures(face.measures),
        "quality": _number(face.quality, 4),
        "gate": _gate(face.gate),
    }
    if embedding:
        vector = face.embedding
        record["embedding"] = None if vector is None else [_significant(value) for value in vector.tolist()]
    return record
