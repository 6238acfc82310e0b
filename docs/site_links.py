"""mkdocs hooks: links to files of the repository outside docs/ become links to the repository, or plain names.

Pages are read in two places. In the repository, a link to `../benchmarks/RESULTS.md` works; the site does not have this
file. If `repo_url` is set in mkdocs.yml, the site's page links to the repository; otherwise, it shows the link's text
and the path.
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


def on_page_content(html: str, **_: Any) -> str:
    """The page with short options kept on one line: browsers break lines after each hyphen."""
    return re.sub(r"<code>(--?[a-z][^<]{0,22})</code>", r'<code class="option">\1</code>', html)
