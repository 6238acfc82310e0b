"""SER-FIQ without sampling: how near is the closed form to T stochastic passes, and what does either cost?

    python benchmarks/serfiq.py [FACES] [--faces 120] [--passes 10 20 50 100 200 500 1000 2000]

FACES: a folder of pictures with one face each, or a tar of them (the LFW pictures by default). Every face is taken
clean, blurred, at low resolution, with noise and half covered (DESIGN 4.1), and runs through the recognizer once; then
d comes from the graph (closed form) and from T dropout masks. The reference is the mean of five runs of T = 2000.
Writes its section of benchmarks/RESULTS.md, and a plot.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from charts import draw_lines
from common import RESULTS, SHARED, Machine, command_line, say, table, target, weights_facts, write_section

from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import StreamgateError
from streamgate.frames import Array
from streamgate.measures.serfiq import closed_form_spread, raw_from_spread, sample_embeddings, sampled_spread
from streamgate.networks import Networks
from streamgate.networks.alignment import arcface_matrix
from streamgate.networks.device import load_onnxruntime
from streamgate.networks.recognizer import LastAffine

REFERENCE_PASSES, REFERENCE_RUNS = 2000, 5
REPEATS = 10
SIDE = 112


def blurred(crop: Array) -> Array:
    return cv2.GaussianBlur(crop, (0, 0), 3.0)


def coarse(crop: Array) -> Array:
    small = cv2.resize(crop, (20, 20), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def noisy(crop: Array) -> Array:
    noise = np.random.default_rng(0).normal(0.0, 30.0, crop.shape)
    return np.clip(crop + noise, 0, 255).astype(np.uint8)


def covered(crop: Array) -> Array:
    half = crop.copy()
    half[SIDE // 2 :] = 128
    return half


KINDS: dict[str, Callable[[Array], Array]] = {
    "clean": lambda crop: crop,
    "blur": blurred,
    "low resolution": coarse,
    "noise": noisy,
    "half covered": covered,
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """One way to get d for every face: raw values, kinds in turn, and CPU milliseconds a face."""

    name: str
    raw: Array
    milliseconds: float


def main() -> int:
    given = _arguments()
    machine = Machine.here()
    notes: list[str] = []
    estimates: list[Estimate] = []
    lines = ["## SER-FIQ: closed form and sampling", ""]
    try:
        networks = Networks.open(given.models, "cpu", 1)
        crops = _crops(networks, given.faces_in, given.faces, notes)
        if not crops:
            notes.append(f"no faces in {given.faces_in.name}")
    except StreamgateError as error:
        notes.append(f"nothing was measured: {error}")
        crops = []
    plot = given.results.parent / "serfiq.png"
    if crops:
        variants = np.stack([make(crop) for make in KINDS.values() for crop in crops])
        output = networks.recognizer.run(variants)
        layer = networks.recognizer.last_affine()
        rate = float(getattr(networks.calibration("recognizer"), "drop_rate", 0.5))
        reference = _reference(layer, output.features, rate)
        graph = np.array([raw_from_spread(float(spread)) for spread in output.spread])
        whole, head = _graph_times(given.models, variants[:40], output.features[:40])
        if np.isnan(head):
            notes.append("time of the closed form in the graph: onnx is not installed")
        estimates.append(Estimate("closed form, in the graph", graph, head))
        estimates.append(_timed("closed form, numpy", output.features, lambda x, _: _closed(layer, x, rate)))
        for passes in given.passes:
            estimates.append(
                _timed(f"T = {passes}", output.features, lambda x, i, t=passes: _sampled(layer, x, rate, t, 1000 + i))
            )
            say(f"T = {passes}: {estimates[-1].milliseconds:.2f} ms a face")
        names = {record["role"]: record for record in networks.weights}
        facts = {
            "versions": {"numpy": np.__version__, "opencv": cv2.__version__},
            "weights": [names["recognizer"]],
        }
        lines += _report(machine, facts, len(crops), reference, estimates, (whole, head), rate)
        undrawn = _draw(reference, estimates, given.passes, plot)
        notes += undrawn
        if not undrawn:
            lines += ["", f"![Error and rank correlation by T]({plot.name})"]
    lines += ["", *[f"- left out: {note}" for note in notes]] if notes else []
    body = "\n".join(lines)
    write_section(given.results, "serfiq", body)
    print(body)
    say(f"written to {given.results}")
    return 0 if estimates else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = SHARED / "faces" / "lfw_folds1-5" / "images.tar"
    parser.add_argument("faces_in", metavar="FACES", type=Path, nargs="?", default=default)
    parser.add_argument("--faces", type=int, default=120, help="faces, each in five kinds")
    parser.add_argument(
        "--passes", type=int, nargs="+", default=[10, 20, 50, 100, 200, 500, 1000, 2000], metavar="T",
        help="stochastic passes to try",
    )  # fmt: skip
    parser.add_argument("--models", default=DEFAULT_MODELS, help="as of `streamgate run`")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    given = parser.parse_args()
    if given.faces < 2 or min(given.passes) < 2:
        parser.error("--faces and --passes must be at least 2")
    return given


def _crops(networks: Networks, where: Path, count: int, notes: list[str]) -> list[Array]:
    """ArcFace crops of the middle faces of the first pictures in which one is found."""
    crops: list[Array] = []
    empty = 0
    for picture in _pictures(where):
        if len(crops) == count:
            break
        faces = networks.detector.detect([picture])[0]
        if not faces:
            empty += 1
            continue
        middle = np.array(picture.shape[1::-1]) / 2
        face = min(faces, key=lambda face: float(np.linalg.norm(face.landmarks.mean(axis=0) - middle)))
        matrix = arcface_matrix(face.landmarks)
        crops.append(cv2.warpAffine(picture, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE))
    if empty:
        notes.append(f"{empty} pictures without a face that was found")
    if 0 < len(crops) < count:
        notes.append(f"only {len(crops)} faces instead of {count}")
    return crops


def _pictures(where: Path) -> Iterator[Array]:
    """RGB pictures of a folder or a tar, one of each person (by name) in a steady order."""
    if where.is_dir():
        for path in sorted(where.iterdir()):
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if picture is not None:
                yield np.ascontiguousarray(picture[..., ::-1])
    elif where.is_file():
        with tarfile.open(where) as archive:
            people = set()
            for member in sorted(archive.getmembers(), key=lambda one: one.name):
                person = Path(member.name).stem.rstrip("0123456789_")
                file = archive.extractfile(member) if member.isfile() and person not in people else None
                if file is None:
                    continue
                people.add(person)
                picture = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
                if picture is not None:
                    yield np.ascontiguousarray(picture[..., ::-1])


def _reference(layer: LastAffine, features: Array, rate: float) -> Array:
    """Raw values by the mean of d over several long runs, their masks drawn anew for every face."""
    runs = []
    for run in range(REFERENCE_RUNS):
        runs.append([_sampled(layer, x, rate, REFERENCE_PASSES, 10**6 * (run + 1) + i) for i, x in enumerate(features)])
        say(f"reference run {run + 1} of {REFERENCE_RUNS}")
    return np.array([raw_from_spread(float(d)) for d in np.mean(runs, axis=0)])


def _sampled(layer: LastAffine, features: Array, rate: float, passes: int, seed: int) -> float:
    return sampled_spread(sample_embeddings(layer.weight, features, layer.bias, rate, passes, seed))


def _closed(layer: LastAffine, features: Array, rate: float) -> float:
    return closed_form_spread(layer.weight, features, layer.bias, rate)


def _timed(name: str, features: Array, spread: Callable[[Array, int], float]) -> Estimate:
    began = time.process_time()
    raw = np.array([raw_from_spread(spread(x, i)) for i, x in enumerate(features)])
    return Estimate(name, raw, 1000 * (time.process_time() - began) / len(features))


def _graph_times(models: str, crops: Array, features: Array) -> tuple[float, float]:
    """CPU milliseconds of one run of the recognizer, and of its part behind the features: the best of several, medians.

    The head is cut out of the graph and run by itself (ONNX Runtime runs every node, whatever is asked for); NaN
    where onnx is not installed.
    """
    onnxruntime = load_onnxruntime()

    from streamgate.networks.sessions import as_input
    from streamgate.weights import resolve

    weights = resolve(models)["recognizer"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    def median_time(model: bytes, inputs: Array) -> float:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        times = []
        for index in range(len(inputs)):
            row = np.ascontiguousarray(inputs[index : index + 1])
            took = []
            for _ in range(REPEATS):
                began = time.process_time_ns()
                session.run(None, {name: row})
                took.append((time.process_time_ns() - began) / 1e6)
            times.append(min(took))
        return float(np.median(times))

    whole = median_time(weights.path.read_bytes(), as_input(crops, weights.input))
    try:
        import onnx
        from onnx.utils import Extractor
    except ImportError:
        return whole, float("nan")
    model = onnx.load(str(weights.path))
    head = Extractor(model).extract_model(["features"], ["embedding", "spread"])
    return whole, median_time(head.SerializeToString(), features)


def _report(
    machine: Machine,
    facts: dict,
    faces: int,
    reference: Array,
    estimates: Sequence[Estimate],
    graph: tuple[float, float],
    rate: float,
) -> list[str]:
    closed, numpy_form = estimates[0], estimates[1]
    whole, head = graph
    backbone = whole - head
    lines = [
        f"`{command_line('serfiq.py', sys.argv[1:])}`", "", *machine.lines(), *weights_facts(facts),
        f"- {faces} faces in {len(KINDS)} kinds ({', '.join(KINDS)}), drop rate {rate:g}; raw values "
        f"{reference.min():.3f} to {reference.max():.3f}; reference: mean of {REFERENCE_RUNS} runs of "
        f"T = {REFERENCE_PASSES}; masks are drawn anew for every face",
        "- the graph's figures differ from the same formula in float64 by at most "
        f"{np.abs(closed.raw - numpy_form.raw).max():.1e}",
        f"- one run of the recognizer: {whole:.2f} CPU ms, {head:.3f} of them for embedding and closed form together",
        "",
    ]  # fmt: skip
    head_row = [
        "way",
        "Spearman",
        "RMSE",
        "largest error",
        "bias",
        "CPU ms a face",
        *[f"Spearman, {kind}" for kind in KINDS],
    ]
    rows = []
    for one in estimates:
        error = one.raw - reference
        rows.append(
            [
                one.name, f"{spearman(one.raw, reference):.4f}", f"{np.sqrt(np.mean(error**2)):.5f}",
                f"{np.abs(error).max():.4f}", f"{error.mean():+.5f}", f"{one.milliseconds:.3f}",
                *[
                    f"{spearman(one.raw[part], reference[part]):.4f}"
                    for part in (slice(faces * index, faces * (index + 1)) for index in range(len(KINDS)))
                ],
            ]
        )  # fmt: skip
    if np.isnan(head):
        return [*lines, table(head_row, rows)]
    share = 100 * head / backbone
    verdict = target("embedding and closed form over their backbone", f"{share:.2f} %", "below 1 %", share < 1)
    return [*lines, table(head_row, rows), "", verdict]


def _draw(reference: Array, estimates: Sequence[Estimate], passes: Sequence[int], plot: Path) -> list[str]:
    closed, sampled = estimates[0], estimates[2:]
    ends = (passes[0], passes[-1])

    def pairs(figure: Callable[[Array], float]) -> dict[str, list[tuple[float, float]]]:
        return {
            "sampled": [(t, figure(one.raw)) for t, one in zip(passes, sampled, strict=True)],
            "closed form": [(t, figure(closed.raw)) for t in ends],
        }

    return draw_lines(
        [
            ("Error", "T", "RMSE of raw", pairs(lambda raw: float(np.sqrt(np.mean((raw - reference) ** 2))))),
            ("Rank", "T", "1 - Spearman", pairs(lambda raw: 1 - spearman(raw, reference))),
            (
                "Time", "T", "CPU ms a face",
                {
                    "sampled": [(t, one.milliseconds) for t, one in zip(passes, sampled, strict=True)],
                    "closed form": [(t, max(closed.milliseconds, 1e-3)) for t in ends],
                },
            ),
        ],
        plot, logarithmic=True,
    )  # fmt: skip


def spearman(first: Array, second: Array) -> float:
    """Spearman's rank correlation; ties are not expected and keep their order."""
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    sys.exit(main())
