"""What a trained classifier is worth: accuracy, calibration, robustness, and where it sees the object."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.table import Table

from rlmix import evaluation
from rlmix.common.files import write_atomically, write_json
from rlmix.config import Config
from rlmix.data.boxes import read_boxes
from rlmix.data.folder import FolderData
from rlmix.data.registry import load_data
from rlmix.experiments.commands.evaluate import OF_DATA, Evaluate
from rlmix.experiments.options import UsageError
from rlmix.experiments.result import finite
from rlmix.experiments.saved_run import load_run
from rlmix.models.weights import load_weights, read_weights
from rlmix.reporting.bar import Bar, Watched
from rlmix.training.run_folder import DIAGRAM, EVALUATION
from rlmix.training.trainer import Training


def evaluate(options: Evaluate) -> dict[str, Any]:
    """Measure, write evaluate.json and reliability.png, and give the former's content.

    Raises:
        ValueError: If an option is wrong, or the weights are another network's.
        OSError: If something is not there.
    """
    if not options.source.exists():
        raise FileNotFoundError(f"source must be a run's folder or a file with a state_dict, and there is no {options.source}")
    training = open_run(options) if options.source.is_dir() else open_state_dict(options)
    result: dict[str, Any] = {"source": str(options.source), "model": training.recipe.model, "data": training.config.data.name}
    result |= {"ema": True} if options.ema else {}
    result |= measure(training, options)
    options.folder.mkdir(parents=True, exist_ok=True)
    write_json(options.folder / EVALUATION, finite(result))
    picture = draw_reliability(result["reliability"], result["ece"])
    write_atomically(options.folder / DIAGRAM, lambda handle: picture.savefig(handle, dpi=110, metadata={"Software": ""}))
    return result


def open_run(options: Evaluate) -> Training:
    """A run's data, and its network with the weights of the newest checkpoint."""
    return load_run(options.source, averaged=options.ema, device=options.device, workers=options.workers).training


def open_state_dict(options: Evaluate) -> Training:
    """The data and the network that are named, with a file's weights."""
    if options.model is None or options.data is None:
        raise UsageError(f"model and data must be given with a state_dict, got {options.source} without")
    config = Config.flat(**{name: getattr(options, name) for name in (*OF_DATA, "workers", "device")}, batch_size=1)
    state, data = read_weights(options.source), load_data(config)
    for name in ("mean", "std"):
        values = getattr(options, name)
        if values is not None and len(values) != data.num_channels:
            raise ValueError(f"{name} must have a number for each of {data.num_channels} channels, got {len(values)}")
        if values is not None:
            data = replace(data, **{name: torch.tensor(values)})  # type: ignore[type-var]
    training = Training(config, data)
    load_weights(training.model, training.recipe.model, state, str(options.source))
    return training


def measure(training: Training, options: Evaluate) -> dict[str, Any]:
    """Every figure, in percent."""
    data, model, split = training.data, training.model, options.split
    if split not in data.measured:
        missing = "; a run trained with --val-fraction keeps a validation split" if split == "val" else ""
        raise ValueError(f"split must be one of those measured ({', '.join(data.measured)}), got {split!r}{missing}")
    if options.boxes is not None:
        if not isinstance(data, FolderData):
            raise ValueError(f"boxes must be given with an imagefolder only, got {training.config.data.name}")
        evaluation.classifier_of(model)  # before anything takes long
    labels, passes = data.labels(split), 1 + len(options.attacks) + (options.boxes is not None)
    with Bar("predictions", passes * len(labels)) as bar:
        return _measure(training, options, Watched(data, bar), bar)


def _measure(training: Training, options: Evaluate, watched: Any, bar: Bar) -> dict[str, Any]:
    data, model, split = training.data, training.model, options.split
    labels = data.labels(split)
    with training.fabric.autocast():
        logits = evaluation.predict(model, watched, split)
    figures = evaluation.accuracy(logits, labels, split)
    bins = evaluation.reliability_bins(logits.softmax(1), labels)
    result: dict[str, Any] = {
        "split": split,
        "num_images": len(labels),
        **{name.removeprefix(f"{split}_"): value for name, value in figures.items()},
        "ece": bins.expected_calibration_error,
        "reliability": bins.as_dict(),
        "epsilon": options.epsilon,
    }
    attacks = {"fgsm": evaluation.fgsm_error, "pgd": evaluation.pgd_error}
    for name in options.attacks:
        bar.advance(0, f"attack {name}")
        result[f"{name}_error"] = attacks[name](model, watched, options.epsilon / 255, split)
    if options.boxes is not None and isinstance(data, FolderData):
        boxes = read_boxes(options.boxes, data, split)
        protocol = options.localization
        threshold = evaluation.protocol_of(protocol).threshold if options.threshold is None else options.threshold
        bar.advance(0, "localization")
        found = evaluation.localization_accuracy(model, watched, boxes.by_image, protocol, threshold, split)
        drawn = {"protocol": protocol, "threshold": threshold}
        result["localization"] = vars(found) | drawn | {"skipped_boxes": dict(boxes.skipped)}
    return result


def draw_reliability(bins: Mapping[str, Sequence[float | None]], ece: float) -> Figure:
    """Accuracy against confidence, bin by bin, over the diagonal of perfect calibration; below, how many images a bin holds."""
    edges = [float(edge or 0) for edge in bins["edges"]]
    width, total = edges[1], sum(count or 0 for count in bins["count"])
    centres = [edge + width / 2 for edge in edges[:-1]]
    figure = Figure(figsize=(4, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.bar(centres, [value or 0 for value in bins["accuracy"]], width, edgecolor="white", label="accuracy")
    filled = [(confidence, accuracy) for confidence, accuracy in zip(bins["confidence"], bins["accuracy"], strict=True)]
    known = [(x, y) for x, y in filled if x is not None and y is not None]
    above.plot(*zip(*known, strict=True), "o", color="black", markersize=3, label="at the mean confidence")
    above.plot((0, 1), (0, 1), "--", color="gray")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=f"expected calibration error {ece:.2f} %")
    above.legend(loc="upper left")
    below.bar(centres, [100 * (count or 0) / total for count in bins["count"]], width, edgecolor="white", color="gray")
    below.set(xlabel="confidence", ylabel="images %")
    return figure


def as_table(result: Mapping[str, Any]) -> Table:
    """For the terminal."""
    rows = [("top-1", result["top1"]), ("top-5", result["top5"]), ("calibration error, 15 bins", result["ece"])]
    for name, label in (("fgsm", "FGSM error"), ("pgd", "PGD-7 error")):
        if f"{name}_error" in result:
            rows.append((f"{label} at {result['epsilon']:g}/255", result[f"{name}_error"]))
    found = result.get("localization")
    caption = f"{result['num_images']} images of {result['split']}, {result['data']}"
    if found:
        names = {"gt_known": "class known", "top1": "top-1", "whole_image": "of the whole image (control)"}
        rows += [(f"localization, {label}", found[name]) for name, label in names.items()]
        caption += f"; boxes of {found['num_images']} images, IoU >= 0.5, {found['protocol']} at {found['threshold']:g} "
        caption += evaluation.protocol_of(found["protocol"]).meaning
        caption += "".join(f"; {count} boxes {reason} skipped" for reason, count in found["skipped_boxes"].items())
    table = Table("", "%", title=f"{result['model']}: {result['source']}", caption=caption)
    table.columns[1].justify = "right"
    for name, value in rows:
        table.add_row(name, f"{value:.2f}")
    return table
