"""The recipe of the head `visible`: covers hide what they say, the run leaves all else of the network as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("skimage")

from models.common.images import DataError  # noqa: E402
from models.expression.architecture import ExpressionNetwork  # noqa: E402
from models.expression.batches import Augmentation  # noqa: E402
from models.expression.covered import CoveredBatches, Seen, Share, draw_hand, face_key  # noqa: E402
from models.expression.covers import KINDS, cell_means, covered_share, draw, face_weights, paste  # noqa: E402
from models.expression.cutouts import cut_hand  # noqa: E402
from models.expression.dataset import CANVAS, FaceSet, prepare  # noqa: E402
from models.expression.head import HeadSettings, HeadTrainer  # noqa: E402
from models.expression.smoke import synthetic_bank, synthetic_crops  # noqa: E402
from streamgate.networks.alignment import EXPRESSION_SIZE  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
STILL = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
SHARE = Share(covered=0.5, twice=0.2, real=0.0, seen=0.0, shadow=0.0)
OUTPUTS = ["pose", "signals", "points"]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    folder = tmp_path_factory.mktemp("faces")
    synthetic_crops(folder / "crops")
    return prepare([folder / "crops/synthetic"], folder / "aligned")


def batches(faces: FaceSet, **changes: object) -> CoveredBatches:
    what = {"share": SHARE, "bank": synthetic_bank(), "masks": {}, "seen": Seen()} | changes
    return CoveredBatches(faces, np.arange(len(faces)), 8, STILL, 3, **what)


def visible(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "STREAMGATE_WORK"}
    command = [sys.executable, "-W", "ignore", str(ROOT / "models/expression/visible.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_smoke_run_changes_the_head_alone_and_resumes(tmp_path: Path) -> None:
    first = visible("--smoke", "--work", tmp_path, "--threads", "1")
    assert first.returncode == 0, first.stderr
    made = {path.name for path in (tmp_path / "smoke").iterdir()}
    assert made == {"expression.onnx", "card.json", "expression_warm.pth"}
    card = json.loads((tmp_path / "smoke/card.json").read_text())
    assert card["visible"]["training_steps"] == 6 and card["outputs"] == [*OUTPUTS, "visible", "real"]
    before = torch.load(ROOT / "models/expression/expression_warm.pth", weights_only=True)["network"]
    after = torch.load(tmp_path / "smoke/expression_warm.pth", weights_only=True)["network"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("visible.") for name in changed)
    newest = sorted((tmp_path / "visible").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    again = visible("--smoke", "--work", tmp_path, "--threads", "1")
    assert again.returncode == 0, again.stderr
    assert f"refused {newest.name}" in again.stdout and "at step 3 of 6" in again.stdout


def test_without_covers_it_says_how_to_get_them(tmp_path: Path) -> None:
    run = visible("--work", tmp_path)
    assert run.returncode == 2
    assert "cutouts.py" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_cover_hides_the_pixels_that_its_layer_says(faces: FaceSet, kind: str) -> None:
    placed = batches(faces)._placed(0, np.random.default_rng(1))
    weights = face_weights(placed.points)
    shares = []
    for seed in range(12):
        layer = draw(placed.crop, placed.points, np.random.default_rng(seed), synthetic_bank(), kind)
        assert layer.alpha.shape == EXPRESSION_SIZE and layer.alpha.min() >= 0 and layer.alpha.max() <= 1 + 1e-5
        changed = np.abs(paste(placed.crop, layer).astype(int) - placed.crop).max(axis=2) > 0
        assert not changed[layer.alpha == 0].any()
        shares.append(covered_share(layer.alpha, weights))
    assert min(shares) >= 0 and 0.02 < max(shares) <= 1


def test_eyes_and_mouth_count_most_and_what_is_beside_the_face_nothing(faces: FaceSet) -> None:
    weights = face_weights(batches(faces)._placed(0, np.random.default_rng(1)).points)
    assert set(np.unique(weights)) <= {np.float32(share) for share in (0, 0.4, 1, 2, 3)}
    assert weights[0, 0] == 0 and weights.max() == 3
    assert cell_means(weights).shape == (9, 8)


def test_batches_follow_from_seed_and_step_and_the_cells_tell_the_covered_share(faces: FaceSet) -> None:
    one, same = batches(faces)[4], batches(faces)[4]
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["face"], batches(faces)[5]["face"])
    assert 0 < (one["covered"] > 0).sum() < 8
    assert (one["cells"][one["covered"] == 0] == 0).all()
    assert all(one["cells"][i].max() > 0 for i in np.nonzero(one["covered"] > 0)[0])


def test_a_real_hand_hides_what_it_lies_over(faces: FaceSet) -> None:
    mask = np.zeros(CANVAS, np.uint8)
    fingers = [[(70 + 12 * f, 150 - 10 * j) for j in range(1, 5)] for f in range(5)]
    draw_hand(mask, np.array([(94, 180), *[joint for finger in fingers for joint in finger]], float))
    assert mask[150, 94] and not mask[20, 20]
    only_real = Share(covered=0.0, twice=0.0, real=1.0, seen=0.0, shadow=0.0)
    batch = batches(faces, share=only_real, masks={0: mask})[0]
    assert (batch["covered"] > 0.02).all() and (batch["cells"][:, 0] < 0.05).all()


def test_what_somebody_saw_to_be_covered_is_never_bare_and_counts_as_covered_at_least(faces: FaceSet) -> None:
    keys = [face_key(faces, i) for i in range(len(faces))]
    assert len(set(keys)) == len(keys)
    seen = Seen(covered=frozenset(keys[:1]), unsure=frozenset(keys[1:2]), unsure_clips=frozenset({faces.clips[-1]}))
    only_seen = Share(covered=0.0, twice=0.0, real=0.0, seen=1.0, shadow=0.0)
    drawn = batches(faces, share=only_seen, seen=seen)
    assert not {0, 1, len(faces) - 1} & set(drawn.bare.tolist())
    batch = drawn[0]
    assert batch["at_least"].all() and (batch["covered"] > 0.05).all() and not batch["weight"].any()
    with pytest.raises(DataError, match="covered"):
        batches(faces, seen=Seen(covered=frozenset(keys)))


def test_the_list_of_what_somebody_saw_says_one_thing_of_a_face(tmp_path: Path) -> None:
    seen = Seen.read(ROOT / "models/expression/looked_at.toml")
    lists = (seen.covered, seen.bare, seen.unsure)
    assert min(map(len, lists)) > 100 and len(frozenset.union(*lists)) == sum(map(len, lists))
    (tmp_path / "other.toml").write_text('hidden = ["a.png"]')
    with pytest.raises(DataError, match=r"other\.toml"):
        Seen.read(tmp_path / "other.toml")


def test_a_hand_is_cut_out_of_paper_and_paper_alone_is_none() -> None:
    paper = np.full((100, 100, 3), 225, np.uint8)
    hand = paper.copy()
    hand[30:, 30:70] = (190, 140, 110)
    cut = cut_hand(hand)
    assert cut is not None and cut[60, 50, 3] == 255 and cut[10, 50, 3] == 0
    assert cut_hand(paper) is None


def test_training_leaves_the_frozen_part_alone(faces: FaceSet) -> None:
    settings = HeadSettings(steps=4, warmup=1, rate=1e-2, weight_decay=0.0, ema=0.5, cells=1.0)
    trainer = HeadTrainer(settings, 0, torch.device("cpu"), False)
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    for step in range(2):
        trainer.step(batches(faces)[step])
    after = trainer.network.state_dict()
    assert {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])} == {"visible"}
    assert isinstance(trainer.whole(), ExpressionNetwork) and int(trainer.whole().visible.steps) == 2
