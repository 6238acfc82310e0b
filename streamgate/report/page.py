"""One self-contained HTML text: styles, scripts and data inline, nothing asked of anybody.

The report looks and works like the service's page because it is made of the same parts: style sheets and modules of
`service/static` are taken in as they are. Everything that comes from outside (file names, names of persons) travels as
JSON and becomes text nodes, never markup.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

from streamgate.measures import MeasureSpec
from streamgate.measures.vocabulary import vocabulary_module
from streamgate.report.content import generator, heat_table

_STYLES = ("base.css", "page.css", "detail.css", "report.css")
_MODULES = (
    "dom.js", "words.js", "chart.js", "measures.js", "heat.js", "labels.js", "tiles.js", "tracks.js",
    "groups.js", "overview.js", "face.js", "sift.js",
)  # fmt: skip
_IMPORT = re.compile(r'from "\./([a-z]+)\.js"')
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def page_text(title: str, data: Mapping[str, Any], measures: Sequence[MeasureSpec]) -> str:
    """The page that shows `data`: {title, groups, base (from the page to OUT: "" or "../"), ...}; see write.py.

    `served`: the page comes from `streamgate label`, which takes the labels. `measures`: those of the run, whose names
    and reasons the page can write.
    """
    parts = {
        **_fixed(vocabulary_module(measures)),
        "title": html.escape(title),
        "generator": html.escape(generator()),
        # What `streamgate label` serves talks to it; a file talks to nobody.
        "connect": "; connect-src 'self'" if data.get("served") else "",
        "data": _json({"generator": generator(), "heat": heat_table(), **data}),
    }
    return _PLACE.sub(lambda match: parts[match[1]], _read("shell.html"))


@lru_cache(maxsize=4)
def _fixed(vocabulary: str) -> dict[str, str]:
    """What is the same on every page of a report."""
    texts = {"vocabulary.js": vocabulary} | {name: _read(name) for name in _MODULES}
    # Modules of one file cannot name each other by path, so they get bare names that an import map resolves.
    imports = {name.removesuffix(".js"): _data_url("text/javascript", _bare(text)) for name, text in texts.items()}
    return {
        "styles": "".join(_read(name) for name in _STYLES),
        "importmap": _json({"imports": imports}),
        "entry": _bare(_read("report.js")),
        "icon": _data_url("image/svg+xml", _read("icon.svg")),
    }


def _bare(script: str) -> str:
    return _IMPORT.sub(r'from "\1"', script)


def _data_url(kind: str, text: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode('ascii')}"


def _json(value: Any) -> str:
    """JSON that no sign of which can end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    # A byte of a file name that is no UTF-8 arrives as half a surrogate pair, which cannot be written.
    return text.encode("utf-8", "replace").decode()


def _read(name: str) -> str:
    for package in ("streamgate.report", "streamgate.service"):
        file = resources.files(package).joinpath("static", name)
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise FileNotFoundError(name)
