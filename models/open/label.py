#!/usr/bin/env python3
"""Label pictures with MediaPipe's Face Landmarker (Apache-2.0); runs in a separate environment.

    python3 -m venv TEACHER && TEACHER/bin/pip install mediapipe==0.10.21      # numpy below 2; needs libgl1, libegl1
    TEACHER/bin/python models/open/label.py face_landmarker.task PICTURES... --out labels.npz

PICTURES are folders or tar files. The arrays that are written have one row for each face; the largest face of a picture
comes first:

    sha256   of the picture's file
    points   float32 [n, 5, 2]  viewer's left and right eye, nose, left and right mouth corner, in pixels
    box      float32 [n, 4]     x1, y1, x2, y2 in pixels, from the hairline to the chin, as by a face detector
    pose     float32 [n, 3]     yaw, pitch, roll in degrees, signs as in docs/design.md 5
    shapes   float32 [n, 52]    blendshapes; `shape_names` has their names
    mesh     float32 [n, 478, 2]  points of the mesh in pixels

A picture in which no face was found has one row with NaN, because it may still show a face.

With --found (a file that scan.py wrote for the same PICTURES), the Face Landmarker looks only at the places in that
file, one at a time. In this way, it also finds small faces, and any number of faces. The rows then have the same order
as in that file, and the row of a place in which no face was found has NaN.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from models.common.images import DataError, list_sources  # noqa: E402
from models.detector.faces import overlap  # noqa: E402
from models.expression.teacher import angles  # noqa: E402
from models.open.inputs import check_target, read_arrays, usable_picture, write_arrays  # noqa: E402

LONGEST = 1024
BORDER = 0.25
"""Width of the grey border around the picture, as a share of its long side; without a border, a face that fills its
picture is not found."""
FACES = 4
PUPILS, NOSE, MOUTH = (468, 473), 4, (61, 291)
"""The points of the mesh that are used as the five landmarks."""
_POINTS = (*PUPILS, NOSE, *MOUTH)
ABOVE = 0.15
"""Distance from the top of the mesh to the top of the box, as a share of the mesh's height; the mesh ends below the
hairline, where the boxes of detectors begin."""


NOTHING = (np.full((478, 2), np.nan), (np.nan,) * 3, np.zeros(52))
AROUND, PLACE = 1.8, 384
"""With --found: side of the square part of the picture in which a face is searched for, first relative to the longer
side of the place's box, then in pixels after scaling."""
AGREE = 0.35
"""With --found: minimum intersection over union of the mesh's box and the place's box."""


def box_of(mesh: np.ndarray) -> np.ndarray:
    """The box of a face, float32 [4]: x1, y1, x2, y2; mesh: [478, 2]."""
    low, high = mesh.min(axis=0), mesh.max(axis=0)
    return np.array([low[0], low[1] - ABOVE * (high[1] - low[1]), high[0], high[1]], np.float32)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad data or arguments (one line on stderr)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", type=Path)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--found", type=Path, help="file that scan.py wrote: look only at its places")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    try:
        print(label(args))
    except (DataError, OSError) as error:
        print(f"label.py: {error}", file=sys.stderr)
        return 2
    return 0


def label(args: argparse.Namespace) -> str:
    """Label the pictures and write the file; returns what was written, for the log. Raises DataError."""
    check_target(args.out)
    if not args.task.is_file():
        raise DataError(f"{args.task}: no such file; it must be face_landmarker.task as published by Google")
    places: dict[str, list[np.ndarray]] = {}
    if args.found:
        rows = read_arrays(args.found, "box")
        for name, box in zip(rows["sha256"].tolist(), rows["box"], strict=True):
            places.setdefault(name, []).append(box)
    if next(list_sources(args.pictures), None) is None:
        raise DataError(f"no picture in {', '.join(map(str, args.pictures))}")
    try:
        import mediapipe as media
        from mediapipe.tasks import python as tasks
        from mediapipe.tasks.python import vision
    except ImportError as error:
        raise DataError(f"MediaPipe cannot be imported ({error}); it needs an environment of its own") from error

    cv2.setNumThreads(1)
    options = vision.FaceLandmarkerOptions(
        base_options=tasks.BaseOptions(model_asset_path=str(args.task)),
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
        num_faces=FACES,
    )
    digests: list[str] = []
    meshes, poses, shapes = [], [], []
    names: list[str] = []
    none, seen = 0, 0
    try:
        made = vision.FaceLandmarker.create_from_options(options)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{args.task}: MediaPipe cannot load it ({str(error).splitlines()[0]})") from error
    with made as landmarker:
        for source in list_sources(args.pictures):
            picture, digest = usable_picture(source.data), hashlib.sha256(source.data).hexdigest()
            seen += 1
            if args.found:
                boxes = places.pop(digest, [])
                found = [NOTHING if picture is None else look_at(landmarker, media, picture, box) for box in boxes]
            else:
                found = [] if picture is None else look(landmarker, media, picture)
                found = sorted(found, key=lambda one: -float(np.ptp(one[0][:, 0]))) or [NOTHING]
            none += bool(found) and all(np.isnan(mesh).all() for mesh, _, _ in found)
            for mesh, pose, scores in found:
                digests.append(digest)
                meshes.append(mesh)
                poses.append(pose)
                shapes.append([getattr(one, "score", one) for one in scores])
                names = names or [one.category_name for one in scores if hasattr(one, "category_name")]
            if seen % 500 == 0:
                print(f"{seen} pictures, {none} without a face", flush=True)
    if not meshes:
        raise DataError(f"{args.found}: none of its pictures is in {', '.join(map(str, args.pictures))}")
    mesh = np.array(meshes, np.float32)
    write_arrays(
        args.out,
        sha256=np.array(digests),
        points=mesh[:, _POINTS],
        box=np.array([box_of(one) for one in mesh]),
        pose=np.array(poses, np.float32),
        shapes=np.array(shapes, np.float32),
        shape_names=np.array(names),
        mesh=mesh,
    )
    return f"{args.out}: {len(mesh)} faces of {seen} pictures, {none} without a face"


def look(landmarker: object, media: object, picture: np.ndarray) -> list[tuple]:
    """Mesh in pixels of the picture, pose and blendshapes of every face of a picture uint8 [H, W, 3] RGB."""
    scale = min(1.0, LONGEST / max(picture.shape[:2]))
    small = picture if scale == 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    width = round(BORDER * max(small.shape[:2]))
    padded = cv2.copyMakeBorder(small, *([width] * 4), cv2.BORDER_CONSTANT, value=(120, 120, 120))
    result = landmarker.detect(media.Image(image_format=media.ImageFormat.SRGB, data=np.ascontiguousarray(padded)))
    found = []
    for points, scores, transform in zip(
        result.face_landmarks, result.face_blendshapes, result.facial_transformation_matrixes, strict=True
    ):
        mesh = np.array([(p.x * padded.shape[1], p.y * padded.shape[0]) for p in points]) - width
        turn = np.asarray(transform, np.float64)
        turn[:3, :3] /= np.cbrt(np.linalg.det(turn[:3, :3]))
        found.append((mesh / scale - 0.5, angles(turn), scores))
    return found


def look_at(landmarker: object, media: object, picture: np.ndarray, box: np.ndarray) -> tuple:
    """Mesh in pixels of the picture, pose and blendshapes of the face in `box`; NOTHING if no face was found there.

    box: float32 [4], x1, y1, x2, y2 in pixels, or NaN.
    """
    side = AROUND * float((box[2:] - box[:2]).max())
    # A place may be empty, or so large that nothing would be left of the picture.
    if not np.isfinite(box).all() or not 0 < side <= PLACE * min(picture.shape[:2]):
        return NOTHING
    middle, scale = (box[:2] + box[2:]) / 2, PLACE / side
    corner = middle - side / 2
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 0.5 else picture
    gain = scale * picture.shape[1] / small.shape[1]
    matrix = np.array([[gain, 0, -scale * corner[0]], [0, gain, -scale * corner[1]]])
    part = cv2.warpAffine(small, matrix, (PLACE, PLACE), flags=cv2.INTER_LINEAR, borderValue=(120, 120, 120))
    best, agreed = NOTHING, AGREE
    for mesh, pose, scores in look(landmarker, media, part):
        mesh = (mesh + 0.5) / scale + corner - 0.5
        shared = float(overlap(box_of(mesh)[None], box[None])[0, 0])
        if shared > agreed:
            best, agreed = (mesh, pose, scores), shared
    return best


if __name__ == "__main__":
    sys.exit(main())
