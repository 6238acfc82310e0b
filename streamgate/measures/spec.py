"""What a measure is: one `MeasureSpec`, and the parts it is made of."""

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
"""How a raw value is shown: three decimals, +3.2°, 71 px, 93 %."""
LAST = 1000
"""The place of a measure that names none."""


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """scalar = 100 / (1 + exp(-(raw - x0) / w)), DESIGN 4; with a negative `w` it falls as raw grows."""

    x0: float
    w: float

    def scalar(self, raw: float) -> float:
        """0..100; far out values saturate instead of overflowing."""
        return 100.0 / (1.0 + math.exp(min(700.0, max(-700.0, -(raw - self.x0) / self.w))))


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of the gate.

    Attributes:
        key: "min" or "max": its name in the measure's table of the configuration, and its sense.
        value: its default.
        reasons: why a face beyond it is rejected, name -> words; records list reasons in the order of the measures.
        of: what is compared: the measure's "scalar", its "raw" (without its sign where values near zero are good), or
            what a function makes of the face and its evidence (None: not known yet).
        bounds: what a user may set, both included.
        positive: a limit of 0 makes no sense.
        choose: which of several reasons it is.
        span: how far beyond a "max" the worst there can be lies; near misses are ordered by that.
        at: the limit for a face with some evidence in a frame of some width and height in pixels, where it depends on
            them.
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
        """How far `value` lies beyond `limit` as a share of what there is, 0..1; None when it is within."""
        if self.key == "min":
            return None if value >= limit else 1.0 - value / limit if limit > 0 else 1.0
        return None if value <= limit else min(1.0, (value - limit) / self.span)


@dataclass(frozen=True, slots=True)
class ReferenceSpec:
    """What is usual for the person of a track, to which a raw value is compared: scalars are of raw / reference.

    Attributes:
        evidence: under this name the reference that a face was judged with stands in its `Evidence.values`.
        population: the reference where the track is not known or has shown too few faces.
        lowest: no track's reference is lower, so that eyes that never open are not taken for narrow ones.
        percentile: of the raw values of the track's evenly spaced faces.
        faces: so many of them there must be.
    """

    evidence: str
    population: float
    lowest: float
    percentile: float = 90.0
    faces: int = 5


@dataclass(frozen=True, slots=True)
class MeasureSpec:
    """One measure: what it needs, how it is computed, what the gate and the fusion make of it, and its words.

    A figure's way: `read` takes figures from the pixels or from a network's output and puts them into the face's
    `Evidence.values`, where records keep them; `raw` makes the raw value of the evidence; the mapping makes the scalar.

    Attributes:
        name: in records, configuration and columns: lower case, an identifier.
        label, hint: its name on page and report, and what it says in a few words.
        purpose: what it is for, one sentence; `streamgate measures` prints it.
        source: where its evidence comes from: "pixels", or the role of the network ("recognizer", "pose",
            "expression", "ifqa").
        read: for "pixels" a function of a `FaceView`, else of the role's output for one face. It gives the value of
            `evidence[0]`, values by name where there are several, or None where there is nothing to measure. A value
            that is not finite makes the measure an error, and so does None of pixels.
        evidence: names of those values; the measure's own name unless given.
        output: of a network, the output that its graph must have.
        raw: the raw value, None where the evidence for it is missing; by default the value of `evidence[0]`.
        unit, better: of the raw value.
        mapping: to the scalar. A `Sigmoid` gives defaults that users may set; a function is fixed; None: the weights'
            card has it, and without one the measure is `uncalibrated`.
        version: raised with any change of what a raw value or a fixed mapping means: qualities before and after do not
            compare, and `calibration_id` says so.
        limits: of the gate.
        weight: in the weighted geometric mean `quality`.
        use: whether it belongs to a run's set where the configuration does not say.
        frontal: it learned on frontal faces: with `--poses all` its reasons do not count on turned heads; those of the
            expression network's measures never do.
        at_rest: it asks for a face at rest: it belongs to the set only with `keep.expression` = neutral.
        reference: scalars are of the raw value over what is usual for the track's person, at most 1.
        guess: the raw value guessed before its network has run, for choosing which faces to score; None where nothing
            tells.
        of_source: speaks of the source's picture, so a ready-made crop does not tell it.
        card: of a measure that looks at a crop of its own, after all others: `source` is its name then.
        order: place among the measures in records and on pages; measures of one place are sorted by name.
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
            raise ValueError(f"measure {self.name}: give `read`, `raw` or both")
        if self.source != "pixels" and not self.output:
            raise ValueError(f"measure {self.name}: name the `output` that the graph of {self.source} must have")

    @property
    def reasons(self) -> dict[str, str]:
        """Why it may reject a face, name -> words, in their order."""
        return {name: text for limit in self.limits for name, text in limit.reasons.items()}

    def compared(self, raw: float, evidence: Evidence) -> float:
        """What the mapping takes: the raw value, or its share of the reference."""
        if self.reference is None:
            return raw
        usual = evidence.values.get(self.reference.evidence, self.reference.population)
        return min(1.0, raw / usual) if usual > 0 else 1.0

    def upward(self, value: float) -> float:
        """A raw value turned so that larger is better: itself, its negative, or the negative of its size."""
        return value if self.better == "higher" else -value if self.better == "lower" else -abs(value)

    def raw_of(self, evidence: Evidence) -> float | None:
        """The raw value, None where its evidence is missing."""
        return evidence.values.get(self.evidence[0]) if self.raw is None else self.raw(evidence)
