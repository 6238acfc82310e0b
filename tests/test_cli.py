"""The command line as a whole: help, version, start-up, completion."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from streamgate.cli import COMMANDS, cli
from support.command import inside, streamgate

NAMES = [name for names in COMMANDS.values() for name in names]
HEAVY = {"av", "cv2", "numpy", "onnxruntime", "pydantic", "redis", "rich", "torch", "pyarrow", "fastapi"}


def commands() -> dict[str, click.Command]:
    """Every command and subcommand, by the words that call it."""
    found: dict[str, click.Command] = {}
    context = click.Context(cli, info_name="streamgate")
    for name in NAMES:
        command = cli.get_command(context, name)
        assert command is not None
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {below}": one for below, one in command.commands.items()}
    return found


def test_a_bare_call_prints_the_help_and_nothing_before_it() -> None:
    for arguments in ((), ("models",)):
        bare, asked = inside(*arguments), inside(*arguments, "--help")
        assert bare.code == 2 and asked.code == 0
        assert bare.err == asked.out and bare.err.startswith("Usage: streamgate")


def test_the_version_has_a_short_option() -> None:
    assert inside("-V").out == inside("--version").out == streamgate("--version").out
    assert inside("-V").out.startswith("streamgate, version ")


def test_summaries_are_whole_and_none_is_left_out() -> None:
    shown = " ".join(inside("--help").out.split())
    for name, command in commands().items():
        if " " not in name:
            assert f"{name} {command.get_short_help_str()}" in shown
    assert "..." not in shown.replace("[ARGS]...", "")


@pytest.mark.parametrize("name", NAMES)
def test_examples_in_the_help_are_valid_calls_that_fit_into_a_terminal(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = inside(name, "--help").out
    assert max(map(len, shown.splitlines())) <= 80
    examples = [line.strip() for line in shown.partition("Examples:\n")[2].splitlines() if line.strip()]
    assert examples
    monkeypatch.setattr(click.Command, "invoke", lambda self, context: None)  # parsing only
    for example in examples:
        words = shlex.split(example, comments=True)
        for start in [index for index, word in enumerate(words) if word == "streamgate"]:
            call = words[start + 1 :]
            call = call[: min((call.index(word) for word in ("&&", ">") if word in call), default=None)]
            cli.main(call, standalone_mode=False)  # raises for what it does not understand


def test_no_command_needs_anything_heavy_to_show_its_help_or_to_complete() -> None:
    code = (
        "import sys; from streamgate.cli import cli\n"
        f"for name in {NAMES}:\n"
        "    cli.main([name, '--help'], standalone_mode=False)\n"
        "print('loaded:', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not HEAVY & set(done.stdout.partition("loaded:")[2].split())


def test_a_command_does_not_load_the_others() -> None:
    code = "import sys; from streamgate.cli import cli; cli.main(['merge', '-h'], standalone_mode=False)"
    code += "; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "streamgate.commands.merge" in loaded and "streamgate.commands.run" not in loaded


@pytest.mark.parametrize(
    ("typed", "completions"),
    [
        ("r", {"run", "report", "replay"}),
        ("models ", {"list", "pull", "import", "verify"}),
        ("people faces ", {"list", "merge", "split", "name"}),
        ("run --for", {"--format"}),
        ("run --format ", {"png", "jpeg", "webp"}),
        ("run --models st", {"standard"}),
        ("tune faces --device cu", {"cuda"}),
        ("run clip", {"clip-folder", "clip.mp4"}),
        ("report clip", {"clip-folder"}),
        ("score --heatmap clip", {"clip-folder"}),
    ],
)
def test_bash_completes_commands_options_values_and_files(typed: str, completions: set[str], tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "clip-folder").mkdir()
    # For names of files the function only asks readline to list them, which is not here.
    script = f"""
        PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH
        eval "$(_STREAMGATE_COMPLETE=bash_source streamgate)"
        COMP_WORDS=(streamgate {typed}{'""' if typed.endswith(" ") else ""})
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        word=${{COMP_WORDS[COMP_CWORD]}}
        compopt() {{
            if [ "$2" = dirnames ]; then kind=-d; else kind=-f; fi
            COMPREPLY+=($(compgen $kind -- "$word"))
        }}
        _streamgate_completion streamgate "$word"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert set(done.stdout.split()) == completions, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_too(shell: str) -> None:
    done = streamgate(_STREAMGATE_COMPLETE=f"{shell}_source")
    assert done.code == 0 and f"_STREAMGATE_COMPLETE={shell}_complete" in done.out
