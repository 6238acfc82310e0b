"""The two sets of networks in the package, for comparisons."""

from __future__ import annotations

from pathlib import Path

from streamgate.weights.store import Weights, from_card


def beside(folder: Path) -> dict[str, Weights]:
    """The network of the same role in the other set, by the name of that set; empty if there is none.

    folder: `models/ROLE` (the default set) or `models/open/ROLE`.
    """
    folder = folder.resolve()
    if folder.parent.name == "open":
        name, other = "embedded", folder.parent.parent / folder.name
    else:
        name, other = "open", folder.parent / "open" / folder.name
    found = from_card(other, name) if (other / "card.json").is_file() else None
    return {name: found} if found is not None else {}
