"""The sections of the evaluation: agreement with the teacher, pose, closed eyes, covered faces, and picked faces."""

from __future__ import annotations

import time

import numpy as np

from models.common.report import Section
from models.common.stats import auc, bootstrap
from models.expression.architecture import words
from models.expression.dataset import FaceSet
from models.expression.monitor import correlations, crops_of
from models.expression.network import Answers, OwnNetwork
from models.expression.picks import MONOTONE, Labelled, experiment, openness, values
from streamgate.measures import Sigmoid
from streamgate.measures.occlusion import MEASURE as OCCLUSION

_SHOWN = words(
    "jawOpen lipGap mouthClose mouthPucker mouthFunnel mouthSmileLeft mouthFrownLeft mouthStretchLeft "
    "mouthPressLeft mouthUpperUpLeft mouthLowerDownLeft eyeBlinkLeft lidsLeft eyeSquintLeft eyeLookDownLeft "
    "eyeLookUpLeft eyeLookInLeft eyeLookOutLeft irisAcrossLeft irisAboveLeft browDownLeft browInnerUp yaw "
    "pitch roll"
)
LARGEST_YAW = 60
_GOOD_LOST = 0.02


def agreement(own: OwnNetwork, faces: FaceSet, answers: Answers) -> Section:
    """Correlation with the teacher, on held-out training faces (from the card) and on the labelled clips."""
    section = Section(
        "Agreement with the teacher",
        ["output", "held-out faces", "labelled clips"],
        note="Pearson correlation between the outputs of this network and the teacher's, on held-out training faces "
        f"and on {len(faces)} undegraded faces of the labelled clips.",
    )
    found = correlations({"signals": answers.signals, "pose": answers.pose}, faces.signals, faces.pose)
    for name in _SHOWN:
        held_out = own.card.get("agreement", {}).get(name)
        section.rows.append([name, "" if held_out is None else f"{held_out:.2f}", f"{found[name]:.2f}"])
    return section


def pose(labels: np.ndarray, answers: dict[str, np.ndarray]) -> Section:
    """Mean absolute errors on AFW; labels and answers: [n, 3], yaw, pitch and roll in the picture, in degrees."""
    near = np.abs(labels[:, 0]) <= LARGEST_YAW
    section = Section(
        "Pose",
        ["network", "yaw", "pitch", "roll", "yaw of all faces"],
        note=f"Mean absolute error in degrees, with 95 % intervals, on {int(near.sum())} of AFW's {len(labels)} "
        f"faces: those with |yaw| <= {LARGEST_YAW}. The labels are multiples of 15 degrees.",
    )
    for name, got in answers.items():
        errors = np.abs(got - labels)
        cells = [bootstrap(lambda i, e=errors[near, axis]: float(e[i].mean()), int(near.sum())) for axis in range(3)]
        everyone = bootstrap(lambda i, e=errors[:, 0]: float(e[i].mean()), len(errors))
        section.rows.append([name, *(cell.text(1) for cell in cells), everyone.text(1)])
    section.goal("yaw error on AFW", float(np.abs(answers["this"] - labels)[near, 0].mean()), 8.2, at_most=True)
    return section


def picks(labelled: Labelled, table: dict[str, tuple[np.ndarray, np.ndarray]]) -> Section:
    """Labels of the faces that are picked with each network's values; table: (signals, pose) by name of the network."""
    section = Section(
        "Picking faces",
        ["network", "fit and values", "good", "usable", "bad", "bad by the network's own fault", "AUC of good"],
        note="A model is fitted to each network's values (`picks.py`) and picks the face with the highest output in "
        "each track that has a good face. The table shows how the picked faces are labelled, on clips that were held "
        "out from the fit, as the mean over five splits. The values are absolute, relative to the track's 20th "
        "percentile, or both. The model gets no values for picture quality, occlusion and the frame's edge, so a "
        "face that is bad only for one of these reasons does not count as the network's own fault.",
    )
    for name, (signals, angles) in table.items():
        for kind, figures in experiment(signals, angles, labelled).items():
            cells = [f"{100 * figures[key]:.0f} %" for key in ("g", "m", "b", "own")]
            section.rows.append([name, kind, *cells, f"{figures['auc']:.2f}"])
            if name == "this" and kind == MONOTONE:
                section.goal("good picks in 20 tracks", 20 * figures["g"], 13)
                section.goal("bad picks in 20 tracks", 20 * figures["b"], 1, at_most=True)
    return section


def eyes(labelled: Labelled, networks: dict[str, Answers]) -> Section:
    """Closed eyes: faces that are labelled bad only for the eyes, compared with good faces."""
    closed = np.array([why == "e" for why in labelled.why]) & (labelled.label == "b")
    good = labelled.label == "g"
    section = Section(
        "Closed eyes",
        [
            "network",
            "AUC",
            "threshold",
            "rejected of the faces bad only for the eyes",
            "rejected of the good faces",
        ],
        note="The value is the opening of the less open eye, divided by the 90th percentile of this value in the "
        "track. The threshold is chosen so that about 2 % of the good faces are rejected.",
    )
    for name, answers in networks.items():
        lids = np.minimum(answers.signal("lidsLeft"), answers.signal("lidsRight"))
        shown = openness(lids, labelled.track)
        threshold = float(np.quantile(shown[good], _GOOD_LOST, method="lower"))
        found = float((shown[closed] < threshold).mean())
        lost = float((shown[good] < threshold).mean())
        rate = f"{auc(-shown[closed], -shown[good]):.3f}"
        cells = [f"{threshold:.2f}", f"{100 * found:.0f} % of {closed.sum()}", f"{100 * lost:.1f} %"]
        section.rows.append([name, rate, *cells])
        if name == "this":
            section.goal("closed eyes found", found, 0.85, unit=" %")
    return section


def covers(labelled: Labelled, networks: dict[str, Answers]) -> Section:
    """Share of faces rejected by the default limit: faces labelled as covered, by clip, and good and usable faces.

    networks: the answers of each network, by its name; the goals apply to the network "this".
    """
    covered = np.array(["o" in why for why in labelled.why])
    mapping, limit = OCCLUSION.mapping, OCCLUSION.limits[0].value
    assert isinstance(mapping, Sigmoid)
    rejected = {
        name: np.array([mapping.scalar(float(share)) < limit for share in answers.visible])
        for name, answers in networks.items()
    }
    this = networks["this"].visible
    section = Section(
        "Covered faces",
        ["faces", "number", *(["rejected"] if len(networks) == 1 else [f"rejected by {name}" for name in networks])],
        note="The table compares faces labelled as covered, which may also have other flaws, with uncovered faces "
        "labelled as good or usable. The median visible share of the good faces is "
        f"{np.median(this[(labelled.label == 'g') & ~covered]):.3f}.",
    )
    groups = {"good": (labelled.label == "g") & ~covered, "usable": (labelled.label == "m") & ~covered}
    groups |= {f"covered, {clip}": covered & (labelled.clip == clip) for clip in np.unique(labelled.clip[covered])}
    groups["covered"] = covered
    for name, chosen in groups.items():
        shares = [f"{100 * found[chosen].mean():.1f} %" for found in rejected.values()]
        section.rows.append([name, str(int(chosen.sum())), *shares])
    section.goal("covered faces found", float(rejected["this"][covered].mean()), 0.8, unit=" %")
    lost = float(rejected["this"][groups["good"]].mean())
    section.goal("good faces rejected as covered", lost, 0.01, unit=" %", at_most=True)
    return section


def measures(labelled: Labelled, table: dict[str, tuple[np.ndarray, np.ndarray]]) -> Section:
    """Single values for mouth, gaze and turn: faces that are bad for this reason, among others, and good faces.

    table: (signals, pose) by name of the network.
    """
    section = Section(
        "One value at a time",
        [
            "network",
            "value",
            "faces bad for this reason",
            "AUC",
            "found if 2 % of the good faces are lost",
            "found if 10 % are lost",
        ],
        note="The value `mouth` is `lipGap` + `jawOpen` / 2; `gaze` is the angle in degrees by which the eyes look "
        "past the camera (`batches.gaze_of`); `turn` is the largest of |yaw|, |pitch| and |roll|.",
    )
    good = labelled.label == "g"
    for network, (signals, angles) in table.items():
        columns, names = values(signals, angles)
        at = {name: columns[:, i] for i, name in enumerate(names)}
        turn = np.maximum.reduce([at["yaw"], at["pitch"], at["roll"]])
        for name, reason, shown in (
            ("mouth", "m", at["gap"] + 0.5 * at["jaw"]),
            ("gaze", "z", at["gaze_away"]),
            ("turn", "t", turn),
        ):
            bad = (labelled.label == "b") & np.array([reason in why for why in labelled.why])
            found = [float((shown[bad] > np.quantile(shown[good], share)).mean()) for share in (0.98, 0.9)]
            cells = [f"{auc(shown[bad], shown[good]):.2f}", *(f"{100 * share:.0f} %" for share in found)]
            section.rows.append([network, name, str(int(bad.sum())), *cells])
    return section


def speed(own: OwnNetwork, runs: int = 200) -> Section:
    """Core-ms per face on one thread, for a single face and in a batch of eight."""
    section = Section("Speed, one thread", ["faces per run", "core-ms per face"])
    rng = np.random.default_rng(0)
    for count in (1, 8):
        crops = rng.integers(0, 256, (count, *own.card["crop"]["size"], 3), dtype=np.uint8)
        times = []
        for _ in range(max(10, runs // count)):
            start = time.process_time()
            own.session.run(None, {"face": crops})
            times.append(1000 * (time.process_time() - start) / count)
        section.rows.append([str(count), f"{np.median(times):.2f}"])
        if count == 1:
            section.goal("core-ms per face", float(np.median(times)), 3.0, at_most=True)
    section.rows.append(["size of the file, MB", f"{own.path.stat().st_size / 1e6:.2f}"])
    return section


def judged(own: OwnNetwork, faces: FaceSet) -> Answers:
    """The network's outputs for the middle of every canvas."""
    return own.run(crops_of(faces, np.arange(len(faces))))


def labels_of(names: list[str]) -> np.ndarray:
    """AFW's labels for yaw, pitch and roll, [n, 3], from the names that yardstick.cut_afw gives to faces."""
    return np.array([[float(word) for word in name.split("|")[1:]] for name in names])
