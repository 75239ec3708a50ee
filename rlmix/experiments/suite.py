"""The first ten minutes of a GPU: stages in the order of their worth, each written as soon as it is over, and the table of them all."""

import gc
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rlmix.benchmarking.allocations import measure_allocated
from rlmix.benchmarking.gpu import measure_waits
from rlmix.benchmarking.measure import measure, random_data
from rlmix.benchmarking.options import Benchmark
from rlmix.common.files import write_atomically, write_json
from rlmix.config import Config
from rlmix.data.memory import ImageData
from rlmix.experiments.arms import Study
from rlmix.experiments.commands.engine import EngineConfig
from rlmix.experiments.commands.suite import ARMS, COMPARED_EPOCHS, SEEDS, arm_config, compared, schedule
from rlmix.experiments.executors import reason
from rlmix.experiments.scaling import recipe_options, scale_images
from rlmix.experiments.study import run_study
from rlmix.experiments.suite_tables import as_markdown
from rlmix.reporting.output import make_console
from rlmix.training.compilation import can_compile
from rlmix.training.devices import open_device

METHODS = ("vanilla", "rmix", "rmix-recycled", "rlmix", "rlmix-device")
SIZES = {
    "cifar": Benchmark(METHODS, batch_size=100, image_size=32, num_classes=100, rounds=30, warmup=5),
    "imagenet": Benchmark(METHODS, batch_size=64, image_size=224, num_classes=1000, rounds=30, warmup=5),
}
"""What steps are measured on, for the first network and the second."""
PRECISIONS = ("float32", "bfloat16")
LEAST_BATCH, LEAST_PIXELS = 8, 32
"""At any scale; ResNet-50 halves its images five times."""


class Stage(NamedTuple):
    """A part of the suite."""

    name: str
    """Of its file."""
    run: Callable[[], dict[str, Any]]
    """Gives what the file holds."""


def run_suite(options: Benchmark) -> None:
    """Run the stages that are missing in ``options.suite.out``, and write table.md after each.

    A stage that fails is recorded with its reason, and the rest goes on.

    Raises:
        ValueError: If there is no GPU and the device is not said to be the CPU, or the folder holds a suite with other options.
        OSError: If the data or the folder cannot be used.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it says the precision of every method
    device, _ = open_device(options.training)
    if device.type == "cpu" and options.device != "cpu":
        raise ValueError("suite gpu must have a GPU, and there is none; --device cpu rehearses it")
    folder, console = options.suite.out, make_console()
    planned = stages(options, device)
    keep_settings(options, device)
    try:
        for number, stage in enumerate(planned, 1):
            path = folder / f"{stage.name}.json"
            said = "is there"
            if not path.exists():
                record = attempt(stage)
                write_json(path, record)
                said = f"failed: {record['failed']}" if "failed" in record else f"took {record['seconds']:.0f} s"
            write_table(folder, [one.name for one in planned])
            console.print(f"{number}/{len(planned)} {stage.name} {said}", soft_wrap=True)
    except KeyboardInterrupt as interrupt:
        if not getattr(interrupt, "__notes__", ()):  # in a training it has one
            interrupt.add_note("the same command goes on from what is kept")
        raise
    console.print(f"written to {folder / 'table.md'}, and a JSON file a stage", soft_wrap=True)


def stages(options: Benchmark, device: torch.device) -> list[Stage]:
    """All of them, in order; the data of the trainings are read for it.

    Args:
        options: The suite's.
        device: Where it runs.

    Raises:
        ValueError: If the data cannot be read.
        OSError: If they are not there.
    """
    sized = [
        (name, shrunk(options, size, model)) for (name, size), model in zip(SIZES.items(), options.suite.models, strict=True)
    ]
    each = [(f"{name}-{precision}", replace(steps, precision=precision)) for name, steps in sized for precision in PRECISIONS]
    found = [Stage(f"steps-{name}", partial(time_all, steps)) for name, steps in each]
    found += [Stage(f"compiled-{name}", partial(time_compiled, steps, device)) for name, steps in each]
    found += [Stage(f"waits-{name}", partial(one_by_one, measure_waits, steps)) for name, steps in sized]
    found += [Stage(f"memory-{name}", partial(one_by_one, measure_allocated, steps)) for name, steps in each]
    if options.suite.data is None:
        return found
    recipe = recipe_of(options)
    studies = {f"compared-{count}": compared(options, SEEDS[:count], recipe) for count in range(1, len(SEEDS) + 1)}
    studies |= {f"schedule-{name}": schedule(options, name, recipe) for name in ARMS}
    return found + [Stage(name, partial(train_all, study)) for name, study in studies.items()]


def shrunk(options: Benchmark, size: Benchmark, model: str) -> Benchmark:
    """Steps of a size on a network, at the suite's scale."""
    scale = options.suite.scale
    return replace(
        size,
        model=model,
        device=options.device,
        batch_size=max(LEAST_BATCH, round(scale * size.batch_size)),
        image_size=max(LEAST_PIXELS, LEAST_PIXELS * round(scale * size.image_size / LEAST_PIXELS)),
        rounds=max(1, round(scale * size.rounds)),
        warmup=max(1, round(scale * size.warmup)),
    )


def recipe_of(options: Benchmark) -> dict[str, Any]:
    """What the trainings have that their data's recipe does not settle: CIFAR-100's for an npz; in small, fewer images."""
    suite = options.suite
    config = arm_config(options, "vanilla", COMPARED_EPOCHS, {})
    images = scale_images(config, suite.scale)
    if suite.scale < 1:
        return images
    return recipe_options("cifar100") if config.data.name.startswith("npz:") else {}


def time_all(steps: Benchmark) -> dict[str, Any]:
    """Time interleaved steps; where that fails, each method beside vanilla alone: what one cannot do, the others can."""
    timed = partial(measure, steps.training.changed(compile=steps.compile), rounds=steps.rounds, warmup=steps.warmup, parts=False)
    data = random_data(steps)
    try:
        return timed(methods=steps.methods, data=data) | {"image_size": steps.image_size}
    except Exception as error:  # whatever a driver, a compiler or a method stumbles over
        why = reason(error)
    machine: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name in steps.methods[1:]:
        release()
        try:
            found = timed(methods=(name,), data=data)
        except Exception as error:
            failed[name] = reason(error)
        else:
            machine, rows = found["machine"], found["methods"] | rows
    if not rows:
        raise ValueError(why)
    return {"machine": machine, "methods": rows, "failed": failed, "image_size": steps.image_size}


def time_compiled(steps: Benchmark, device: torch.device) -> dict[str, Any]:
    """The same with torch.compile.

    Raises:
        ValueError: On the CPU, or where no compiler works.
    """
    if device.type == "cpu":
        raise ValueError("compiled steps are timed on a GPU alone")
    if not can_compile(device):
        raise ValueError("torch.compile does not work here")
    torch.compiler.reset()  # graphs of other stages' networks count against the most that a function may have
    return time_all(replace(steps, compile=True))


def one_by_one(measure_one: Callable[[str, Config, ImageData], Any], steps: Benchmark) -> dict[str, Any]:
    """A figure of each method, alone on the device."""
    data = random_data(steps)
    rows: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name in steps.methods:
        release()
        try:
            rows[name] = measure_one(name, steps.training, data)
        except Exception as error:
            failed[name] = reason(error)
    return {"methods": rows, "failed": failed}


def train_all(study: Study) -> dict[str, Any]:
    """What a study comes to, once its trainings are done that are not yet."""
    return run_study(study, EngineConfig())


def attempt(stage: Stage) -> dict[str, Any]:
    """Run a stage; its record: ``stage``, ``seconds``, and ``result`` or, in a line, why it ``failed``."""
    release()
    begun = time.monotonic()
    outcome: dict[str, Any]
    try:
        outcome = {"result": stage.run()}
    except Exception as error:
        outcome = {"failed": reason(error)}
    return {"stage": stage.name, "seconds": time.monotonic() - begun, **outcome}


def release() -> None:
    """Free what the last measurement left on the device."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def keep_settings(options: Benchmark, device: torch.device) -> None:
    """Write suite.json, by which a suite that goes on is the same.

    Raises:
        ValueError: If the folder holds one with other options; data may come later.
    """
    suite, path = options.suite, options.suite.out / "suite.json"
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    wanted: dict[str, Any] = {
        "suite": suite.name,
        "device": card,
        "models": [*suite.models],
        "scale": suite.scale,
        "data": suite.data,
    }
    saved: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    kept = {name: value for name, value in saved.items() if value is not None}
    different = [name for name in kept if wanted[name] not in (None, kept[name])]
    if different:
        name = different[0]
        raise ValueError(f"{suite.out} holds a suite with other options: {name} {kept[name]!r} is not {wanted[name]!r}")
    write_json(path, wanted | kept)


def write_table(folder: Path, order: Sequence[str]) -> None:
    """Write table.md of all that there is, stages in this order, and then those of an earlier call."""
    settings = json.loads((folder / "suite.json").read_text())
    there = [path.stem for path in sorted(folder.glob("*.json")) if path.stem != "suite"]
    names = [*(name for name in order if name in there), *(name for name in there if name not in order)]
    text = as_markdown(settings, {name: json.loads((folder / f"{name}.json").read_text()) for name in names})
    write_atomically(folder / "table.md", lambda handle: handle.write(text.encode()))
