"""What pages say is there: links, options, settings, messages, reasons; the README's size."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

import streamgate
from streamgate import __version__
from streamgate.cli import COMMANDS, cli
from streamgate.config import Config, load_config, preset_names
from streamgate.errors import UsageError
from streamgate.measures import built_in_measures, known_measures
from streamgate.measures.vocabulary import reason_words
from support.doc_pages import DOCS, PAGES, REPOSITORY, blocks, inline, name_of, prose

each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)
FOREIGN = {
    "--extract-every-n", "--filter", "--nfilter", "--batch-mode", "--fps", "--help", "--version",  # other tools, click
    "--smoke", "--fresh", "--teacher", "--leave-out", "--strict", "--basetemp",  # recipes, mkdocs, pytest
    "--data-binary", "--gpus", "--entrypoint", "--rm", "--network", "--system", "--no-create-home", "--now",
    "--preserve-status", "--until-idle", "--requeue",
}  # fmt: skip
"""Options of other programs."""
NOT_RUN_LIMIT = 20
"""Blocks with a command of ours that no test runs: cameras, Redis, cards, clusters, containers, installations."""


@cache
def options() -> frozenset[str]:
    """Every option of every command."""
    found: set[str] = set()

    def add(command: click.Command, context: click.Context) -> None:
        for parameter in command.params:
            found.update(parameter.opts + parameter.secondary_opts)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                add(inner, context)

    add(cli, click.Context(cli))
    return frozenset(found)


@each_page
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            wrong.append(target)
    assert wrong == []


def anchors(page: Path) -> set[str]:
    """The anchors of headings, as the site makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-") for heading in headings}


@each_page
def test_options_that_a_page_names_are_there(page: Path) -> None:
    if page.name == "reliability.md":
        pytest.skip("written by scripts that run the commands")
    ours = [text for text in inline(page) if text.startswith(("--", "streamgate"))]
    lines = [line for block in blocks(page, "sh", "bash") for line in block.text.splitlines()]
    ours += [line.partition("streamgate ")[2] for line in lines]
    named = {flag for text in ours for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}
    assert named - options() - FOREIGN == set()


@each_page
def test_settings_that_a_page_names_are_there(page: Path) -> None:
    if page.name == "reliability.md":
        pytest.skip("its settings are wrong on purpose")
    text = page.read_text(encoding="utf-8")
    sections = "|".join(Config.model_fields)
    keys = set(re.findall(rf"(?<![\w./]){'(?:' + sections + ')'}(?:\.[a-z_0-9]+)+(?![\w/(])", "\n".join(inline(page))))
    keys |= set(re.findall(r"--set ([a-z][a-z_.0-9]+)=", text))
    wrong = [key for key in sorted(keys) if not is_setting(key)]
    assert wrong == []


def is_setting(key: str) -> bool:
    section, _, rest = key.partition(".")
    if section == "measures":
        name, _, field = rest.partition(".")
        known = {spec.name for spec in known_measures()} | {"NAME", "left_eye", "lightqnet"}
        fields = {"", "use", "min", "max", "weight", "x0", "w", "KEY", "key"}
        return (name in known and field in fields) or key == "measures.yaw.maxx"
    if section in ("clip", "picture"):
        return True  # keys of clip presets
    if key.endswith((".toml", ".py", ".md")):
        return True
    model = Config.model_fields[section].annotation if section in Config.model_fields else None
    return rest in getattr(model, "model_fields", {}) or key == "exhaustive"


def test_shell_lines_have_settings_that_can_be() -> None:
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.text.splitlines():
                settings = re.findall(r"--set (\S+=\S+)", line)
                if settings and " clips " not in line and "left_eye" not in line:
                    preset = re.search(r"--preset (\S+)", line)
                    name = preset[1] if preset and preset[1] in preset_names() else "studio"
                    try:
                        load_config(name, settings)
                    except UsageError as error:
                        pytest.fail(f"{name_of(page)}: {line}: {error}")


def test_commands_that_pages_name_are_there() -> None:
    known = {name for names in COMMANDS.values() for name in names}
    for page in PAGES:
        lines = [line for block in blocks(page, "sh", "bash") for line in block.text.splitlines()]
        lines += [text for text in inline(page) if text.startswith("streamgate ")]
        for line in lines:
            named = re.match(r"(?:\$ )?(?:timeout .*? |\S*/)?streamgate ([a-z]\w*)(?=\s|$)", line)
            if named and "docker" not in line:
                assert named[1] in known, f"{name_of(page)}: {line}"


def test_messages_of_the_troubleshooting_page_are_those_of_the_code() -> None:
    """Every message that is listed there shares three words in a row with a text of the code."""
    said = " ~ ".join(re.sub(r"\s+", " ", text) for text in texts())
    page = DOCS / "troubleshooting.md"
    wrong = []
    for row in re.findall(r"^\| (`.+?) \|", prose(page), re.M):
        for message in re.findall(r"`+([^`]{40,})`+", row):
            words = message.split(" ")
            windows = [" ".join(words[at : at + 3]) for at in range(max(1, len(words) - 2))]
            if not any(window in said for window in windows):
                wrong.append(message)
    assert wrong == []


def texts() -> Iterator[str]:
    for path in sorted((REPOSITORY / "streamgate").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield node.value


def test_every_reason_and_measure_is_explained() -> None:
    reasons = reason_words(known_measures())
    for page, names in (
        ("design.md", [*reasons, *(spec.name for spec in known_measures())]),
        ("choosing.md", [name for name in reasons if name not in ("brisque_low", "niqe_low")]),
        ("measures.md", [spec.name for spec in known_measures()]),
    ):
        text = (DOCS / page).read_text(encoding="utf-8")
        assert [name for name in names if not re.search(rf"\b{name}\b", text, re.I)] == [], page


def test_the_table_of_measures_has_the_limits_and_weights_in_force() -> None:
    text = (DOCS / "measures.md").read_text(encoding="utf-8")
    tables = load_config().measures
    for spec in built_in_measures():
        limits = ", ".join(f"{limit.key} {tables[spec.name].limit(limit.key):g}" for limit in spec.limits)
        row = f"| **`{spec.name}`**<br>weight {tables[spec.name].weight:g}<br>{limits} |"
        assert row in text, f"{spec.name}: run docs/pictures.py"


def test_the_python_page_has_the_whole_public_api() -> None:
    shown = set(re.findall(r"^::: streamgate\.(\w+)$", (DOCS / "python.md").read_text(encoding="utf-8"), re.M))
    assert shown == set(streamgate.__all__) - {"__version__"}


def test_the_readme_is_short() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150 and len(text.split()) <= 1200


def test_what_is_not_run_is_little() -> None:
    idle = [
        f"{name_of(page)}, line {block.line}: {block.why or block.language}"
        for page in PAGES
        for block in blocks(page, "sh", "bash")
        if (block.language == "bash" or block.why) and re.search(r"^(\$ )?streamgate ", block.text, re.M)
    ]
    print(*idle, sep="\n")
    assert len(idle) <= NOT_RUN_LIMIT, idle


def test_pictures_of_the_pages_are_small() -> None:
    assert sum(path.stat().st_size for path in (DOCS / "images").rglob("*.*")) < 1_500_000


def test_one_version() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{__version__}"' in project
    assert f"version: {__version__}" in (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {__version__}\n" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def test_comments_cite_pages_that_ship() -> None:
    folders = ("streamgate", "models", "benchmarks", "pipelines", "deploy", "tests")
    wrong = []
    for path in (path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*"))):
        if path.suffix in {".py", ".toml", ".md", ".js", ".yaml"} and path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            wrong += [f"{name_of(path)}: DESIGN" for _ in re.findall(r"\bDESIGN\b", text)]
            cited = re.findall(r"\bdocs/[a-z-]+\.md\b", text)
            wrong += [f"{name_of(path)}: {page}" for page in cited if not (REPOSITORY / page).is_file()]
    assert wrong == []


def test_the_site_builds_and_asks_nobody(tmp_path: Path) -> None:
    """`mkdocs build --strict`, and no page loads anything from elsewhere."""
    pytest.importorskip("material", reason="the site is built with mkdocs-material (pip install '.[docs]')")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config as load_site

    site = tmp_path / "site"
    build(load_site(str(REPOSITORY / "mkdocs.yml"), site_dir=str(site), strict=True))
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=[\"']?(https?:)?//", html)
        assert loaded == [], page
        assert "Traceback" not in html
