"""The definition of a measure: `MeasureSpec` and its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from streamgate.faces import Evidence, Face
from streamgate.measures.cropcard import CropCard

Direction = Literal["higher", "lower", "near zero"]
"""Which raw values are good."""
Unit = Literal["", "degrees", "pixels", "share"]
"""How a raw value is displayed: three decimals, +3.2°, 71 px, 93 %."""
LAST = 1000
"""The `order` of a measure that does not set one."""


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """scalar = 100 / (1 + exp(-(raw - x0) / w)), docs/design.md 4; with a negative `w` it decreases as raw grows."""

    x0: float
    w: float

    def scalar(self, raw: float) -> float:
        """0..100; extreme values saturate instead of overflowing."""
        return 100.0 / (1.0 + math.exp(min(700.0, max(-700.0, -(raw - self.x0) / self.w))))


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of the gate.

    Attributes:
        key: "min" or "max": its name in the measure's configuration table, and its direction.
        value: its default.
        reasons: why a face beyond it is rejected, name -> text; records list reasons in the order of the measures.
        of: the value to compare: the measure's "scalar", its "raw" (the absolute value where values near zero are
            good), or the result of a function of the face and its evidence (None: not known yet).
        bounds: the range that a user may set, inclusive.
        positive: whether the limit must be greater than 0.
        choose: picks one of several reasons from the evidence.
        span: distance from a "max" to the worst possible value; near misses are ordered by the excess as a share of it.
        at: computes the limit from the configured value, the face's evidence, and the frame's width and height in
            pixels; None where the limit is fixed.
    """

    key: Literal["min", "max"]
    value: float
    reasons: Mapping[str, str]
    of: Literal["scalar", "raw"] | Callable[[Face, Evidence], float | None] = "scalar"
    bounds: tuple[float, float] = (0.0, 100.0)
    positive: bool = False
    choose: Callable[[Evidence], str] | None = None
    span: float = 100.0
    at: Callable[[float, Evidence, int, int], float] | None = None

    def excess(self, value: float, limit: float) -> float | None:
        """How far `value` is beyond `limit` as a share of the possible range, 0..1; None when it is within."""
        if self.key == "min":
            return None if value >= limit else 1.0 - value / limit if limit > 0 else 1.0
        return None if value <= limit else min(1.0, (value - limit) / self.span)


@dataclass(frozen=True, slots=True)
class ReferenceSpec:
    """The value that is usual for the person of a track; scalars are computed from raw / reference.

    Attributes:
        evidence: the name in a face's `Evidence.values` of the reference that the face was judged with.
        population: the reference where there is no track, or the track has too few faces; None: the face's own value is
            judged there, and elsewhere the reference instead of it.
        lowest: lower bound of a track's reference, so that eyes that never open are not taken for narrow ones.
        percentile: of the raw values of the track's evenly spaced faces.
        faces: the minimum number of such faces.
    """

    evidence: str
    population: float | None
    lowest: float
    percentile: float = 90.0
    faces: int = 5


@dataclass(frozen=True, slots=True)
class MeasureSpec:
    """One measure: what it needs, how it is computed, how the gate and the fusion use it, and its texts.

    How a value is made: `read` extracts values from the pixels or from a network's output into the face's
    `Evidence.values`, where records keep them; `raw` computes the raw value from the evidence; the mapping computes the
    scalar.

    Attributes:
        name: in records, configuration and columns: an identifier in lower case.
        label, hint: its name on page and report, and a description of a few words.
        purpose: what it is for, in one sentence; `streamgate measures` prints it.
        source: where its evidence comes from: "pixels", or the role of the network ("recognizer", "pose",
            "expression", "ifqa").
        read: for "pixels" a function of a `FaceView`, else of the role's output for one face. It returns the value of
            `evidence[0]`, a mapping of values by name where there are several, or None where there is nothing to
            measure. A value that is not finite gives the measure the status `error`, and so does None for "pixels".
        evidence: names of those values; by default the measure's own name.
        output: for a network, the output that its graph must have.
        raw: computes the raw value, None where its evidence is missing; by default the value of `evidence[0]`.
        unit, better: of the raw value.
        mapping: from the raw value to the scalar. A `Sigmoid` gives defaults that users may change; a function is
            fixed; with None the mapping is on the weights' card, and without one the measure is `uncalibrated`.
        version: incremented whenever the meaning of a raw value or a fixed mapping changes. Qualities from before and
            after are not comparable, and their `calibration_id` differs.
        limits: of the gate.
        weight: in the weighted geometric mean `quality`.
        use: whether it belongs to a run's set by default.
        frontal: it was trained on frontal faces: with `--poses all` its reasons do not count on turned heads; those of
            the expression network's measures never do.
        at_rest: it requires a face at rest: it belongs to the set only with `keep.expression` = neutral.
        reference: scalars are computed from the raw value divided by the usual value of the track's person, at most 1.
        guess: estimates the raw value before its network has run, for choosing which faces to score; None where there
            is nothing to estimate it from.
        of_source: it describes the source's picture, so it cannot be computed from a ready-made crop.
        card: for a measure with its own crop, which runs after all others; `source` is then the measure's name.
        order: position among the measures in records and on pages; ties are sorted by name.
    """

    name: str
    label: str
    hint: str
    purpose: str
    source: str = "pixels"
    read: Callable[[Any], float | Mapping[str, float] | None] | None = None
    evidence: tuple[str, ...] = ()
    output: str = ""
    raw: Callable[[Evidence], float | None] | None = None
    unit: Unit = ""
    better: Direction = "higher"
    mapping: Sigmoid | Callable[[float], float] | None = None
    version: int = 1
    limits: tuple[Limit, ...] = ()
    weight: float = 1.0
    use: bool = True
    frontal: bool = False
    at_rest: bool = False
    reference: ReferenceSpec | None = None
    guess: Callable[[Face, Evidence], float | None] | None = None
    of_source: bool = False
    card: CropCard | None = None
    order: int = LAST

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name != self.name.lower():
            raise ValueError(f"a measure's name must be an identifier in lower case, got {self.name!r}")
        if self.read is not None and not self.evidence:
            object.__setattr__(self, "evidence", (self.name,))
        if self.reference is not None and self.reference.evidence not in self.evidence:
            object.__setattr__(self, "evidence", (*self.evidence, self.reference.evidence))
        if self.read is None and self.raw is None:
            raise ValueError(f"measure {self.name}: `read` or `raw` is required")
        if self.source != "pixels" and not self.output:
            raise ValueError(f"measure {self.name}: `output` must name an output of the {self.source} graph")

    @property
    def reasons(self) -> dict[str, str]:
        """Why it may reject a face, name -> text, in order."""
        return {name: text for limit in self.limits for name, text in limit.reasons.items()}

    def compared(self, raw: float, evidence: Evidence) -> float:
        """The input of the mapping: the raw value, or its share of the reference, at most 1."""
        if self.reference is None:
            return raw
        usual = evidence.values.get(self.reference.evidence, self.reference.population)
        if usual is None:
            return raw
        if self.reference.population is None:
            return usual
        return min(1.0, raw / usual) if usual > 0 else 1.0

    def upward(self, value: float) -> float:
        """A raw value oriented so that larger is better: itself, its negative, or its negative absolute value."""
        return value if self.better == "higher" else -value if self.better == "lower" else -abs(value)

    def raw_of(self, evidence: Evidence) -> float | None:
        """The raw value, None where its evidence is missing."""
        return evidence.values.get(self.evidence[0]) if self.raw is None else self.raw(evidence)
