"""Loose crops of faces for the teacher to label, with the five landmarks that the package's detector finds.

A crop is a square of 384 px, with a side of 1.7 times the longer side of the face's box, as the teacher requires. The
crops of one folder are stored in one file of concatenated JPEGs. Next to it is a JSON index with the names, the start
of each JPEG, the landmarks in the crop, the distance between the eyes in the source, and the clip of each face.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from models.common.images import PICTURE_SUFFIXES, DataError, decode_rgb, encode_jpeg
from streamgate.networks import Networks

CROP_SIDE = 384
CROP_SCALE = 1.7
"""Side of the crop, divided by the longer side of the face's box; the teacher detects blinks badly on looser crops."""

CLIP_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".m4v", ".flv"})
SMALLEST_EYES = 20.0
"""Minimum distance between the eyes in pixels; smaller faces show too little of the eyes for training."""
_DETECT_SIDES = (160, 640)
_BORDER = 0.25
"""Width of the grey border around a picture, as a share of its long side; pictures are often cropped tightly."""
BORDER_LEVEL = 120


@dataclass
class Crops:
    """Faces, all lists in the same order; `jpegs` are the crops."""

    names: list[str] = field(default_factory=list)
    clips: list[str] = field(default_factory=list)
    landmarks: list[np.ndarray] = field(default_factory=list)
    eyes: list[float] = field(default_factory=list)
    jpegs: list[bytes] = field(default_factory=list)

    def add(self, name: str, clip: str, found: tuple[np.ndarray, np.ndarray, float]) -> None:
        """Add a face; found: the crop, the landmarks in it, and the distance between the eyes in the source, in px."""
        crop, landmarks, eyes = found
        self.names.append(name)
        self.clips.append(clip)
        self.landmarks.append(landmarks)
        self.eyes.append(eyes)
        self.jpegs.append(encode_jpeg(crop, 95, chroma_444=True))

    def save(self, base: Path) -> None:
        """Write `base`.jpegs and `base`.json. The index is written last, so a killed run leaves no index."""
        base.parent.mkdir(parents=True, exist_ok=True)
        base.with_suffix(".jpegs").write_bytes(b"".join(self.jpegs))
        index = {
            "names": self.names,
            "clips": self.clips,
            "landmarks": [np.round(points, 2).tolist() for points in self.landmarks],
            "eyes": [round(float(pixels), 2) for pixels in self.eyes],
            "starts": np.cumsum([0, *(len(data) for data in self.jpegs)]).tolist(),
        }
        part = base.with_suffix(".part")
        part.write_text(json.dumps(index))
        part.replace(base.with_suffix(".json"))


def read_crops(base: Path) -> tuple[dict, list[bytes]]:
    """The index and the JPEGs that `Crops.save` wrote."""
    index = json.loads(base.with_suffix(".json").read_text())
    data = base.with_suffix(".jpegs").read_bytes()
    starts = index["starts"]
    return index, [data[a:b] for a, b in pairwise(starts)]


def cut(folder: Path, base: Path, networks: Networks, interval: float, longest: int, every_picture: int = 1) -> int:
    """Write crops of the faces in a folder of pictures and clips, unless an earlier run did. Returns their number.

    interval: seconds between the frames of a clip; longest: maximum number of frames of a clip; every_picture: 1 uses
    every picture, n every n-th picture. Of a picture, only the largest face is used; of a frame, every face. Raises
    DataError if there is no face at all.
    """
    if base.with_suffix(".json").is_file():
        return len(json.loads(base.with_suffix(".json").read_text())["names"])
    crops = Crops()
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    pictures = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES][::every_picture]
    for file in pictures:
        picture = decode_rgb(file.read_bytes())
        for found in faces_of(picture, networks, _BORDER)[:1] if picture is not None else ():
            crops.add(file.relative_to(folder).as_posix(), "", found)
    for file in (file for file in files if file.suffix.lower() in CLIP_SUFFIXES):
        name = file.relative_to(folder).as_posix()
        for seconds, picture in frames(file, interval, longest):
            for found in faces_of(picture, networks, 0.0):
                crops.add(f"{name}@{seconds:.3f}", f"{folder.name}/{name}", found)
    if not crops.names:
        raise DataError(f"{folder}: no face found in {len(pictures)} pictures and {len(files) - len(pictures)} others")
    crops.save(base)
    return len(crops.names)


def frames(clip: Path, interval: float, longest: int) -> Iterator[tuple[float, np.ndarray]]:
    """Times in seconds and frames uint8 [H, W, 3] RGB of a clip, at least `interval` seconds apart, at most `longest`
    frames. A damaged clip ends early, and the error is printed.
    """
    import av  # here, so that recipes without footage do not need PyAV

    last, count = -1e9, 0
    try:
        with av.open(str(clip)) as container:
            container.streams.video[0].thread_count = 1
            for number, frame in enumerate(container.decode(video=0)):
                seconds = number / 25.0 if frame.time is None else float(frame.time)
                if seconds - last < interval - 1e-3:
                    continue
                yield seconds, frame.to_ndarray(format="rgb24")
                last, count = seconds, count + 1
                if count >= longest:
                    return
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        print(f"{clip}: {error}", flush=True)


def detected(
    picture: np.ndarray, networks: Networks, border: float
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """The picture, uint8 [H, W, 3] RGB, with a grey border, and the box and landmarks of every face in it.

    border: width of the border, as a share of the long side.
    """
    width = round(border * max(picture.shape[:2]))
    if width:
        picture = cv2.copyMakeBorder(picture, *([width] * 4), cv2.BORDER_CONSTANT, value=(BORDER_LEVEL,) * 3)
    long_side = max(picture.shape[:2])
    scale = min(max(long_side, _DETECT_SIDES[0]), _DETECT_SIDES[1]) / long_side
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = picture if scale == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return picture, [
        (face.box.astype(np.float64) / scale, (face.landmarks.astype(np.float64) + 0.5) / scale - 0.5)
        for face in networks.detector.detect([np.ascontiguousarray(small)], 0.6)[0]
    ]


def faces_of(picture: np.ndarray, networks: Networks, border: float, boxes: bool = False) -> list[tuple]:
    """The faces of a picture uint8 [H, W, 3] RGB, largest first: the crop, the landmarks in it and the distance between
    the eyes; with `boxes` also the box.
    """
    picture, faces = detected(picture, networks, border)
    found = []
    for box, landmarks in faces:
        if max(box[2:] - box[:2]) >= 2.2 * SMALLEST_EYES:
            eyes = float(np.hypot(*(landmarks[1] - landmarks[0])))
            found.append((*loose_crop(picture, box, landmarks), eyes, *([box] if boxes else [])))
    return sorted(found, key=lambda item: item[2], reverse=True)


def loose_crop(picture: np.ndarray, box: Sequence[float], landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The crop around a box, uint8 [384, 384, 3], and the landmarks in the crop."""
    x1, y1, x2, y2 = box
    side = CROP_SCALE * max(x2 - x1, y2 - y1)
    gain = CROP_SIDE / side
    left, top = (x1 + x2 - side) / 2, (y1 + y2 - side) / 2
    matrix = np.array([[gain, 0, -gain * left], [0, gain, -gain * top]])
    shown = np.asarray(landmarks, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    if gain < 0.6:
        # The picture is first scaled down by area, to avoid aliasing.
        shrink = gain * 1.3
        picture = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        matrix = np.array([[gain / shrink, 0, -gain * left], [0, gain / shrink, -gain * top]])
    size = (CROP_SIDE, CROP_SIDE)
    crop = cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return crop, shown
