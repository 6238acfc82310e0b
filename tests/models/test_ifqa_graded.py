"""Series of one degradation, bare and under a veil, and the losses that put them in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("av")

from models.ifqa.films import CRFS, build_films  # noqa: E402
from models.ifqa.graded import MILD_NOISE, GradedSizes, draw_series, film_series  # noqa: E402
from models.ifqa.losses import VEIL_FLOOR, anchor_loss, veil_loss  # noqa: E402

SIZES = GradedSizes(groups=2, faces=2, severities=3)


@pytest.fixture(scope="module")
def drawn(face: np.ndarray) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    return [draw_series([face] * 4, SIZES, rng) for _ in range(12)]


def test_every_series_has_a_veiled_twin_with_its_clean_face_in_front(drawn: list[dict[str, np.ndarray]]) -> None:
    for batch in drawn:
        assert batch["graded"].shape == (12, 256, 256, 3) and batch["veiled"].shape == (16, 256, 256, 3)
        bare = batch["graded"].reshape(4, 3, -1).astype(float)
        under = batch["veiled"].reshape(4, 4, -1).astype(float)
        # A picture of a series is nearer to its own twin than to the veiled clean face, or no farther.
        own = np.abs(under[:, 3] - bare[:, 2]).mean(axis=1)
        other = np.abs(under[:, 0] - bare[:, 2]).mean(axis=1)
        assert np.mean(own <= other) >= 0.5


def test_each_series_gets_the_requested_draws_of_veils_and_indices_of_its_bare_pictures(face: np.ndarray) -> None:
    sizes = GradedSizes(groups=1, faces=2, severities=3, veils=2)
    batch = draw_series([face] * 2, sizes, np.random.default_rng(3))
    assert batch["graded"].shape[0] == 6 and batch["veiled"].shape[0] == 2 * 2 * 4
    assert batch["graded_veiled_of"].tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]


def test_severities_ascend_and_forgiven_noise_is_in_no_series(drawn: list[dict[str, np.ndarray]]) -> None:
    for batch in drawn:
        severities = batch["graded_t"].reshape(-1, 3)
        assert (np.diff(severities) > 0).all() and severities.min() >= 0 and severities.max() <= 1
    assert 0 < MILD_NOISE < 0.3


def test_what_does_not_compare_across_faces_has_groups_of_its_own(drawn: list[dict[str, np.ndarray]]) -> None:
    own_groups = 0
    for batch in drawn:
        names = ("graded_line", "graded_span", "graded_group", "graded_face")
        for line, span, group, face in zip(*(batch[name] for name in names), strict=True):
            if not line and span < 0.6:
                assert group == SIZES.groups + face
                own_groups += 1
    assert own_groups


def test_films_get_coarser_level_by_level(tmp_path: Path, face: np.ndarray) -> None:
    faces = np.stack([face, face[:, ::-1]])
    films = build_films(faces, np.arange(2), 2, tmp_path, seed=3)
    assert films.shape == (2, 1 + len(CRFS), 256, 256, 3)
    lost = np.abs(films[:, 1:].astype(float) - films[:, :1]).mean(axis=(2, 3, 4))
    assert (np.diff(lost, axis=1) > 0).all()
    clean, pictures, severities = film_series(films, 3, np.random.default_rng(0))
    assert severities == sorted(severities) and len(pictures) == 3
    assert any(np.array_equal(clean, f) or np.array_equal(clean, f[:, ::-1]) for f in films[:, 0])
    # The second call takes what the first one coded.
    assert np.array_equal(build_films(faces, np.arange(2), 2, tmp_path, seed=3), films)


def test_a_veil_costs_where_it_lifts_the_score_and_pulls_only_the_veiled_score_down() -> None:
    bare = torch.tensor([0.0, 0.0], requires_grad=True)
    veiled = torch.tensor([1.0, -1.0], requires_grad=True)
    veil_loss(bare, veiled).backward()
    assert bare.grad is None and veiled.grad[0] > 10 * veiled.grad[1] > 0
    ruined = torch.tensor([VEIL_FLOOR - 3])
    assert veil_loss(ruined, ruined + 2) < 0.1 * veil_loss(torch.zeros(1), torch.full((1,), 2.0))


def test_the_line_binds_only_those_it_is_said_of() -> None:
    score, severity = torch.tensor([1.0, 9.0]), torch.tensor([0.0, 0.0])
    assert anchor_loss(score, severity, 1.0, 5.0, torch.tensor([1.0, 0.0])) == 0
    assert anchor_loss(score, severity, 1.0, 5.0, torch.tensor([0.0, 1.0])) > 5
