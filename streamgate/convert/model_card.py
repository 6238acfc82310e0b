"""The card of an imported ONNX file: a description in JSON that the user writes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from streamgate.errors import WeightsError, one_line
from streamgate.networks.layouts import LAYOUTS
from streamgate.weights.catalog import Entry, parse_identity, parse_input
from streamgate.weights.store import IMPORTED

MAX_BYTES = 1 << 20
_KEYS = ("identity", "input", "layout", "outputs", "role", "training_data")
_INPUT = {"colour": "RGB", "mean": [127.5] * 3, "scale": [1 / 127.5] * 3}
"""The input of InsightFace's recognizers and detectors."""


def read_card(path: Path) -> Entry:
    """Read a card in JSON, as a catalog entry without files.

    The card's keys:

    * `role`: "recognizer" or "detector".
    * `layout`: of a detector, see `networks.layouts`.
    * `input`: how pictures are normalised; the input is float32 NCHW.
    * `outputs`: maps the names used by the role or layout to those in the graph; needed only where they differ.
    * `training_data`: text that `models list --json` shows.
    * `identity`: {threshold, fmr} of a recognizer, in the same form as on other cards.

    Raises:
        WeightsError: the card is not readable, or a key or value is not valid.
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
        raise WeightsError(f'{what}: "layout" must be one of {", ".join(LAYOUTS)}, and is only for detectors')
    if not isinstance(outputs, dict) or not all(isinstance(name, str) for name in outputs.values()):
        raise WeightsError(f'{what}: "outputs" must map names of the role to names in the graph')
    known = LAYOUTS[layout].outputs if role == "detector" else ("embedding",)
    if unknown := outputs.keys() - set(known):
        raise WeightsError(f'{what}: "outputs" cannot have {one_line(min(unknown), 60)!r}; allowed: {", ".join(known)}')
    described, identity = table.get("input", {}), table.get("identity")
    if not isinstance(described, dict) or not isinstance(identity, dict | None):
        raise WeightsError(f'{what}: "input" and "identity" must be JSON objects')
    spec = parse_input({**_INPUT, **described, "dtype": "float32"}, what)
    parse_identity(identity, what)
    words = one_line(str(table.get("training_data", "unknown (not in the file)")), 200)
    return Entry(
        name=f"onnx-{role}",
        title=f"{role} in ONNX",
        roles=(role,),
        tier=IMPORTED,
        licence="",
        training_data=words,
        converter=f"onnx-{role}",
        source=(),
        input=spec,
        options={"layout": layout, "outputs": dict(outputs), "input": asdict(spec)},
        output={"layout": layout} if layout else {},
        identity=identity,
    )
