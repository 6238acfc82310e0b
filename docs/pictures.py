"""Draws the pictures of these pages and writes the table of good and bad examples into measures.md.

python docs/pictures.py            (needs `.[cpu,demo]` and matplotlib; about two minutes)

The person is Eileen Collins, by NASA, in the public domain: the portrait that scikit-image calls `astronaut`. The
tracks are those of `streamgate demo`; the bad examples are made from the portrait by the functions below.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import av
import cv2
import matplotlib
import numpy as np
from matplotlib import pyplot
from skimage import data

from streamgate import Gate
from streamgate.cli import call
from streamgate.config import load_config
from streamgate.demo import write_demo_clip
from streamgate.measures import built_in_measures

matplotlib.use("Agg")
HERE = Path(__file__).parent
IMAGES = HERE / "images"
GREEN, RED, GREY, INK = "#2e9d5b", "#c8503c", "#9aa3ad", "#22303c"

LEFT_EYE, RIGHT_EYE, MOUTH = np.array([203.4, 100.6]), np.array([247.0, 103.0]), np.array([223.0, 140.0])
HEAD = np.array([224.0, 118.0])
SHOWN = (slice(18, 222), slice(122, 326))
"""The part of the portrait that the examples show: rows, columns."""


# Changes to the portrait, RGB uint8 (512, 512, 3)


def bend(picture: Any, centre: Any, radius: Any, stretch: Any = (1, 1), shift: Any = (0, 0)) -> Any:
    """Stretch and shift the content of an ellipse; the change fades towards the edge."""
    height, width = picture.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    dx, dy = x - centre[0], y - centre[1]
    inside = np.clip(1 - (dx / radius[0]) ** 2 - (dy / radius[1]) ** 2, 0, 1)
    inside = inside * inside * (3 - 2 * inside)
    from_x = centre[0] + (dx - shift[0] * inside) / (1 + (stretch[0] - 1) * inside)
    from_y = centre[1] + (dy - shift[1] * inside) / (1 + (stretch[1] - 1) * inside)
    return cv2.remap(
        picture, from_x.astype(np.float32), from_y.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )


def turn(picture: Any, yaw: float = 0.0, pitch: float = 0.0, depth: float = 46.0) -> Any:
    """Turn the head, modelled as half an ellipsoid in front of the background, by angles in degrees."""
    height, width = picture.shape[:2]
    x, y = np.meshgrid(np.arange(width) - HEAD[0], np.arange(height) - HEAD[1])
    aside, up = np.radians([yaw, pitch])
    u, v = x.copy(), y.copy()
    for _ in range(40):  # Fixed-point iteration: find the position that each pixel comes from.
        radius = (u / 56) ** 2 + (v / 76) ** 2
        z = depth * np.sqrt(np.clip(1 - radius / 1.6, 0, 1))
        fade = np.clip(1.9 - radius, 0, 1)
        u = 0.5 * u + 0.5 * (x - (u * np.cos(aside) + z * np.sin(aside) - u) * fade)
        v = 0.5 * v + 0.5 * (y - (v * np.cos(up) - z * np.sin(up) - v) * fade)
    return cv2.remap(
        picture, (u + HEAD[0]).astype(np.float32), (v + HEAD[1]).astype(np.float32), cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT,
    )  # fmt: skip


def both_eyes(picture: Any, offset: Any, radius: Any, stretch: Any = (1, 1), shift: Any = (0, 0)) -> Any:
    for eye in (LEFT_EYE, RIGHT_EYE):
        picture = bend(picture, eye + offset, radius, stretch, shift)
    return picture


def at_rest(portrait: Any) -> Any:
    """The portrait with a smaller smile: the good example for all measures."""
    closed = bend(portrait, MOUTH + np.array([0, 1]), (30, 17), (0.9, 0.35))
    return bend(closed, MOUTH, (40, 20), (0.95, 0.9))


def eyes_shut(picture: Any) -> Any:
    """Draw skin of the upper lids over the eyes, and a line of lashes."""
    made = picture.astype(np.float32)
    for eye in (LEFT_EYE, RIGHT_EYE):
        x, y = (round(float(v)) for v in eye)
        skin = np.median(picture[y + 12 : y + 16, x - 6 : x + 6].reshape(-1, 3), axis=0) * 0.93
        lid, lashes = (np.zeros(picture.shape[:2], np.float32) for _ in range(2))
        cv2.ellipse(lid, (x, y), (13, 6), 3, 0, 360, 1, -1, cv2.LINE_AA)
        cv2.ellipse(lashes, (x, y + 1), (11, 4), 3, 15, 165, 1, 1, cv2.LINE_AA)
        for mask, colour, share in ((lid, skin, 1.0), (lashes, np.array([70.0, 42, 38]), 0.8)):
            soft = cv2.GaussianBlur(mask, (0, 0), 1.3 if mask is lid else 0.7)[..., None] * share
            made = made * (1 - soft) + colour * soft
    return made.clip(0, 255).astype(np.uint8)


def masked(picture: Any) -> Any:
    over = picture.copy()
    outline = np.array([[190, 122], [224, 116], [256, 125], [254, 150], [228, 168], [197, 148]], np.int32)
    cv2.fillPoly(over, [outline], (120, 160, 200), cv2.LINE_AA)
    return over


def drawn(picture: Any) -> Any:
    """Flat areas of few colours with dark outlines."""
    flat = picture
    for _ in range(6):
        flat = cv2.bilateralFilter(flat, 9, 40, 7)
    light = cv2.GaussianBlur(cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY), (0, 0), 1.2)
    lines = cv2.adaptiveThreshold(light, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 11, 5)
    few = (flat // 36 * 36 + 18).astype(np.uint8)
    return np.where(lines[..., None] > 0, few, few // 4).astype(np.uint8)


def noisy(picture: Any, deviation: float) -> Any:
    noise = np.random.default_rng(0).normal(0, deviation, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def compressed(picture: Any) -> Any:
    return cv2.imdecode(cv2.imencode(".jpg", cv2.GaussianBlur(picture, (0, 0), 1.0), [1, 9])[1], 1)


def rolled(picture: Any) -> Any:
    matrix = cv2.getRotationMatrix2D(tuple(HEAD), -27, 1)
    return cv2.warpAffine(picture, matrix, (512, 512), borderMode=cv2.BORDER_REFLECT)


def examples() -> dict[str, tuple[Any, Any, str]]:
    """For each measure, a good picture, a bad picture, and what the bad picture shows."""
    rest = at_rest(data.astronaut())
    bad: dict[str, tuple[Any, str]] = {
        "serfiq": (noisy(cv2.GaussianBlur(rest, (0, 0), 2.2), 22), "blur and noise"),
        "ifqa": (compressed(rest), "JPEG at quality 9"),
        "yaw": (turn(turn(rest, yaw=33), yaw=28), "head turned"),
        "pitch": (turn(rest, pitch=-38, depth=70), "head lowered"),
        "roll": (rolled(rest), "tilted by 27 degrees"),
        "size": (cv2.resize(rest, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA), "a third of the pixels"),
        "edge": (np.ascontiguousarray(rest[:, :250]), "leaves the frame"),
        "sharpness": (cv2.GaussianBlur(rest, (0, 0), 3.0), "out of focus"),
        "exposure": (noisy((rest * 0.09).astype(np.uint8), 3), "nearly no light"),
        "occlusion": (masked(rest), "a mask"),
        "real": (drawn(rest), "a drawing"),
        "eyes": (eyes_shut(rest), "eyes shut"),
        "mouth": (bend(data.astronaut(), MOUTH + np.array([0, 3]), (33, 32), (0.95, 1.9)), "laughing"),
        "expression": (
            both_eyes(bend(data.astronaut(), MOUTH, (36, 24), (1.35, 1.25)), (0, 0), (20, 12), (1, 0.5)), "a grimace",
        ),
        "gaze": (both_eyes(rest, (0, 0), (8, 7), shift=(6, 0)), "looks aside"),
    }  # fmt: skip
    good = {"size": cv2.resize(rest, None, fx=2.2, fy=2.2, interpolation=cv2.INTER_CUBIC)}
    return {name: (good.get(name, rest), picture, what) for name, (picture, what) in bad.items()}


def shown(picture: Any) -> Any:
    """The face as the page shows it, 220 px; areas outside the picture are hatched in grey."""
    if picture.shape[0] != 512:
        way = cv2.INTER_NEAREST if picture.shape[0] < 512 else cv2.INTER_AREA
        picture = cv2.resize(picture, (512, 512), interpolation=way)
    whole = np.full((512, 512, 3), 205, np.uint8)
    rows, columns = np.mgrid[:512, :512]
    whole[(rows + columns) % 12 < 2] = 165
    whole[:, : picture.shape[1]] = picture
    return cv2.resize(whole[SHOWN], (220, 220), interpolation=cv2.INTER_AREA)


def save(path: Path, picture: Any, quality: int = 84) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])


def write_examples(gate: Gate) -> None:
    """Write the bad examples (images/measures/NAME.jpg), good.jpg, and the table in measures.md."""
    (IMAGES / "measures").mkdir(parents=True, exist_ok=True)
    limits = load_config("studio").measures
    rows = ["| measure | good | bad | what it asks |", "| --- | --- | --- | --- |"]
    found = examples()
    for spec in built_in_measures():
        good, bad, what = found[spec.name]
        line = []
        for side, picture, words in (("good", good, "neutral expression"), ("bad", bad, what)):
            file = IMAGES / "measures" / (f"{spec.name}.jpg" if side == "bad" else "good.jpg")
            save(file, shown(picture))
            face = gate.score(picture)[0]
            value = face.measures[spec.name]
            unit = {"degrees": "°", "pixels": " px"}.get(spec.unit, "")
            raw = f"{value.raw:.1f}{unit}" if unit else f"{value.raw:.3g}"
            reason = "".join(f", `{name}`" for name in spec.reasons if name in face.gate.reasons)
            alt = f"{spec.label}, {side}: {words}"
            caption = "" if side == "good" else f"<br>{words}"
            line.append(f"![{alt}](images/measures/{file.name})<br>{raw} → **{value.scalar:.0f}**{reason}{caption}")
        limit = ", ".join(f"{item.key} {limits[spec.name].limit(item.key):g}" for item in spec.limits)
        rows.append(
            f"| **`{spec.name}`**<br>weight {limits[spec.name].weight:g}<br>{limit} | {line[0]} | {line[1]} | "
            f"{spec.purpose} |"
        )
    page = HERE / "measures.md"
    text = re.sub(
        r"(<!-- examples:begin -->\n).*(<!-- examples:end -->)",
        lambda match: match[1] + "\n".join(rows) + "\n" + match[2], page.read_text(encoding="utf-8"), flags=re.S,
    )  # fmt: skip
    page.write_text(text, encoding="utf-8")


# A track over time


def run(clip: Path, out: Path, *options: str) -> list[dict[str, Any]]:
    """The candidates of the first track."""
    if call(["run", str(clip), "-o", str(out), "--quiet", *options]) != 0:
        sys.exit(f"the run into {out} failed")
    (path,) = out.glob("*/candidates.jsonl.gz")
    with gzip.open(path, "rt") as lines:
        faces = [line for line in map(json.loads, lines) if line["track_id"] == 1]
    return sorted(faces, key=lambda face: face["pts_seconds"])


def frames_at(clip: Path, seconds: list[float]) -> list[Any]:
    with av.open(str(clip)) as container:
        frames = {round(frame.time * 25): frame for frame in container.decode(video=0) if frame.time < 9}
        return [frames[round(time * 25)].to_ndarray(format="rgb24") for time in seconds]


def draw_track(clip: Path, out: Path, chosen: list[dict[str, Any]], every: list[dict[str, Any]]) -> None:
    """Write images/track.jpg: frames of the track, its quality over time, and the face that was kept."""
    lines = map(json.loads, (out / "faces.jsonl").read_text().splitlines())
    kept = next(line for line in lines if line["track_id"] == 1)
    best = kept["pts_seconds"]
    near = {round(face["pts_seconds"] * 25): face for face in every}
    moments = sorted([0.4, 2.2, 3.2, 4.5, 7.4, best, 8.6])
    figure = pyplot.figure(figsize=(11.2, 4.7), dpi=120)
    grid = figure.add_gridspec(2, 28, height_ratios=(1, 1.45), hspace=0.16, wspace=1.2, left=0.05, right=0.99,
                               top=0.94, bottom=0.11)  # fmt: skip
    for index, (time, frame) in enumerate(zip(moments, frames_at(clip, moments), strict=True)):
        axes = figure.add_subplot(grid[0, index * 4 : index * 4 + 4])
        face = near.get(round(time * 25))
        won = time == best
        title, colour = f"{time:.1f} s", GREY
        if face is not None:
            reasons = face["gate"]["reasons"]
            colour = GREEN if won else RED if reasons else GREY
            x1, y1, x2, y2 = (round(v) for v in face["box"])
            rgb = tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))
            cv2.rectangle(frame, (x1, y1), (x2, y2), rgb, 8)
            title += f"  {WORDS[main_reason(reasons)]}" if reasons else f"  {face['quality']:.0f}"
        axes.imshow(cv2.resize(frame[:, 100:860], (380, 360), interpolation=cv2.INTER_AREA))
        axes.set_title(title + ("  kept" if won else ""), fontsize=9.5, color=colour if colour != GREY else INK, pad=3)
        axes.axis("off")
    axes = figure.add_subplot(grid[1, :20])
    all_times = [face["pts_seconds"] for face in every]
    passed = [face["quality"] if face["gate"]["passed"] else np.nan for face in every]
    failed = [face["quality"] if not face["gate"]["passed"] else np.nan for face in every]
    axes.plot(all_times, passed, color=GREEN, lw=1.3, label="passes the gate")
    axes.plot(all_times, failed, color=RED, lw=1.3, label="rejected")
    cheap = [face["pts_seconds"] for face in chosen if face["quality"] is None]
    axes.plot(cheap, [2] * len(cheap), "|", color=GREY, ms=8, label="prescored: pixels and expression only")
    scored = [face for face in chosen if face["quality"] is not None]
    axes.plot([face["pts_seconds"] for face in scored], [face["quality"] for face in scored], "o", color=INK, ms=6,
              label="scored in full")  # fmt: skip
    axes.plot([best], [kept["quality"]], "*", color=GREEN, ms=18, mec="white", label="kept")
    axes.set(xlim=(-0.1, 9), ylim=(0, 75), xlabel="seconds", ylabel="quality")
    axes.legend(loc="upper left", ncols=5, fontsize=8.5, frameon=False, handletextpad=0.4, columnspacing=1.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes = figure.add_subplot(grid[1, 21:])
    picture = cv2.imread(str(out / kept["image"]))[..., ::-1]
    axes.imshow(cv2.resize(picture, (400, 400), interpolation=cv2.INTER_AREA))
    axes.set_title(f"kept: quality {kept['quality']:.0f}", fontsize=10, color=GREEN, pad=4)
    axes.axis("off")
    finish(figure, "track.jpg")


def draw_measures(every: list[dict[str, Any]]) -> None:
    """Write images/measures.jpg: the scalar of each measure in each frame of the track."""
    names = [spec.name for spec in built_in_measures()]
    times = np.array([face["pts_seconds"] for face in every])
    table = np.full((len(names), round(times.max() * 25) + 1), np.nan)
    for face in every:
        for row, name in enumerate(names):
            scalar = face["measures"][name]["scalar"]
            table[row, round(face["pts_seconds"] * 25)] = np.nan if scalar is None else scalar
    figure, axes = pyplot.subplots(figsize=(11.2, 3.7), dpi=110)
    shades = axes.imshow(table, aspect="auto", cmap="RdYlGn", vmin=0, vmax=100, interpolation="nearest",
                         extent=(0, table.shape[1] / 25, len(names) - 0.5, -0.5))  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("seconds of the track")
    axes.tick_params(length=0)
    figure.colorbar(shades, ax=axes, pad=0.01, label="scalar")
    figure.tight_layout()
    finish(figure, "measures.jpg")


def finish(figure: Any, name: str) -> None:
    figure.savefig(IMAGES / name, facecolor="white", pil_kwargs={"quality": 84})
    pyplot.close(figure)


WORDS = {name: words for spec in built_in_measures() for name, words in spec.reasons.items()}


def main_reason(reasons: list[str]) -> str:
    """The reason in the title of a rejected face: darkness and blur cause other reasons, so they take precedence."""
    return next((name for name in ("dark", "blurred") if name in reasons), reasons[0])


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with Gate() as gate:
        write_examples(gate)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_demo_clip(clip, data.astronaut())
        out = Path(folder) / "out"
        chosen = run(clip, out)
        every = run(clip, Path(folder) / "every", "--set", "exhaustive=true")
        draw_track(clip, out, chosen, every)
        draw_measures(every)


if __name__ == "__main__":
    main()
