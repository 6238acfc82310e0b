"""Print the identity threshold of a tier's recognizer on LFW, for an entry of the catalog.

    python models/recognizer/threshold.py IMAGES.tar [TIER]

IMAGES.tar: the pictures of folds 1-5 of LFW View 2. The threshold is the cosine for a false match rate of 1e-6,
estimated from pairs of different people, with one picture per person.
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.recognizer.deploy import identity_threshold
from streamgate.networks import Networks
from streamgate.networks.alignment import arcface_matrix


def main(images: Path, tier: str = "standard") -> None:
    people: dict[str, Any] = {}
    with (
        tarfile.open(images) as archive,
        Networks.open(tier, device="cpu") as networks,
    ):
        for member in sorted(archive.getmembers(), key=lambda one: one.name):
            person = member.name.rpartition("_")[0]
            if not member.isfile() or person in people:
                continue
            file = archive.extractfile(member)
            assert file is not None
            coded = np.frombuffer(file.read(), np.uint8)
            picture = np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])
            faces = networks.detector.detect([picture])[0]
            if not faces:
                continue
            middle = np.array(picture.shape[1::-1]) / 2
            face = min(faces, key=lambda one: float(np.linalg.norm(one.landmarks.mean(axis=0) - middle)))
            crop = cv2.warpAffine(picture, arcface_matrix(face.landmarks), (112, 112), borderMode=cv2.BORDER_REPLICATE)
            people[person] = networks.recognizer.run(crop[None]).embedding[0]
    vectors = np.stack(list(people.values()))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    print(f"{tier}: {identity_threshold(pairs):.4f} ({len(pairs)} pairs of {len(vectors)} people)")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
