"""Draws docs/picture.png: a clip made from scikit-image's astronaut, run through the gate, with what it kept.

python docs/picture.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from streamgate import Gate
from streamgate.sources import picture_of_rgb
from support.media import astronaut, write_clip

HEIGHT, WIDTH = 300, 400
GREEN, GREY, WHITE = (60, 170, 90), (90, 96, 104), (255, 255, 255)


def frames() -> list[np.ndarray]:
    """A head that comes in blurred, turns bright and leaves: what a gate has to choose from."""
    picture = astronaut()
    made = []
    for index in range(75):
        time = index / 74
        scale = 1.25 + 0.5 * np.sin(np.pi * time)
        matrix = np.array([[scale, 0, 320 - 225 * scale + 120 * (time - 0.5)], [0, scale, 200 - 120 * scale]])
        frame = cv2.warpAffine(picture, matrix, (640, 480), borderMode=cv2.BORDER_REFLECT)
        blur = 6 * abs(time - 0.55)
        if blur > 0.3:
            frame = cv2.GaussianBlur(frame, (0, 0), blur)
        made.append(np.clip(frame * (0.55 + 0.45 * np.sin(np.pi * time)), 0, 255).astype(np.uint8))
    return made


def label(
    image: np.ndarray, text: str, position: tuple[int, int], colour: tuple[int, int, int], size: float = 0.5
) -> None:
    cv2.putText(image, text, position, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def main() -> None:
    shown = frames()
    with tempfile.TemporaryDirectory() as folder, Gate() as gate:
        clip = write_clip(Path(folder) / "clip.mp4", shown)
        (shot,) = gate.run(clip)
        strip = []
        for index in (6, round(shot.pts_seconds * 25), 70):
            kept = index == round(shot.pts_seconds * 25)
            frame = shown[index].copy()
            faces = gate.score(picture_of_rgb(frame).thumbnail(640))
            for face in faces[:1]:
                x1, y1, x2, y2 = face.face.box.astype(int)
                cv2.rectangle(frame, (x1, y1), (x2, y2), GREEN if kept else (200, 80, 70), 3)
                reasons = ", ".join(face.gate.reasons)
                text = f"quality {face.quality:.0f}" if face.gate.passed else reasons
                label(frame, text, (x1, y1 - 10), WHITE, 0.7)
            strip.append(cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
    panel = np.full((HEIGHT, 300, 3), 250, np.uint8)
    label(panel, f"track 1, {shot.pts_seconds:.2f} s, quality {shot.quality:.0f}", (12, 28), (20, 20, 20), 0.55)
    rows = [(name, measure.scalar) for name, measure in shot.measures.items() if measure.scalar is not None]
    for number, (name, scalar) in enumerate(rows):
        y = 60 + number * 26
        label(panel, name, (12, y), GREY, 0.45)
        cv2.rectangle(panel, (110, y - 11), (110 + int(1.4 * 120), y + 1), (225, 228, 232), -1)
        cv2.rectangle(panel, (110, y - 11), (110 + int(1.4 * 1.2 * scalar), y + 1), GREEN, -1)
    kept = cv2.resize(shot.image, (HEIGHT, HEIGHT), interpolation=cv2.INTER_AREA)
    gap = np.full((HEIGHT, 12, 3), 255, np.uint8)
    sheet = np.hstack([strip[0], gap, strip[1], gap, strip[2], gap, gap, kept, panel])
    cv2.imwrite(str(Path(__file__).with_name("picture.png")), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
