"""Presets, `--set` and what wrong keys and values get."""

from __future__ import annotations

import tomllib

import pytest

from streamgate.config import Config, load_config, preset_names, presets_folder
from streamgate.errors import UsageError
from streamgate.sources.base import MAX_PIXELS


def test_every_preset_loads() -> None:
    assert preset_names() == ["archive", "live", "studio"]
    for name in preset_names():
        assert isinstance(load_config(name), Config)


def test_studio_names_every_key_so_that_it_can_be_read_and_copied() -> None:
    written = tomllib.loads((presets_folder() / "studio.toml").read_text())
    assert load_config("studio").model_dump(mode="json", exclude={"measures": {"set"}}) == {
        **written,
        "measures": {key: value for key, value in written["measures"].items() if key != "set"},
    }


def test_the_limit_of_pixels_without_a_configuration_is_that_of_the_presets() -> None:
    assert load_config("studio").decoding.max_pixels == MAX_PIXELS
    assert load_config("live").live.max_pixels == 8192 * 4608


def test_named_flag_beats_set_beats_preset() -> None:
    assert load_config("live").gate.max_yaw == 35
    assert load_config("live", ["gate.max_yaw=20"]).gate.max_yaw == 20
    assert load_config("live", ["gate.max_yaw=20"], {"gate.max_yaw": 10, "keep.top_k": None}).gate.max_yaw == 10


def test_text_values_need_no_quotes() -> None:
    assert load_config("studio", ["keep.fallback=best"]).keep.fallback == "best"
    assert load_config("studio", ['keep.fallback="best"']).keep.fallback == "best"


def test_own_preset_may_be_partial(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "live"\n[gate]\nmax_pitch = 11\n')
    config = load_config(str(path))
    assert (config.gate.max_pitch, config.gate.max_yaw, config.keep.fallback) == (11, 35, "best")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("gate.max_yow=3", "gate.max_yaw"),
        ("max_yaw=3", "gate.max_yaw"),
        ("gate.max_yaw=300", "<= 90"),
        ("gate.max_yaw=wide", "number"),
        ("gate.max_yaw=nan", "finite"),
        ("keep.fallback=worst", "'none' or 'best'"),
        ("smoothing.short_s=9", "short_s (9.0) must be <= long_s (2.0)"),
        ("tracking.low_score=0.9", "low_score <= high_score"),
        ("detection.min_long_side=2000", "max_long_side (1280)"),
        ("candidates.lookback_s=0.1", "detection.interval_s (0.4)"),
        ("gate.max_yaw=true", "takes no true or false"),
        ("measures.set=[]", "fusion weight"),
        ('measures.set=["yaw", "yaw"]', "twice"),
        ('measures.set=["beauty"]', "beauty"),
        ("gate.max_yaw", "key=value"),
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
        ("[gate]\nmax_yow = 3\n", "gate.max_yaw"),
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
