"""Both shapes of IFQA behind one definition."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streamgate.convert.ifqa import (  # noqa: E402
    OFFICIAL,
    SLIM,
    Ifqa,
    IfqaScorer,
    block_transform,
    face_ellipse,
)


@pytest.fixture(scope="module")
def slim() -> Ifqa:
    torch.manual_seed(0)
    return Ifqa(SLIM).eval()


@pytest.fixture(scope="module")
def zeros() -> Ifqa:
    """The official network with every weight zero."""
    network = Ifqa(OFFICIAL).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    return network


def test_the_official_network_has_the_published_size(zeros: Ifqa) -> None:
    state = zeros.state_dict()
    assert len(state) == 122
    assert sum(t.numel() for t in state.values()) == 105_172_833


def test_all_zero_weights_give_exactly_a_half(zeros: Ifqa) -> None:
    with torch.no_grad():
        score, realness = IfqaScorer(zeros, "full")(torch.rand(1, 3, 256, 256) * 2 - 1)
    assert score.tolist() == [0.5]
    assert realness.shape == (1, 256, 256) and (realness == 0.5).all()


def test_the_block_transform_loses_nothing() -> None:
    basis = block_transform(4)
    assert basis.shape == (48, 48)
    assert np.abs(basis @ basis.T - np.eye(48)).max() < 1e-6
    # A grey block is the first coefficient alone.
    assert np.abs((basis @ np.ones(48, np.float32))[1:]).max() < 1e-5


def test_the_face_ellipse_covers_its_area() -> None:
    assert face_ellipse(64).mean() == pytest.approx(np.pi * 0.27 * 0.345, rel=0.01)
    assert face_ellipse(256)[128 + 19, 128] == 1 and face_ellipse(256)[10, 10] == 0


def test_the_score_is_the_mean_of_the_map_over_the_face(slim: Ifqa) -> None:
    picture = torch.rand(2, 3, 256, 256) * 2 - 1
    with torch.no_grad():
        realness = torch.sigmoid(slim(picture) / SLIM.temperature)[:, 0].numpy()
        score, _ = IfqaScorer(slim)(picture)
    weights = face_ellipse(64)
    assert score.numpy() == pytest.approx((realness * weights).sum((1, 2)) / weights.sum(), abs=1e-6)
