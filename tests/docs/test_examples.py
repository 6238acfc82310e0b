"""Every `sh` and `python` block of the README and of the pages runs, on a clip of the demo.

A page's blocks run in order in a folder of its own, with the package on PATH and files of the names that examples
use: video.mp4, clip.mp4, talk.mp4, footage/, more/, frames/, portraits/, portrait.jpg, face.png, list.txt, judged.csv,
and `faces`, the results of a run, unless the page makes them itself. What cannot run is a `bash` block, or has
`<!-- not run: why -->` before it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streamgate.demo import write_demo_clip
from support.doc_pages import PAGES, blocks, name_of

cv2 = pytest.importorskip("cv2")
SECONDS = 2.0
ELSEWHERE = {"docs/gpu.md": "its commands need a card", "docs/clusters.md": "its commands need a cluster"}
"""Pages of which nothing is run."""
WITH_SHELL = [page for page in PAGES if name_of(page) not in ELSEWHERE and any(blocks(page, "sh"))]
WITH_PYTHON = [page for page in PAGES if name_of(page) not in ELSEWHERE and any(blocks(page, "python"))]


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that examples name, and `streamgate` as a program in bin/."""
    data = pytest.importorskip("skimage.data", reason="the portrait comes with scikit-image")
    folder = tmp_path_factory.mktemp("material")
    portrait = data.astronaut()
    clip = folder / "video.mp4"
    write_demo_clip(clip, portrait, seconds=SECONDS)
    for copy in ("clip.mp4", "talk.mp4", "footage/one.mp4", "more/two.mov"):
        (folder / copy).parent.mkdir(exist_ok=True)
        shutil.copy(clip, folder / copy)
    (folder / "list.txt").write_text("clip.mp4\n")
    for name in ("frames", "portraits"):
        (folder / name).mkdir()
    for number in range(12):
        softer = cv2.GaussianBlur(portrait, (0, 0), 0.3 + 0.5 * number)
        cv2.imwrite(str(folder / "frames" / f"{number:04}.jpg"), portrait[..., ::-1])
        cv2.imwrite(str(folder / "portraits" / f"{number:02}.jpg"), softer[..., ::-1])
    rows = [f"portraits/{number:02}.jpg,{12 - number}" for number in range(12)]
    (folder / "judged.csv").write_text("image,human\n" + "\n".join(rows) + "\n")
    cv2.imwrite(str(folder / "portrait.jpg"), portrait[..., ::-1])
    program = folder / "bin" / "streamgate"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m streamgate "$@"\n')
    program.chmod(0o755)
    shell(folder, "streamgate run video.mp4 -o faces --quiet", folder)
    (face,) = (folder / "faces").glob("*/track_0001/1.png")
    shutil.copy(face, folder / "face.png")
    return folder


def shell(folder: Path, script: str, material: Path) -> None:
    root = str(Path(__file__).parents[2])
    environment = os.environ | {
        "PATH": f"{material / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "HOME": str(folder),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr


def index(tmp_path: Path, material: Path, own_faces: bool) -> Path:
    unwanted = shutil.ignore_patterns("bin", "faces") if own_faces else shutil.ignore_patterns("bin")
    return Path(shutil.copytree(material, tmp_path / "here", ignore=unwanted))


@pytest.mark.parametrize("page", WITH_SHELL, ids=name_of)
def test_commands_of_the_page_run(page: Path, material: Path, tmp_path: Path) -> None:
    wanted = [block for block in blocks(page, "sh") if not block.why]
    makes = any("-o faces " in f"{line} " for block in wanted for line in block.text.splitlines())
    folder = index(tmp_path, material, makes)
    for block in wanted:
        shell(folder, block.text, material)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_python_of_the_page_runs(
    page: Path, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(index(tmp_path, material, False))
    for block in blocks(page, "python"):
        if block.why:
            continue
        names: dict[str, object] = {"__name__": "example"}
        exec(compile(block.text, f"{name_of(page)}, line {block.line}", "exec"), names)
        for name, value in list(names.items()):
            if name.startswith("test_") and callable(value):
                value()


