"""The fuzzing targets over their corpus: what was once found stays fixed, and every target runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FUZZ = Path(__file__).parents[2] / "benchmarks" / "fuzz"


@pytest.fixture(scope="module")
def targets() -> ModuleType:
    pytest.importorskip("fastapi", reason="the settings of `serve` need streamgate[serve]")
    spec = importlib.util.spec_from_file_location("fuzz_targets", FUZZ / "targets.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_target_holds_over_its_corpus(targets: ModuleType) -> None:
    for name, target in targets.TARGETS.items():
        seeds = sorted((FUZZ / "corpus" / name).iterdir())
        assert seeds, f"{name} has no corpus"
        for seed in seeds:
            target(seed.read_bytes())
    assert {path.name for path in (FUZZ / "corpus").iterdir()} == set(targets.TARGETS)


def test_the_seeds_are_understood(targets: ModuleType) -> None:
    # Seeds that are refused at the first byte would teach the fuzzer nothing.
    sizes = [targets.image_size(seed.read_bytes()) for seed in (FUZZ / "corpus" / "image_header").glob("seed-*")]
    assert len(sizes) >= 8 and None not in sizes
    for seed in (FUZZ / "corpus" / "preset").glob("seed-*"):
        targets.config.load_config(str(seed))
    for seed in (FUZZ / "corpus" / "catalog").glob("seed-*"):
        assert targets.parse_catalog(seed.read_text())
