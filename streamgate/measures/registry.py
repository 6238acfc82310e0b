"""The registry of measures: those of this package, of other packages, and of a preset."""

from __future__ import annotations

import math
import pkgutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, wraps
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from streamgate.measures.spec import LAST, MeasureSpec

GROUP = "streamgate.measures"
"""Entry point group; each of its entries refers to a `MeasureSpec`."""


@cache
def known_measures() -> tuple[MeasureSpec, ...]:
    """Built-in measures and those of other installed packages, in the order of records and pages.

    `MeasuresConfig.specs` adds the measures that a preset defines. A measure of another package has no effect unless a
    configuration sets `use = true` for it, so installing a package does not change results. A measure that cannot be
    loaded is left out with a warning.
    """
    found = {spec.name: spec for spec in (*built_in_measures(), *_modules("EXTRA_MEASURE"))}
    for entry in entry_points(group=GROUP):
        try:
            spec = _installed(entry)
            _check_new(spec, found.values())
        except Exception as error:  # importing the module of another package may raise any exception
            what = f"measure {entry.name} ({entry.value}) cannot be loaded and is left out"
            warnings.warn(f"{what}: {type(error).__name__}: {error}", stacklevel=2)
        else:
            found[spec.name] = spec
    return _in_order(found.values())


@cache
def built_in_measures() -> tuple[MeasureSpec, ...]:
    """The measures of this package that every record lists."""
    return _in_order(_modules("MEASURE"))


def with_defined(defined: Iterable[MeasureSpec]) -> tuple[MeasureSpec, ...]:
    """The known measures and the given ones, which a preset defines, in the order of records and pages.

    Raises ValueError if the name or a reason of a given measure already belongs to another measure.
    """
    found = list(known_measures())
    for spec in defined:
        _check_new(spec, found)
        found.append(spec)
    return _in_order(found)


def position_of(name: str) -> tuple[int, str]:
    """Sort key that puts names of measures in the order of records; names that only a preset defines come last."""
    return _positions().get(name, LAST), name


@cache
def _positions() -> dict[str, int]:
    return {spec.name: spec.order for spec in known_measures()}


def _modules(name: str) -> list[MeasureSpec]:
    """The measures that modules of this package define under `name`.

    `name` is MEASURE or, for measures that are recorded only if the configuration enables them, EXTRA_MEASURE.
    """
    package = import_module(__name__.rpartition(".")[0])
    modules = [import_module(f"{package.__name__}.{item.name}") for item in pkgutil.iter_modules(package.__path__)]
    return [getattr(module, name) for module in modules if hasattr(module, name)]


def _in_order(specs: Iterable[MeasureSpec]) -> tuple[MeasureSpec, ...]:
    return tuple(sorted(specs, key=lambda spec: (spec.order, spec.name)))


def _check_new(spec: MeasureSpec, others: Iterable[MeasureSpec]) -> None:
    for other in others:
        if spec.name == other.name:
            raise ValueError(f"there is already a measure {spec.name}")
        if taken := spec.reasons.keys() & other.reasons.keys():
            raise ValueError(f"another measure already has the reason {taken.pop()}")


def _installed(entry: EntryPoint) -> MeasureSpec:
    spec = entry.load()
    if not isinstance(spec, MeasureSpec):
        raise TypeError(f"the entry point refers to a {type(spec).__name__}, not a MeasureSpec")
    return replace(spec, use=False, read=_guarded(spec.name, spec.read), raw=_guarded(spec.name, spec.raw))


def _guarded(name: str, function: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    """Wrap a function of another package so that it returns NaN, which gives the status `error`, instead of raising."""
    if function is None:
        return None

    @wraps(function)
    def guarded(what: Any) -> Any:
        try:
            return function(what)
        except Exception as error:
            warnings.warn(f"measure {name} failed on a face ({type(error).__name__}: {error})", stacklevel=2)
            return math.nan

    return guarded
