"""mkdocs hook: links to files of the repository outside docs/ become links to the repository, or plain names.

The pages are read in two places. On the hosting page of the repository `../benchmarks/RESULTS.md` is a link that works;
on the site that file does not exist. With `repo_url` in mkdocs.yml the site links to the repository, without it the site
shows the link's text and the path.
"""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./([^)\s]+)\)")


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """The page with its links to files outside docs/ replaced."""
    address = (config.get("repo_url") or "").rstrip("/")

    def replaced(match: re.Match[str]) -> str:
        text, path = match.groups()
        if address:
            return f"[{text}]({address}/blob/HEAD/{path})"
        return text if path.partition("#")[0] in text else f"{text} (`{path}` in the repository)"

    return _OUTSIDE.sub(replaced, markdown)
