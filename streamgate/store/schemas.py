"""Shapes of the records in an output folder. Every object is validated against its shape when it is read.

A shape is one of these:

    {type, ...}         a plain value of one of these types
    range               an integer in the range
    pattern             a text that matches the pattern
    {key: shape, ...}   an object; `str` as a key stands for all other keys, and additional keys are allowed
    [shape]             a list of any length
    [shape, shape]      a list of two items
    (shape,)            a value of that shape, or null
    (shape, None)       a value of that shape, null, or a missing key
"""

from __future__ import annotations

import re
from types import NoneType
from typing import Any, TypeAlias

Schema: TypeAlias = Any

_TEXT, _INTEGER, _NUMBER, _BOOLEAN = {str}, {int}, {float, int}, {bool}
_TEXT_OR_NULL, _INTEGER_OR_NULL, _NUMBER_OR_NULL, _BOOLEAN_OR_NULL = (
    {*one, NoneType} for one in (_TEXT, _INTEGER, _NUMBER, _BOOLEAN)
)
_WORDS = {str: "text", int: "an integer", float: "a number", bool: "true or false"}

_MISSING = object()

_COUNT = range(2**53)
_NAME = re.compile(r"(?!\.\.?(/|$))[^/\0]+(/(?!\.\.?(/|$))[^/\0]+)*")
"""A file name relative to OUT that does not lead out of OUT."""
_COUNTS = {str: _COUNT}
_GATE = {"passed": _BOOLEAN, "reasons": [_TEXT]}
_MEASURES = {str: {"raw": _NUMBER_OR_NULL, "scalar": _NUMBER_OR_NULL, "status": _TEXT}}
_POSE = ({"yaw": _NUMBER_OR_NULL, "pitch": _NUMBER_OR_NULL, "roll": _NUMBER_OR_NULL},)
_GEOMETRY = {"box": [_NUMBER] * 4, "landmarks": [[_NUMBER] * 2] * 5, "detection_score": _NUMBER}
_SPAN = {"first_pts": _NUMBER, "last_pts": _NUMBER, "frames_seen": _COUNT, "frames_scored": _COUNT}
_SEEN = {"thumbnail": _TEXT_OR_NULL, "heat": _TEXT_OR_NULL}

FACE: Schema = {
    "id": _TEXT, "source": _TEXT, "source_id": _TEXT, "track_id": _COUNT, "person_id": _TEXT_OR_NULL,
    "rank": _COUNT, "frame_index": _INTEGER_OR_NULL, "pts_seconds": _NUMBER, "pts_estimated": _BOOLEAN_OR_NULL,
    "captured_at": _TEXT_OR_NULL, **_GEOMETRY, "pose": _POSE, "measures": _MEASURES, "quality": _NUMBER_OR_NULL,
    "quality_smoothed": _NUMBER_OR_NULL, "quality_context": _NUMBER_OR_NULL, "calibration_id": _TEXT, "gate": _GATE,
    "image": _NAME, "track": _SPAN, "upscaled": _NUMBER_OR_NULL, "outside": (_NUMBER, None), "name": _TEXT_OR_NULL,
    "person_rank": _INTEGER_OR_NULL, "still": _BOOLEAN, "person_name": (_TEXT, None),
    "crops": ({str: {"image": _NAME}},), "pose_bin": _TEXT_OR_NULL, "phash": (re.compile("[0-9a-f]{1,16}"),),
}  # fmt: skip
TRACK: Schema = {
    "source_id": _TEXT, "epoch": {str, int}, "track_id": _COUNT, **_SPAN, "still": _BOOLEAN, "kept": _COUNT,
    "rejected": _COUNTS, "reasons": [_TEXT], "reference": ({str: _NUMBER}, None),
}  # fmt: skip
CANDIDATE: Schema = {
    "source_id": _TEXT, "track_id": _COUNT, "frame_index": _INTEGER_OR_NULL, "pts_seconds": _NUMBER,
    "pts_estimated": _BOOLEAN, "captured_at": _TEXT_OR_NULL, "name": _TEXT_OR_NULL, **_GEOMETRY,
    "interpolated": _BOOLEAN, "refined": _BOOLEAN, "pose": ({"yaw": _NUMBER, "pitch": _NUMBER, "roll": _NUMBER},),
    "measures": _MEASURES, "quality": _NUMBER_OR_NULL,
    "gate": _GATE, "evidence": {"failed": [_TEXT], str: _NUMBER_OR_NULL},
}  # fmt: skip
NOTE: Schema = {
    "track_id": _COUNT, "series": [[_NUMBER, _NUMBER_OR_NULL, _BOOLEAN_OR_NULL]],
    "shots": [{"rank": _COUNT, **_SEEN}],
    "misses": [{"pts_seconds": _NUMBER, "gate": _GATE, "measures": _MEASURES, "quality": _NUMBER_OR_NULL, **_SEEN}],
}  # fmt: skip
PERSON: Schema = {"person_id": _TEXT, "name": _TEXT_OR_NULL}
_RESULT = {
    "source": _TEXT, "source_id": _TEXT, "status": _TEXT, "error": _TEXT_OR_NULL, "frames": _COUNT,
    "frames_decoded": (_COUNT, None), "decode_errors": _COUNT,
    "pts_estimated": _INTEGER_OR_NULL, "combed": _COUNT, "turned": _COUNT,
    "pictures": (_BOOLEAN, None),
    "duration_seconds": _NUMBER_OR_NULL,
    "width": _INTEGER_OR_NULL, "height": _INTEGER_OR_NULL, "faces_detected": _COUNT, "faces_scored": _COUNT,
    "tracks": _COUNT, "kept": _COUNT, "rejected": _COUNTS, "notes": ([_TEXT],),
}  # fmt: skip
_CONFIG: Schema = {"measures": ({}, None), "keep": ({}, None)}
_CALIBRATION: Schema = {
    "mappings": ({str: [_NUMBER] * 2}, None), "absent": ({str: _TEXT}, None), "learned": ({str: _TEXT}, None),
}  # fmt: skip
_TIMES = {str: _NUMBER_OR_NULL}
SOURCE: Schema = {**_RESULT, "timing": _TIMES}
SUMMARY: Schema = {
    "sources": [_RESULT], "totals": {"rejected": _COUNTS}, "config": _CONFIG,
    "weights": [{"role": _TEXT, "sha256": _TEXT}], "measure_set": [_TEXT], "calibration_id": _TEXT,
    "calibration": _CALIBRATION, "absent_measures": {str: _TEXT}, "versions": {str: _TEXT}, "device": (_TEXT, None),
    "timing": {"run": _TIMES}, "complete": _BOOLEAN,
}  # fmt: skip
MANIFEST: Schema = {"program": _TEXT, "run": {"config": (_CONFIG, None)}, "files": [_TEXT], "sources": {str: [_TEXT]}}
_RUN = {
    "config": _CONFIG, "measure_set": [_TEXT], "absent_measures": {str: _TEXT}, "calibration_id": _TEXT,
    "weights": [{"role": _TEXT, "sha256": _TEXT}], "versions": {str: _TEXT}, "device": (_TEXT, None),
    "calibration": _CALIBRATION,
}  # fmt: skip
PART: Schema = {
    "program": _TEXT, "shard": _COUNT, "of": _COUNT,
    "run": {**_RUN, "identity": {"store": _TEXT, "threshold": _NUMBER_OR_NULL}},
}  # fmt: skip
READY: Schema = {
    "run": {"config": _CONFIG}, "sources": {str: [_TEXT]}, "failed": [_RESULT], "timing": _TIMES, "complete": _BOOLEAN,
    "info": _RUN,
}  # fmt: skip
SPARE: Schema = {
    "record": FACE, "note": {"rank": _COUNT, **_SEEN}, "files": [re.compile(r"(\.[a-z]{1,20}){1,2}")],
}  # fmt: skip
RECEIPT: Schema = {"files": [_TEXT]}
GROUPS: Schema = {"settled": _BOOLEAN, "tracks": {str: {str: _TEXT}}}
COMMIT: Schema = {"source_id": _TEXT, "files": [_TEXT]}


def mismatch(value: Any, shape: Schema) -> str | None:
    """The first difference between `value` and `shape`, as a text that starts with the key; None if there is none."""
    kind = type(shape)
    if kind is tuple:
        return None if value is None or (value is _MISSING and len(shape) > 1) else mismatch(value, shape[0])
    if value is _MISSING:
        return " is missing"
    if kind is set:
        return None if type(value) in shape else f" is not {_words(shape)}"
    if kind is range:
        return None if type(value) is int and value in shape else " is not a count"
    if kind is re.Pattern:
        return None if type(value) is str and shape.fullmatch(value) else " does not have the right form"
    if kind is list:
        return _list_mismatch(value, shape)
    if type(value) is not dict:
        return " is not an object"
    for key, inner in shape.items():
        if key is not str:
            item = value.get(key, _MISSING)
            if (type(inner) is not set or type(item) not in inner) and (found := mismatch(item, inner)):
                return f"{key}{found}" if found[0] == " " else f"{key}.{found}"
    if (others := shape.get(str)) is not None:
        for key, item in value.items():
            if key not in shape and (found := mismatch(item, others)):
                return f"{key}{found}" if found[0] == " " else f"{key}.{found}"
    return None


def _list_mismatch(value: Any, shape: list[Schema]) -> str | None:
    if type(value) is not list:
        return " is not a list"
    if len(shape) > 1 and len(value) != len(shape):
        return f" is not a list of {len(shape)}"
    for index, item in enumerate(value):
        if found := mismatch(item, shape[index % len(shape)]):
            return f"{index}{found}" if found[0] == " " else f"{index}.{found}"
    return None


def _words(types: set[type]) -> str:
    named = [words for one, words in _WORDS.items() if one in types and not (one is int and float in types)]
    return " or ".join([*named, *(["null"] if NoneType in types else [])])
