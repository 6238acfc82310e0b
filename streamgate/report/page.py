"""Creates the report as one self-contained HTML page: styles, scripts and data are inline, so it needs no requests.

The report looks and works like the service's page, because it embeds the same style sheets and modules of
`streamgate.web`. Everything that comes from outside (file names, names of persons) is passed as JSON and becomes text
nodes, never markup.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from streamgate.measures import MeasureSpec
from streamgate.measures.vocabulary import vocabulary_module
from streamgate.report.content import generator, heat_table
from streamgate.web import web_files

_STYLES = ("base.css", "page.css", "detail.css", "report.css")
_MODULES = (
    "dom.js", "words.js", "chart.js", "measures.js", "dialog.js", "heat.js", "labels.js", "tiles.js", "tracks.js",
    "groups.js", "overview.js", "face.js", "sift.js",
)  # fmt: skip
_IMPORT = re.compile(r'from "\./([a-z]+)\.js"')
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def page_text(title: str, data: Mapping[str, Any], measures: Sequence[MeasureSpec]) -> str:
    """The page that shows `data`: {title, groups, base (from the page to OUT: "" or "../"), ...}; see write.py.

    If `data` contains `served`, `streamgate label` serves the page and stores the labels. `measures` are the measures
    of the run, whose names and reasons the page shows.
    """
    parts = {
        **_fixed(vocabulary_module(measures)),
        "title": html.escape(title),
        "generator": html.escape(generator()),
        # A page served by `streamgate label` may connect to the server; a page in a file must not connect to anything.
        "connect": "; connect-src 'self'" if data.get("served") else "",
        "data": _json({"generator": generator(), "heat": heat_table(), **data}),
    }
    return _PLACE.sub(lambda match: parts[match[1]], parts["shell"])


@lru_cache(maxsize=4)
def _fixed(vocabulary: str) -> dict[str, str]:
    """The parts that are the same on every page of a report."""
    files = {name: data.decode() for name, data in web_files("streamgate.report").items()}
    texts = {"vocabulary.js": vocabulary} | {name: files[name] for name in _MODULES}
    # Modules that are inline cannot import each other by path, so they get bare names, which an import map resolves.
    imports = {name.removesuffix(".js"): _data_url("text/javascript", _bare(text)) for name, text in texts.items()}
    icon = _data_url("image/svg+xml", files["icon.svg"])
    return {
        "shell": files["shell.html"].replace("{{dialog}}", files["dialog.html"]),
        "styles": "".join(files[name] for name in _STYLES),
        "importmap": _json({"imports": imports}),
        "entry": _bare(files["report.js"]),
        "icon": icon,
    }


def _bare(script: str) -> str:
    return _IMPORT.sub(r'from "\1"', script)


def _data_url(kind: str, text: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode('ascii')}"


def _json(value: Any) -> str:
    """`value` as JSON, escaped so that it cannot end the script element that contains it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    # A byte of a file name that is not valid UTF-8 is a lone surrogate in Python, which cannot be encoded.
    return text.encode("utf-8", "replace").decode()
