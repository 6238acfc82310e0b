"""The card of an imported ONNX file: a description in JSON that the user writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamgate.errors import WeightsError, one_line
from streamgate.networks.layouts import LAYOUTS
from streamgate.weights.catalog import InputSpec, parse_identity, parse_input

MAX_BYTES = 1 << 20
_KEYS = ("identity", "input", "layout", "outputs", "role", "training_data")
_INPUT = {"colour": "RGB", "mean": [127.5] * 3, "scale": [1 / 127.5] * 3}
"""The input of InsightFace's recognizers and detectors."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One card.

    Attributes:
        role: "recognizer" or "detector".
        layout: layout of a detector, see `networks.layouts`; empty for a recognizer.
        input: the input format, float32 NCHW.
        outputs: maps the names used by the role or layout to those in the graph; empty where they are the same.
        training_data: a text for lists.
        identity: {threshold, fmr} of a recognizer, as on other cards.
    """

    role: str
    layout: str
    input: InputSpec
    outputs: Mapping[str, str]
    training_data: str
    identity: Mapping[str, Any] | None

    @property
    def options(self) -> dict[str, Any]:
        """The converter's options."""
        return {"layout": self.layout, "outputs": dict(self.outputs), "input": asdict(self.input)}


def read_card(path: Path) -> ModelCard:
    """Read a card in JSON.

    Raises:
        WeightsError: it is not readable, or a key or value is not valid.
    """
    what = path.name
    try:
        with path.open("rb") as file:
            table = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{what}: cannot be read as a card in JSON ({one_line(str(error))})") from None
    if not isinstance(table, dict) or not table.keys() <= set(_KEYS):
        raise WeightsError(f"{what}: a card is a JSON object with the keys {', '.join(_KEYS)}")
    role, layout, outputs = table.get("role"), table.get("layout", ""), table.get("outputs", {})
    if role not in ("recognizer", "detector"):
        raise WeightsError(f'{what}: "role" must be "recognizer" or "detector"')
    if layout not in (LAYOUTS if role == "detector" else ("",)):
        raise WeightsError(f'{what}: a detector\'s "layout" is one of {", ".join(LAYOUTS)}, and a recognizer has none')
    if not isinstance(outputs, dict) or not all(isinstance(name, str) for name in outputs.values()):
        raise WeightsError(f'{what}: "outputs" maps names of the role to names in the graph')
    known = LAYOUTS[layout].outputs if role == "detector" else ("embedding",)
    if unknown := outputs.keys() - set(known):
        raise WeightsError(f'{what}: "outputs" has no {one_line(min(unknown), 60)}; it takes {", ".join(known)}')
    described, identity = table.get("input", {}), table.get("identity")
    if not isinstance(described, dict) or not isinstance(identity, dict | None):
        raise WeightsError(f'{what}: "input" and "identity" must be JSON objects')
    spec = parse_input({**_INPUT, **described, "dtype": "float32"}, what)
    parse_identity(identity, what)
    words = one_line(str(table.get("training_data", "unknown (not in the file)")), 200)
    return ModelCard(role, layout, spec, outputs, words, identity)
