"""Texts and facts about measures for the pages."""

from streamgate.config import load_config
from streamgate.measures.vocabulary import vocabulary


def counting(config):
    return {measure["name"] for measure in vocabulary(config.specs)["measures"] if measure["counts"]}


def test_measures_outside_the_set_or_without_a_weight_do_not_count():
    studio = counting(load_config())
    assert {"mouth", "expression", "gaze", "yaw"} <= studio
    assert "live" not in studio, "a measure that only has a limit"
    assert studio - counting(load_config("live")) == {"mouth", "expression", "gaze"}
    turned = counting(load_config(settings=["keep.poses=all"]))
    assert not turned & {"yaw", "pitch", "roll"}
    assert "sharpness" not in counting(load_config(settings=["measures.sharpness.use=false"]))
