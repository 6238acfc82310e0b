"""`identity.only`: keeps only the faces of one person, whom the user specifies by a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamgate.errors import SourceError, UsageError, display
from streamgate.faces import ScoredFace
from streamgate.frames import Array
from streamgate.networks.cohort import Cohort
from streamgate.selection.template import SURE_INTER_EYE, SURE_SERFIQ, is_sure
from streamgate.sources.images import read_rgb
from streamgate.tracks import Template

OTHER_PERSON = "other_person"
"""The reason for rejecting the faces of a track that does not show the wanted person."""

_BESIDE = 1 / 3
"""Faces whose eye distance is below this share of the largest face's eye distance are in the background and are
ignored."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The wanted person.

    `template` and `sha256` are computed from the user's picture; `threshold` is the minimum similarity of a track that
    shows the person.
    """

    template: Template
    threshold: float
    sha256: str

    def shows(self, template: Template | None) -> bool:
        """Whether a track shows the person; False if its template is not reliable enough."""
        if template is None or not is_sure(template):
            return False
        return self.template.similarity(template) >= self.threshold


def read_reference(
    path: Path, score: Callable[[Array], list[ScoredFace]], threshold: float | None, cohort: Cohort | None = None
) -> Reference:
    """Read the reference from a picture; `score` detects and scores its faces, largest first.

    Raises UsageError if the picture cannot be read, if it contains no face or several faces, if the quality of its face
    is too low, or if the recognizer has no identity threshold.
    """
    named = f"--only {display(path)}"
    if threshold is None:
        raise UsageError(
            f"{named}: the recognizer has no identity threshold; set one with --set identity.threshold=COSINE"
        )
    try:
        image, data = read_rgb(path), path.read_bytes()
    except (SourceError, OSError) as error:
        why = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else error
        raise UsageError(f"{named}: {why}; give a picture of the person") from error
    faces = score(image)
    if not faces:
        raise UsageError(
            f"{named}: no face was found; use a sharp, frontal picture in which the face is large"
        )
    largest = faces[0]
    beside = [one for one in faces[1:] if one.face.inter_eye >= _BESIDE * largest.face.inter_eye]
    if beside:
        raise UsageError(
            f"{named}: the picture shows {1 + len(beside)} faces; crop it so that it shows only the wanted person"
        )
    serfiq = largest.measures["serfiq"].scalar
    poor = largest.face.inter_eye < SURE_INTER_EYE or (serfiq is not None and serfiq < SURE_SERFIQ)
    if largest.embedding is None or poor or not np.linalg.norm(largest.embedding) > 0:
        raise UsageError(
            f"{named}: the face cannot be recognized, because it is too small, turned away, blurred or covered; "
            "use a sharp, frontal picture in which the face is large"
        )
    unit = largest.embedding / np.linalg.norm(largest.embedding)
    template = Template(unit.astype(np.float32), faces=1, weight=1.0, agreement=1.0, inter_eye=largest.face.inter_eye)
    return Reference(
        template if cohort is None else cohort.add_offset(template), threshold, hashlib.sha256(data).hexdigest()
    )
