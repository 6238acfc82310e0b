"""`MeasureSpec`, which defines a measure, and its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from streamgate.faces import Evidence, Face
from streamgate.measures.crop_card import CropCard

Direction = Literal["higher", "lower", "near zero"]
"""Which raw values are better."""
Unit = Literal["", "degrees", "pixels", "share"]
"""The unit of a raw value, which determines how the value is displayed: as 0.123, +3.2°, 71 px or 93 %."""
LAST = 1000
"""The `order` of a measure that does not set one."""


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """The mapping scalar = 100 / (1 + exp(-(raw - x0) / w)) of docs/design.md 4; decreasing if `w` is negative."""

    x0: float
    w: float

    def scalar(self, raw: float) -> float:
        """The scalar, 0..100, of a raw value; extreme values saturate instead of overflowing."""
        return 100.0 / (1.0 + math.exp(min(700.0, max(-700.0, -(raw - self.x0) / self.w))))


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of the gate.

    Attributes:
        key: "min" or "max", which is the limit's direction and its name in the measure's configuration table.
        value: the default of the limit.
        reasons: the reasons for which a face beyond the limit is rejected, name -> text; records list reasons in the
            order of the measures.
        of: the value to compare with the limit: the measure's "scalar", its "raw" value (the absolute value if values
            near zero are better), or the result of a function of the face and its evidence (None: not known yet).
        bounds: the range of limits that a user may set, inclusive.
        positive: whether the limit must be greater than 0.
        choose: selects one of several reasons by the evidence.
        span: distance from a "max" to the worst possible value; near misses are ordered by their distance from the
            limit as a share of this span.
        at: computes the limit from the configured value, the face's evidence, and the frame's width and height in
            pixels; None if the limit is the configured value.
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
        """How far `value` is beyond `limit` as a share of the possible range, 0..1; None if it is within the limit."""
        if self.key == "min":
            return None if value >= limit else 1.0 - value / limit if limit > 0 else 1.0
        return None if value <= limit else min(1.0, (value - limit) / self.span)


@dataclass(frozen=True, slots=True)
class ReferenceSpec:
    """The value that is typical of the person in a track; scalars are computed from raw / reference.

    Attributes:
        evidence: the name under which a face's `Evidence.values` stores the reference that was used for the face.
        population: the reference if there is no track, or the track has too few faces. If None, scalars are computed
            from the face's own raw value in these two cases, and from the reference alone in all other cases.
        lowest: lower bound of a track's reference, so that eyes that never open do not count as narrow eyes.
        percentile: which percentile of the raw values of the track's evenly spaced faces is the reference.
        faces: the minimum number of evenly spaced faces for a track to have a reference.
    """

    evidence: str
    population: float | None
    lowest: float
    percentile: float = 90.0
    faces: int = 5


@dataclass(frozen=True, slots=True)
class MeasureSpec:
    """One measure: what it needs, how it is computed, how the gate and the quality use it, and its texts.

    The value of a measure is computed in three steps. `read` extracts values from the pixels or from a network's output
    and stores them in the face's `Evidence.values`, which records include. `raw` computes the raw value from the
    evidence. The mapping computes the scalar from the raw value.

    Attributes:
        name: the name in records, configuration and columns; an identifier in lower case.
        label, hint: the name that pages and the report show, and a description of a few words.
        purpose: what the measure is for, in a sentence or two; `streamgate measures` prints it.
        source: where the evidence comes from: "pixels", or the role of a network ("recognizer", "pose", "expression",
            "ifqa").
        read: if the source is "pixels", a function of a `FaceView`, otherwise of the role's output for one face. It
            returns the value of `evidence[0]`, or a mapping of values by name if `evidence` has several names, or None
            if there is nothing to measure. The measure has the status `error` if a value is not finite, or if the
            source is "pixels" and the result is None.
        evidence: names of the values that `read` returns; by default the name of the measure.
        output: if the source is a network, the output that its graph must have.
        raw: computes the raw value, or None if its evidence is missing; by default the value of `evidence[0]`.
        unit, better: the unit of the raw value, and which raw values are better.
        mapping: the mapping from the raw value to the scalar. A `Sigmoid` is a default that users may change; a
            function is fixed. If None, the card of the weights has the mapping; if the card has no mapping either, the
            measure is `uncalibrated`.
        version: incremented whenever the meaning of a raw value or a fixed mapping changes. Qualities of different
            versions are not comparable, and their `calibration_id` differs.
        limits: limits of the gate.
        weight: weight in the weighted geometric mean `quality`.
        use: whether the measure belongs to a run's set by default.
        frontal: whether the measure's network was trained on frontal faces. If so, the measure does not reject turned
            heads with `--poses all` (a measure of the expression network does not reject them in either mode).
        at_rest: the measure requires a neutral expression; it belongs to the set only if `keep.expression` is
            `neutral`.
        reference: if not None, scalars are computed from the raw value divided by the value that is typical of the
            track's person; the quotient is limited to 1.
        guess: estimates the raw value before its network has run, in order to choose which faces to score; None if
            there is no estimate.
        of_source: the measure describes the source's picture, so it cannot be computed from a ready-made crop.
        card: describes the crop of a measure that uses its own crop; a measure with a card runs after all others, and
            its `source` is its name.
        order: position among the measures in records and on pages; measures with the same order are sorted by name.
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
        """The reasons for which the measure may reject a face, name -> text, in order."""
        return {name: text for limit in self.limits for name, text in limit.reasons.items()}

    def compared(self, raw: float, evidence: Evidence) -> float:
        """The input of the mapping: the raw value or, with a reference, raw / reference (at most 1)."""
        if self.reference is None:
            return raw
        usual = evidence.values.get(self.reference.evidence, self.reference.population)
        if usual is None:
            return raw
        if self.reference.population is None:
            return usual
        return min(1.0, raw / usual) if usual > 0 else 1.0

    def upward(self, value: float) -> float:
        """A raw value converted so that larger is better: unchanged, negated, or as the negated absolute value."""
        return value if self.better == "higher" else -value if self.better == "lower" else -abs(value)

    def raw_of(self, evidence: Evidence) -> float | None:
        """The raw value, or None if its evidence is missing."""
        return evidence.values.get(self.evidence[0]) if self.raw is None else self.raw(evidence)
