"""Texts and facts about measures for the pages."""

from streamgate.config import load_config
from streamgate.measures.vocabulary import vocabulary


def in_use(config):
    return {measure["name"] for measure in vocabulary(config.specs)["measures"] if measure["use"]}


def test_the_pages_know_which_measures_belong_to_the_set():
    studio = in_use(load_config())
    assert {"mouth", "expression", "gaze", "yaw", "real"} <= studio
    assert "live" not in studio
    assert studio - in_use(load_config("live")) == {"mouth", "expression", "gaze"}
    assert "sharpness" not in in_use(load_config(settings=["measures.sharpness.use=false"]))
