"""The tables `[measures.NAME]` of the configuration, for known measures and for those that a preset defines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)

from streamgate.errors import UsageError, one_line
from streamgate.measures import CropCard, Limit, MeasureSpec, Sigmoid, built_in_measures, known_measures
from streamgate.measures.registry import with_defined

Weight = Annotated[float, Field(ge=0, le=100)]
_Number = Annotated[float, Field(ge=-1e9, le=1e9)]
_Width = Annotated[float, Field(gt=0, le=1e9)]
_Triple = tuple[_Number, _Number, _Number]
_Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A table of the configuration; it is immutable and does not accept unknown keys or NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MeasureConfig(Section):
    """The table of a measure. The measure's spec adds keys for its limits (`min`, `max`) and mapping (`x0`, `w`)."""

    use: bool
    """Whether the measure belongs to the run's set. A face has a `quality` only if all measures of the set are ok."""
    weight: Weight

    def limit(self, key: str) -> float:
        """The limit `key`, "min" or "max", which the measure must have."""
        return float(getattr(self, key))

    @property
    def mapping(self) -> Sigmoid | None:
        """The mapping from raw values to scalars; None if it is not part of the configuration."""
        x0, w = getattr(self, "x0", None), getattr(self, "w", None)
        return None if x0 is None or w is None else Sigmoid(x0, w)


class DefinedMeasureConfig(MeasureConfig):
    """The table of a measure that a preset defines by an ONNX file or a pyiqa metric; see `CropCard`.

    Without `x0` and `w`, the raw values of the measure are recorded, but they affect neither the gate nor the quality.
    """

    use: bool = True
    weight: Weight = 1.0
    min: Annotated[float, Field(ge=0, le=100)] = 0.0
    x0: _Number | None = None
    w: _Width | None = None
    onnx: str = ""
    pyiqa: str = ""
    better: Literal["higher", "lower"] = "higher"
    crop: Literal["ffhq", "arcface", "loose", "box", "points"] = "ffhq"
    size: Annotated[int, Field(ge=16, le=2048)] = 256
    margin: Annotated[float, Field(ge=0, le=10)] = 0.3
    points: tuple[tuple[_Share, _Share], ...] = ()
    colour: Literal["RGB", "BGR", "grey"] = "RGB"
    range: tuple[_Number, _Number] = (0.0, 1.0)
    mean: _Triple = (0.0, 0.0, 0.0)
    std: tuple[_Width, _Width, _Width] = (1.0, 1.0, 1.0)
    output: str = ""
    map: str = ""
    label: Annotated[str, Field(max_length=80)] = ""
    hint: Annotated[str, Field(max_length=200)] = ""

    @model_validator(mode="after")
    def _fits(self) -> DefinedMeasureConfig:
        if bool(self.onnx) == bool(self.pyiqa):
            raise ValueError("set either onnx or pyiqa, not both")
        if (self.x0 is None) != (self.w is None):
            raise ValueError("set both x0 and w, or neither")
        if (self.crop == "points") != (len(self.points) == 3):
            raise ValueError("crop = points requires three points: left eye, right eye, middle of the mouth")
        if self.crop == "points" and self.points[0] == self.points[1]:
            raise ValueError("the points of the two eyes must differ")
        return self

    def spec(self, name: str) -> MeasureSpec:
        """The spec of the measure. Raises ValueError for a name that is not an identifier in lower case."""
        file = self.onnx or self.pyiqa
        card = CropCard(
            "onnx" if self.onnx else "pyiqa", file, self.crop, self.size, self.margin, self.points, self.colour,
            self.range, self.mean, self.std, self.output, self.map,
        )  # fmt: skip
        return MeasureSpec(
            name=name,
            label=self.label or name,
            hint=self.hint or "a measure of the preset",
            purpose=self.hint or f"A measure that the preset defines with {one_line(Path(file).name, 60)}.",
            source=name,
            output="value",
            read=lambda output: float(output.value),
            better=self.better,
            mapping=self.mapping,
            limits=(Limit("min", 0.0, {f"{name}_low": f"{self.label or name} too low"}),),
            card=card,
            use=False,
        )


class MeasuresConfig(Section):
    """The tables of all known measures and of the measures that a preset defines."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _define(cls, tree: Any) -> Any:
        """Create the tables of measures that a preset defines."""
        if not isinstance(tree, dict):
            return tree
        made = {}
        for name, table in tree.items():
            if name in cls.model_fields or isinstance(table, DefinedMeasureConfig):
                continue
            if not is_definition(table):
                raise ValueError(f"there is no measure {one_line(str(name), 80)}")
            made[name] = DefinedMeasureConfig.model_validate(table)
        with_defined(table.spec(name) for name, table in made.items())
        return {**tree, **made}

    def __getitem__(self, name: str) -> MeasureConfig:
        table: MeasureConfig = getattr(self, name)
        return table

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all measures, in the order of records."""
        return tuple(spec.name for spec in self.specs)

    @property
    def specs(self) -> tuple[MeasureSpec, ...]:
        """Specs of the known measures and of those that the preset defines, in the order of records."""
        return with_defined(table.spec(name) for name, table in (self.model_extra or {}).items())

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the measures in use, in order."""
        return tuple(name for name in self.names if self[name].use)

    @property
    def recorded(self) -> tuple[str, ...]:
        """Names of the measures in records: all built-in measures, and other measures that are used."""
        ours = {spec.name for spec in built_in_measures()}
        return tuple(name for name in self.names if name in ours or self[name].use)

    @model_serializer(mode="wrap")
    def _without_idle_plugins(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit unused measures of other packages from the stored configuration of a run."""
        recorded = self.recorded
        found = {name: table for name, table in handler(self).items() if name in recorded}
        return found | {name: self[name].model_dump(mode="json") for name in self.model_extra or () if name in recorded}


def _defaults(spec: MeasureSpec) -> dict[str, Any]:
    """The defaults of a measure's table, from its spec."""
    limits = {limit.key: limit.value for limit in spec.limits}
    mapping = {"x0": spec.mapping.x0, "w": spec.mapping.w} if isinstance(spec.mapping, Sigmoid) else {}
    return {"use": spec.use, **limits, "weight": spec.weight, **mapping}


def _table_of(spec: MeasureSpec) -> type[MeasureConfig]:
    kinds: dict[str, Any] = {"use": bool, "weight": Weight, "x0": float, "w": Annotated[float, Field(gt=0)]}
    for limit in spec.limits:
        low, high = limit.bounds
        kinds[limit.key] = Annotated[float, Field(gt=low, le=high) if limit.positive else Field(ge=low, le=high)]
    fields: dict[str, Any] = {key: (kinds[key], value) for key, value in _defaults(spec).items()}
    return create_model(f"{spec.name.title()}Config", __base__=MeasureConfig, **fields)


if TYPE_CHECKING:
    MEASURE_TABLES = MeasuresConfig
else:
    MEASURE_TABLES = create_model(
        "MeasuresConfig",
        __base__=MeasuresConfig,
        **{spec.name: (table := _table_of(spec), table()) for spec in known_measures()},
    )


def measure_defaults() -> dict[str, dict[str, Any]]:
    """The tables of all known measures, with their defaults."""
    return {spec.name: _defaults(spec) for spec in known_measures()}


def is_definition(table: Any) -> bool:
    """Whether a table defines a new measure."""
    return isinstance(table, Mapping) and bool(table.get("onnx") or table.get("pyiqa"))


def defined_table(name: str, table: dict[str, Any], folder: Path, what: str) -> dict[str, Any]:
    """The complete table of a measure that a preset in `folder` defines, with the path of its file made absolute.

    Raises UsageError with a message that begins with `what`.
    """
    where = f"{what}: [measures.{one_line(name, 80)}]"
    if any(spec.name == name for spec in known_measures()):
        raise UsageError(f"{where}: a measure with this name already exists; choose another name")
    if isinstance(table.get("onnx"), str) and table["onnx"]:
        table["onnx"] = str((folder / table["onnx"]).absolute())
    try:
        found = DefinedMeasureConfig.model_validate(table)
        with_defined([found.spec(name)])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        more = f", got {one_line(repr(first.get('input')), 60)}" if key else ""
        raise UsageError(
            f"{where}{f' {key}' if key else ''}: {one_line(first['msg'].removeprefix('Value error, '))}{more}"
        ) from None
    except ValueError as error:
        raise UsageError(f"{where}: {one_line(str(error))}") from None
    return found.model_dump(mode="json")
