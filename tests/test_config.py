"""Presets, `--set` and what wrong keys and values get."""

from __future__ import annotations

import tomllib

import pytest

from streamgate.config import Config, load_config, preset_names, presets_folder, stored_config
from streamgate.errors import UsageError
from streamgate.measures import built_in_measures
from streamgate.sources.base import MAX_PIXELS


def test_every_preset_loads() -> None:
    assert preset_names() == ["archive", "live", "studio"]
    for name in preset_names():
        assert isinstance(load_config(name), Config)


def test_studio_names_every_key_so_that_it_can_be_read_and_copied() -> None:
    written = tomllib.loads((presets_folder() / "studio.toml").read_text())
    assert load_config("studio").model_dump(mode="json", exclude={"measures"}) == written


def test_every_measure_has_its_table_with_the_values_of_its_spec() -> None:
    tables = load_config("studio").model_dump(mode="json")["measures"]
    assert list(tables) == [spec.name for spec in built_in_measures()]
    assert tables["yaw"] == {"use": True, "weight": 2.0, "max": 20.0, "x0": 12.9, "w": 3.6}
    assert tables["size"] == {"use": True, "weight": 0.3, "min": 0.1, "x0": 70.0, "w": 20.0}


def test_the_limit_of_pixels_without_a_configuration_is_that_of_the_presets() -> None:
    assert load_config("studio").decoding.max_pixels == MAX_PIXELS
    assert load_config("live").live.max_pixels == 8192 * 4608


def test_named_flag_beats_set_beats_preset() -> None:
    assert load_config("live").measures.yaw.max == 35
    assert load_config("live", ["measures.yaw.max=20"]).measures.yaw.max == 20
    flags = {"measures.yaw.max": 10, "keep.top_k": None}
    assert load_config("live", ["measures.yaw.max=20"], flags).measures.yaw.max == 10


def test_text_values_need_no_quotes() -> None:
    assert load_config("studio", ["keep.fallback=best"]).keep.fallback == "best"
    assert load_config("studio", ['keep.fallback="best"']).keep.fallback == "best"


def test_own_preset_may_be_partial(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "live"\n[measures.pitch]\nmax = 11\n')
    config = load_config(str(path))
    assert (config.measures.pitch.max, config.measures.yaw.max, config.keep.fallback) == (11, 35, "best")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("measures.yaw.mox=3", "measures.yaw.max"),
        ("yaw.max=3", "measures.yaw.max"),
        ("max_pitch=3", "measures.pitch.max"),
        ("lookback_s=3", "advanced.lookback_s"),
        ("measures.yaw.max=300", "<= 90"),
        ("measures.yaw.max=wide", "number"),
        ("measures.yaw.max=nan", "finite"),
        ("keep.fallback=worst", "'none' or 'best'"),
        ("smoothing.short_s=9", "short_s (9.0) must be <= long_s (2.0)"),
        ("advanced.low_score=0.9", "low_score <= high_score"),
        ("advanced.min_long_side=2000", "max_long_side (1280)"),
        ("advanced.lookback_s=0.1", "detection.interval_s (0.4)"),
        ("measures.yaw.max=true", "does not accept true or false"),
        ("measures.beauty.use=true", "no key 'measures.beauty.use'"),
        ("measures.yaw.use=maybe", "measures.yaw.use"),
        ("measures.ifqa.max=10", "no key 'measures.ifqa.max'"),
        ("measures.yaw.max", "key=value"),
        ("gate=3", "no key 'gate'"),
    ],
)
def test_wrong_settings_name_the_remedy(setting: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config("studio", [setting])
    assert expected in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[gate\n", "not valid TOML"),
        ("[measures.yaw]\nmox = 3\n", "measures.yaw.max"),
        ('extends = "stdio"\n', "did you mean studio"),
        ("extends = 3\n", "extends must be"),
        ("gate = 3\n", "no key 'gate'"),
    ],
)
def test_wrong_preset_files_name_the_remedy(tmp_path, text: str, expected: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config(str(path))
    assert expected in str(caught.value)


def test_a_preset_that_extends_itself_is_refused(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = "{path}"\n')
    with pytest.raises(UsageError, match="extends itself"):
        load_config(str(path))


def test_unknown_preset_and_missing_file() -> None:
    with pytest.raises(UsageError, match="did you mean studio"):
        load_config("stduio")
    with pytest.raises(UsageError, match="there is no preset"):
        load_config("/nowhere/mine.toml")


def test_without_a_measure_that_weighs_something_there_is_nothing_to_rank_by() -> None:
    idle = [f"measures.{spec.name}.use=false" for spec in built_in_measures() if spec.name != "roll"]
    with pytest.raises(UsageError, match="weight above 0"):
        load_config("studio", [*idle, "measures.roll.weight=0"])
    assert load_config("studio", [*idle, "measures.roll.weight=1"]).measures.used == ("roll",)


def test_a_stored_configuration_keeps_its_set_whatever_measures_came_since() -> None:
    stored = load_config("live", ["measures.ifqa.use=false"]).model_dump(mode="json")
    assert stored_config(stored) == load_config("live", ["measures.ifqa.use=false"])
    del stored["measures"]["eyes"]
    assert "eyes" not in stored_config(stored).measures.used


def test_with_all_poses_turned_heads_are_no_fault_unless_somebody_says_so() -> None:
    everywhere = load_config("studio", ["keep.poses=all", "measures.pitch.max=30"])
    assert (everywhere.measures.yaw.max, everywhere.measures.yaw.weight) == (90, 0)
    assert (everywhere.measures.pitch.max, everywhere.measures.pitch.weight) == (30, 0)
