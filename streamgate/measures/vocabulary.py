"""Texts for measures and reasons, which the tables in the terminal, the report and the live page share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from streamgate.measures.spec import MeasureSpec

OTHER_REASONS = {
    "corrupt": "damaged picture",
    "low_quality": "low quality",
    "transition": "between two shots",
    "other_person": "another person",
    "still": "never moves",
}
"""Reasons that do not come from a measure, name -> text."""


def reason_words(specs: Iterable[MeasureSpec]) -> dict[str, str]:
    """The text of each reason of these measures and of `OTHER_REASONS`, in the order in which records list them."""
    found = {name: text for spec in specs for name, text in spec.reasons.items()}
    return {**found, **OTHER_REASONS}


def vocabulary(specs: Iterable[MeasureSpec]) -> dict[str, Any]:
    """Data for the pages: {measures [{name, label, hint, unit, use}], reasons {NAME: {measure | null, words}}}.

    `use` tells whether the measure belongs to the run's set.
    """
    specs = tuple(specs)
    giver = {name: spec.name for spec in specs for name in spec.reasons}
    return {
        "measures": [
            {key: getattr(spec, key) for key in ("name", "label", "hint", "unit", "use")} for spec in specs
        ],
        "reasons": {name: {"measure": giver.get(name), "words": text} for name, text in reason_words(specs).items()},
    }


def vocabulary_module(specs: Iterable[MeasureSpec]) -> str:
    """The vocabulary as a JavaScript module, which the pages import as `vocabulary.js`."""
    found = vocabulary(specs)
    return "".join(
        f"export const {name.upper()} = {json.dumps(found[name], ensure_ascii=True)};\n" for name in found
    )
