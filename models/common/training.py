"""Code that the training runs of all recipes share: work folder, resuming, the loop, the running average."""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import torch

from models.common.checkpoint import load_latest, save_checkpoint
from models.common.images import DataError

WORK_TREE = Path(__file__).resolve().parents[2]
Sums = Mapping[str, list[float]]
"""Loss terms by name, one value per step since they were last logged."""
T = TypeVar("T")


class Config(dict[str, Any]):
    """A configuration file (TOML), or a table in it; if a key is missing, the error names the file and the key."""

    def __init__(self, values: Mapping[str, Any], name: str) -> None:
        super().__init__({k: Config(v, f"{name}, [{k}]") if isinstance(v, dict) else v for k, v in values.items()})
        self.name = name

    def __missing__(self, key: str) -> Any:
        raise DataError(f"{self.name}: `{key}` is missing")

    def make(self, kind: Callable[..., T], *tables: str, **more: Any) -> T:
        """Call `kind` with the values of these tables, and with `more`, as keyword arguments.

        Raises DataError if it does not accept them.
        """
        values = {key: value for table in tables for key, value in self[table].items()}
        try:
            return kind(**{**values, **more})
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.name}, [{'], ['.join(tables)}]: not settings of this recipe ({error})") from error


def read_config(file: Path) -> Config:
    """Raises DataError if the file cannot be read."""
    try:
        return Config(tomllib.loads(file.read_text()), str(file))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error


class Trains(Protocol):
    """A recipe's trainer."""

    device: torch.device
    steps_done: int
    settings: Any
    """`steps` is the last step of the run."""

    def step(self, batch: Any) -> dict[str, float]: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: Mapping[str, Any]) -> None: ...

    def load_warm(self, weights: Mapping[str, Any]) -> None: ...


def work_folder(given: Path | None, smoke: bool, name: str) -> Path:
    """The folder for the checkpoints and prepared faces of the recipe `name`.

    Raises DataError if no folder was given, or if it is inside the work tree.
    """
    if given is None and "STREAMGATE_WORK" not in os.environ:
        if not smoke:
            raise DataError("give --work DIR or set STREAMGATE_WORK: checkpoints must not be inside the work tree")
        return Path(tempfile.mkdtemp(prefix=f"{name}-smoke-"))
    work = (given or Path(os.environ["STREAMGATE_WORK"]) / name).resolve()
    if WORK_TREE in (work, *work.parents):
        raise DataError(f"{work} is inside the work tree: give a folder outside it")
    work.mkdir(parents=True, exist_ok=True)
    return work


def load_config(args: argparse.Namespace, smoke: Mapping[str, Mapping[str, Any]]) -> Config:
    """The recipe's config.toml (`args.config`), overridden by the sizes for a smoke run and by the command line.

    Raises DataError if it cannot be read, or if `args.steps` or `args.seed` is negative.
    """
    for name in ("steps", "seed"):
        if (getattr(args, name) or 0) < 0:
            raise DataError(f"--{name} must not be negative")
    config = read_config(args.config)
    if args.smoke:
        for section, values in smoke.items():
            config[section].update(values)
    if args.steps is not None:
        config["optimiser"]["steps"] = args.steps
    if args.seed is not None:
        config["seed"] = args.seed
    return config


def choose_device(name: str) -> torch.device:
    """`auto` selects CUDA if it is available; an explicit request for CUDA without a CUDA device is an error."""
    if name == "cuda" and not torch.cuda.is_available():
        raise DataError("--device cuda: torch sees no CUDA device")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def resume(trainer: Trains, checkpoints: Path, warm: Path | None) -> None:
    """Load the newest intact checkpoint or, if there is none, the committed weights, if there are any.

    Raises DataError if the committed weights cannot be read, or are those of another network.
    """
    state, refused = load_latest(checkpoints)
    for name in refused:
        say(f"refused {name}: damaged (its content does not match its name); using the previous checkpoint")
    if state is not None:
        trainer.load_state(state)
    elif warm is not None and warm.is_file():
        weights = load_weights(warm)
        try:
            trainer.load_warm(weights)
        except (KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"{warm}: does not contain the weights of this network; give --fresh") from error
        say(f"started from {warm.name}")


def load_weights(file: Path) -> dict[str, Any]:
    """What a file that `torch.save` wrote contains. Raises DataError if it cannot be read."""
    try:
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises errors of many types for damaged files
        raise DataError(f"{file}: not a file of weights, or damaged") from error


def terms(sums: Sums) -> str:
    """The mean of each loss term since the previous line of the log."""
    return " ".join(f"{name} {np.mean(values):.4f}" for name, values in sums.items())


def run(
    trainer: Trains,
    batches: torch.utils.data.Dataset[Any],
    look: Callable[[], str],
    log: Mapping[str, int],
    checkpoints: Path,
    tell: Callable[[Sums], str] = terms,
) -> None:
    """Train to the last step; log, look at held-out faces and save at the configured intervals.

    `look` returns the held-out figures as text, and `tell` the loss terms.
    """
    last = trainer.settings.steps
    count = 0 if last < 100 else workers(trainer.device)
    loader = torch.utils.data.DataLoader(
        batches,
        batch_size=None,
        sampler=range(trainer.steps_done, last),
        num_workers=count,
        prefetch_factor=4 if count else None,
        # A forked process would inherit the locks of thread pools without their threads, and would wait forever.
        multiprocessing_context="spawn" if count else None,
        worker_init_fn=quiet_worker,
    )
    sums: dict[str, list[float]] = {}
    start, first = time.monotonic(), trainer.steps_done
    for batch in loader:
        for name, value in trainer.step(batch).items():
            sums.setdefault(name, []).append(value)
        step = trainer.steps_done
        if step % log["every"] == 0 or step == last:
            speed = (time.monotonic() - start) / (step - first)
            left = speed * (last - step) / 60
            say(f"step {step}/{last} {speed:.3f} s/step, {left:.0f} min left: {tell(sums)}")
            sums.clear()
        if step % log["monitor"] == 0 or step == last:
            say(f"held out at {step}: {look()}")
        if step % log["checkpoint"] == 0 or step == last:
            save_checkpoint(checkpoints, step, trainer.state())


@torch.no_grad()
def update_average(average: torch.nn.Module, network: torch.nn.Module, ema: float, steps_done: int) -> None:
    """Move the running average of a network's weights by one step; its other buffers are copied."""
    # At the start, a long average would still consist mostly of the initial weights.
    keep = min(ema, (1 + steps_done) / (10 + steps_done))
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)


def floats(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Committed weights, which are stored in half precision, in the precision of training; integers are unchanged."""
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def halved(state: Any) -> Any:
    """The opposite of `floats`: the same nested dicts with float tensors in half precision, on the CPU."""
    if isinstance(state, Mapping):
        return {name: halved(value) for name, value in state.items()}
    if isinstance(state, torch.Tensor):
        return state.cpu().half() if state.is_floating_point() else state.cpu()
    return state


def adamw(parameters: Iterable[torch.nn.Parameter], rate: float, weight_decay: float) -> torch.optim.AdamW:
    """The optimiser of most recipes. Biases and norms, which have one axis, do not decay."""
    every = list(parameters)
    groups = [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, rate, betas=(0.9, 0.99))


def cosine_factor(done: int, warmup: int, share: float) -> float:
    """Of the learning rate: rises to 1 in `warmup` steps, and falls along half a cosine to 0.02.

    done: number of steps since the start of the run; share: of the training that is done, 0..1.
    """
    return min(1.0, (done + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def quiet_worker(_: int) -> None:
    """Limit a loader process to one thread."""
    cv2.setNumThreads(1)


def workers(device: torch.device) -> int:
    """Number of loader processes: one on the CPU, because training needs the cores; with a GPU, most of the cores."""
    return 1 if device.type == "cpu" else max(1, (os.cpu_count() or 2) - 2)


def say(line: str) -> None:
    """Print a line with a timestamp, and flush stdout."""
    print(time.strftime("%H:%M:%S"), line, flush=True)
