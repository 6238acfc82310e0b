"""What people read about measures and reasons, the same in table, report and page."""

from __future__ import annotations

import json
from typing import Any

from streamgate.measures.registry import known_measures

OTHER_REASONS = {
    "corrupt": "damaged picture",
    "transition": "between two shots",
    "other_person": "another person",
    "still": "never moves",
}
"""Reasons that no measure gives, name -> words."""


def reason_words() -> dict[str, str]:
    """How each reason reads, in the order in which records list reasons."""
    found = {name: text for spec in known_measures() for name, text in spec.reasons.items()}
    return {**found, **OTHER_REASONS}


def vocabulary() -> dict[str, Any]:
    """For the pages: {measures [{name, label, hint, unit}], reasons {NAME: {measure | null, words}}}."""
    giver = {name: spec.name for spec in known_measures() for name in spec.reasons}
    return {
        "measures": [
            {key: getattr(spec, key) for key in ("name", "label", "hint", "unit")} for spec in known_measures()
        ],
        "reasons": {name: {"measure": giver.get(name), "words": text} for name, text in reason_words().items()},
    }


def vocabulary_module() -> str:
    """The same as a JavaScript module that the pages import as `vocabulary.js`."""
    found = vocabulary()
    return "".join(
        f"export const {name.upper()} = {json.dumps(found[name], ensure_ascii=True)};\n" for name in found
    )
