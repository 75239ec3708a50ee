"""A training step of each method relative to vanilla, all methods interleaved step by step in one process."""

import platform
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from rlmix.benchmarking.allocations import measure_allocated
from rlmix.benchmarking.options import Benchmark
from rlmix.benchmarking.peers import ALIKE, PEERS, with_peers
from rlmix.benchmarking.profiler import top_operators
from rlmix.benchmarking.steps import PARTS, Timed, check_timed, is_method, prepare
from rlmix.common.files import write_atomically, write_json
from rlmix.config import Config
from rlmix.data.memory import ImageData, image_data
from rlmix.reporting.bar import Bar
from rlmix.reporting.output import make_console
from rlmix.training.allocator import keep_freed_memory
from rlmix.training.run_folder import peak_memory_mb


def benchmark(options: Benchmark) -> None:
    """Measure, print, and write where --json says; ValueError where an option is out of range."""
    for name in ("batch_size", "image_size", "rounds", "num_classes"):
        if getattr(options, name) < (2 if name == "num_classes" else 1):
            raise ValueError(f"{name} must be at least {2 if name == 'num_classes' else 1}, got {getattr(options, name)}")
    if options.peers:
        methods, notices = with_peers(options.methods)
        options = replace(options, methods=methods)
        for notice in notices:
            make_console().print(notice, soft_wrap=True)
    for name in options.methods:
        check_timed(name)
    alike = ALIKE if any(name in PEERS for name in options.methods) else {}
    config, data = options.training, random_data(options)
    measured = partial(
        measure, methods=options.methods, data=data, rounds=options.rounds, warmup=options.warmup, hyperparameters=alike
    )
    figures = measured(config, profile=options.profile)
    for name, peak in (measure_memory(options, data, alike) if options.memory else {}).items():
        figures["methods"][name]["peak_memory_mb"] = peak
    print_tables(figures["machine"], figures["methods"])
    if options.compile:
        figures["compiled"] = measured(config.changed(compile=True))["methods"]
        print_tables(figures["machine"], figures["compiled"], "torch.compile, ")
    if options.json is not None:
        write_json(options.json, figures)
        make_console().print(f"written to {options.json}", soft_wrap=True)


def random_data(options: Benchmark, num_batches: int = 20) -> ImageData:
    """Random images and labels."""
    draw = np.random.default_rng(0)
    count, size = num_batches * options.batch_size, options.image_size
    images = draw.integers(0, 256, (count, size, size, 3), np.uint8)
    labels = draw.permutation(np.arange(count) % options.num_classes)
    labels[: options.num_classes] = np.arange(options.num_classes)[:count]
    return image_data(images, labels, images[:1], labels[:1], source="random images")


def measure(
    config: Config,
    methods: Sequence[str],
    data: ImageData | None = None,
    rounds: int = 30,
    warmup: int = 3,
    *,
    parts: bool = True,
    profile: Path | None = None,
    hyperparameters: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Time interleaved steps: one of each in every round, in an order drawn anew, as a step's memory is warm or cold by what ran before.

    Args:
        config: The classifier's training.
        methods: What to time beside vanilla, see :data:`rlmix.benchmarking.steps.TIMED`.
        data: The data set, where it is loaded already.
        rounds: Steps timed of each.
        warmup: Steps of each before that.
        parts: Time the parts of the step too, in further rounds, so that watching them does not slow down the step's figure.
        profile: Write each method's top operators to this file.
        hyperparameters: Of methods, by their names; the defaults where not given.

    Returns:
        ``{"machine": ..., "methods": {name: {"step_ms", "spread_ms", "ratio", "parts_ms"}}}``. ``step_ms`` is the median step with
        what a method does once an epoch (PPO's update) spread over the steps, ``spread_ms`` the steps' quartiles. ``ratio`` is the
        median over the rounds of a method's step over vanilla's of the same round: a machine that changes its speed between rounds
        changes both. ``parts_ms`` are medians, and add up to about the step and ``logging``, which is in neither step nor ratio:
        every method has it. handwritten has ``settings_ms`` and ``vanilla_ratio`` too, vanilla's step over its. A peer
        (:data:`rlmix.benchmarking.peers.PEERS`) has ``ours`` and ``ours_ratio`` where our own method of its kind is timed too: its
        name, and the median over the rounds of the peer's step over its.
    """
    keep_freed_memory()
    for name in methods:
        check_timed(name)
    names = list(dict.fromkeys(("vanilla", *methods)))
    own = {name: _own_config(name, config, hyperparameters) for name in names}
    order = random.Random(0)
    part_rounds, rows = -(-rounds // 3) * parts, {}
    with Bar(f"timing {len(names)} methods", warmup + rounds + part_rounds + 2 * len(names)) as bar:
        timed = {name: prepare(name, own[name], data) for name in bar.over(names)}
        turns = [
            {name: timed[name].seconds() for name in order.sample(names, len(names))} for _ in bar.over(range(warmup + rounds))
        ]
        part_turns = [{name: timed[name].seconds_by_part() for name in names} for _ in bar.over(range(part_rounds))]
        turns = turns[warmup:]
        for name in bar.over(names):
            once_ms = timed[name].once_an_epoch()
            parts_ms = _median_parts([turn[name] for turn in part_turns]) | once_ms | (timed[name].logging() if parts else {})
            vanilla = [turn["vanilla"] for turn in turns]
            rows[name] = _figures(timed[name], [turn[name] for turn in turns], vanilla, once_ms, parts_ms)
    if profile is not None:
        text = "\n\n".join(f"{name}\n{top_operators(timed[name].step, timed[name].device)}" for name in names) + "\n"
        write_atomically(profile, lambda handle: handle.write(text.encode()))
    for peer in (name for name in names if name in PEERS):
        ours = PEERS.entry(peer).traits["ours"]
        if ours in rows:
            rows[peer] |= {"ours": ours, "ours_ratio": statistics.median(turn[peer] / turn[ours] for turn in turns)}
    return {"machine": _describe_machine(config, timed["vanilla"].device), "methods": rows}


def measure_memory(
    options: Benchmark, data: ImageData, hyperparameters: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, float | None]:
    """What each method's tensors take, in MB; see :func:`rlmix.benchmarking.allocations.measure_allocated`."""
    names = list(dict.fromkeys(("vanilla", *options.methods)))
    with Bar(f"memory of {len(names)} methods", len(names)) as bar:
        return {
            name: measure_allocated(name, _own_config(name, options.training, hyperparameters), data) for name in bar.over(names)
        }


def _own_config(name: str, config: Config, hyperparameters: Mapping[str, Mapping[str, Any]] | None = None) -> Config:
    """That of what is called ``name``: hyperparameters are a method's own."""
    config = config.changed(mixing={})
    return config.changed(method=name, mixing=(hyperparameters or {}).get(name, {})) if is_method(name) else config


def _figures(
    timed: Timed, seconds: list[float], vanilla: list[float], once_ms: dict[str, float], parts_ms: dict[str, float]
) -> dict[str, Any]:
    steps_ms = [1000 * step + sum(once_ms.values()) for step in seconds]
    ratios = [step / (1000 * base) for step, base in zip(steps_ms, vanilla, strict=True)]
    low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    row = {
        "step_ms": statistics.median(steps_ms),
        "spread_ms": [1000 * low, 1000 * high],
        "ratio": statistics.median(ratios),
        "parts_ms": {part: parts_ms[part] for part in PARTS if part in parts_ms},
    }
    if timed.settings_ms:
        row |= {"settings_ms": timed.settings_ms, "vanilla_ratio": statistics.median(1 / ratio for ratio in ratios)}
    return row


def _median_parts(turns: list[dict[str, float]]) -> dict[str, float]:
    return {part: 1000 * statistics.median(turn.get(part, 0.0) for turn in turns) for turn in turns for part in turn}


def _describe_machine(config: Config, device: torch.device) -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "model": config.model.name,
        "batch_size": config.optim.batch_size,
        "precision": config.device.precision,
        "peak_memory_mb": peak_memory_mb(device),
    }


def print_tables(machine: dict[str, Any], rows: dict[str, dict[str, Any]], how: str = "") -> None:
    """The figures as two tables: steps, and their parts."""
    title = f"{how}{machine['model']}, batch {machine['batch_size']}, {machine['device']} ({machine['threads']} threads)"
    steps = Table("method", title=title)
    shown = {"relative to ours": "ours", "peak MB": "peak_memory_mb"}
    more = {title: key for title, key in shown.items() if any(key in row for row in rows.values())}
    for column in ("ms a step", "quartiles", "relative to vanilla", *more):
        steps.add_column(column, justify="right")
    parts = Table("ms a step", title=f"{how}parts of a step")
    used = [part for part in PARTS if any(part in row["parts_ms"] for row in rows.values())]
    for part in used:
        parts.add_column(part, justify="right")
    for name, row in rows.items():
        low, high = row["spread_ms"]
        figures = [f"{row['step_ms']:.1f}", f"{low:.1f} to {high:.1f}", f"{row['ratio']:.3f}"]
        if "relative to ours" in more:
            figures.append(f"{row['ours_ratio']:.3f} of {row['ours']}" if "ours" in row else "")
        if "peak MB" in more:
            figures.append("not measured" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:.0f}")
        steps.add_row(name, *figures)
        parts.add_row(name, *(f"{row['parts_ms'][part]:.2f}" if part in row["parts_ms"] else "" for part in used))
    console = make_console() if sys.stdout.isatty() else make_console(width=120)
    console.print(steps)
    console.print(parts)
    if "handwritten" in rows:
        row = rows["handwritten"]
        settings = "; ".join(f"{setting}: {step_ms:.1f} ms" for setting, step_ms in row["settings_ms"].items())
        console.print(
            f"vanilla / handwritten: {row['vanilla_ratio']:.3f}, at the best of its settings ({settings})", highlight=False
        )
