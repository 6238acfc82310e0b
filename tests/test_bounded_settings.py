"""Configuration text from anybody costs one line: as a preset, behind `--set`, as streams.toml."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from streamgate.config import load_config
from streamgate.errors import UsageError
from streamgate.service.settings import read_settings
from streamgate.toml_text import MAX_DEPTH, parse_toml
from support.command import inside
from support.hostile_settings import BAD_FILES, VALUES, BadFile

LINE = 800


def one_line(message: str) -> bool:
    return "\n" not in message and message.isprintable() and len(message) < LINE


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.what)
def test_a_preset_that_is_none(tmp_path: Path, bad: BadFile) -> None:
    path = tmp_path / "mine.toml"
    bad.put(path)
    with pytest.raises(UsageError, match=bad.words or None) as caught:
        load_config(str(path))
    assert one_line(str(caught.value)) and str(path) in str(caught.value)


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.what)
def test_a_file_of_streams_that_is_none(tmp_path: Path, bad: BadFile) -> None:
    path = tmp_path / "streams.toml"
    bad.put(path)
    with pytest.raises(UsageError, match=bad.words or None) as caught:
        read_settings(config_file=path)
    assert one_line(str(caught.value)) and str(path) in str(caught.value)


@pytest.mark.parametrize("text", VALUES.values(), ids=VALUES.keys())
@pytest.mark.parametrize("key", ["measures.yaw.max", "keep.fallback", "measures.yaw.use"])
def test_a_setting_that_nothing_can_hold(key: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config("studio", [f"{key}={text}"])
    assert one_line(str(caught.value))


@pytest.mark.parametrize("text", VALUES.values(), ids=VALUES.keys())
def test_a_setting_of_a_stream_that_nothing_can_hold(tmp_path: Path, text: str) -> None:
    path = tmp_path / "streams.toml"
    path.write_text(f'[streams.a]\nurl = "rtsp://ann:pw12345@h/1"\nset = {{ "measures.yaw.max" = {text} }}\n')
    with pytest.raises(UsageError) as caught:
        read_settings(config_file=path)
    assert one_line(str(caught.value)) and "pw12345" not in str(caught.value)


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    for arguments in (
        ["run", "x.mp4", "--set", f"measures.yaw.max={'1' * 10_000}"],
        ["run", "x.mp4", "--preset", "/dev/zero"],
        ["serve", "--config", "/dev/zero"],
        ["serve", "--rtsp", "rtsp://h/1", "--set", "live.stall_s=1979-05-27"],
    ):
        done = inside(*arguments)
        assert done.code == 2 and "Traceback" not in done.err
        (line,) = done.err.strip().splitlines()
        assert len(line) < LINE


def test_presets_that_extend_each_other_without_end_are_refused(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"p{number}.toml").write_text(f'extends = "{tmp_path}/p{number + 1}.toml"\n')
    with pytest.raises(UsageError, match="chain of extends is longer"):
        load_config(str(tmp_path / "p0.toml"))


def test_a_long_list_of_wrong_values_is_told_in_part() -> None:
    with pytest.raises(UsageError, match=r"and \d+ more") as caught:
        load_config("studio", [f"output.crops=[{', '.join(['9'] * 10_000)}]"])
    assert one_line(str(caught.value))


def test_more_streams_than_a_service_takes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "streams.toml"
    path.write_text("".join(f"[streams.s{number}]\nurl = 'rtsp://h/1'\n" for number in range(3000)))
    with pytest.raises(UsageError, match="3000 streams"):
        read_settings(config_file=path)


def test_what_is_sound_is_read(tmp_path: Path) -> None:
    deep = "[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH
    text = f"a.b.c.d = 1.5 # {'.'.join('x' * 14)}\nlist = [{', '.join(['0.5'] * 100)}]\ndeep = {deep}\n"
    tree = parse_toml(f"{text}'k.e'.y = {2**62}\n", "it")
    assert tree["a"]["b"]["c"]["d"] == 1.5 and len(tree["list"]) == 100 and tree["k.e"]["y"] == 2**62


def test_random_texts_end_in_settings_or_one_line(tmp_path: Path) -> None:
    rng = random.Random(5)
    whole = (Path(__file__).parents[1] / "pipelines" / "studio.toml").read_text()
    pieces = [*"[]{}=.'\"#,\n", "1979-05-27", "9" * 5000, "nan", "true", "\\u0000"]
    path = tmp_path / "mine.toml"
    for _ in range(150):
        text = whole
        for _ in range(rng.randint(1, 4)):
            index = rng.randrange(len(text))
            text = text[:index] + rng.choice(pieces) * rng.choice((1, 2, 50)) + text[index + rng.choice((0, 1, 9)) :]
        path.write_text(text)
        try:
            load_config(str(path))
        except UsageError as error:
            assert one_line(str(error)), error
