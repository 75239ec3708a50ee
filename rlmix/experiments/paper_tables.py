"""The paper's tables, cell by cell, with the figures published there.

"Expeditious Saliency-guided Mix-up through Random Gradient Thresholding" (Luu, Huang, Xing, Lee, Wang 2022), Tables 1 to 12. What the
paper leaves open, and what rlmix does about it, stands in a table's ``note``; docs/reproduce.md says it once for all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlmix.experiments.table_form import NETWORKS, PaperCell, PaperRun, PaperTable, Rows


def _run(name: str) -> PaperRun:
    """A method by the paper's name: CutMix+ is CutMix under OneCycleLR, which R-Mix and RL-Mix are trained under too."""
    if name == "cutmix+":
        return PaperRun(name, "cutmix")
    options = {"num_patches": (8,), "observation": "paper", "credit": "own"} if name == "rlmix" else {}
    return PaperRun(name, name, options, multistep=name not in ("rmix", "rlmix"))


def _networks_by_methods(title: str, figures: Mapping[str, Sequence[float | None]], note: str) -> PaperTable:
    """A table of top-1 with a row a network and a column a method."""
    row = {}
    for name, values in figures.items():
        published = {network: value for network, value in zip(NETWORKS, values, strict=True) if value is not None}
        row[name] = PaperCell(_run(name), "top1", published)
    return PaperTable(title, tuple(figures), {(): row}, networks=NETWORKS, about=SCHEDULED, baseline=_last_of(figures), note=note)


def _last_of(names: Mapping[str, Any]) -> str:
    return "rmix" if "rmix" in names else list(names)[-1]


def _methods_by_figures(
    title: str, columns: Mapping[str, str], rows: Mapping[str, Sequence[float | str]], network: str, **rest: Any
) -> PaperTable:
    """A table with a row a method and a column a figure (its heading, and its name among FIGURES)."""
    imagenet = network == "resnet50"
    cells: Rows = {}
    for name, values in rows.items():
        run = replace(_run(name), multistep=not imagenet and name not in ("cutmix+", "rmix"))
        named = zip(columns.items(), values, strict=True)
        cells[(name,)] = {heading: PaperCell(run, figure, {network: value}) for (heading, figure), value in named}
    if imagenet:
        rest = {"data": "", "epochs": 100, "note": IMAGENET} | rest
    return PaperTable(title, tuple(columns), cells, headings=("method",), networks=(network,), about=SCHEDULED, **rest)


SCHEDULED = frozenset({"schedule", "milestones"})
COMPARED = "Methods other than CutMix+, R-Mix and RL-Mix are trained under MultiStepLR, as in the code of Co-Mixup and PuzzleMix."
IMAGENET = "The paper trains by Co-Mixup's progressive resizing; rlmix its ImageNet recipe, at 224 pixels throughout."
LEARNED = "RL-Mix is the paper's: masks of 8 patches, the agent sees its image's map and logits and is paid for its own image."


def _schedules() -> PaperTable:
    figures = {
        ("cutmix", 300): (78.71, 80.6),
        ("puzzlemix", 300): (79.38, 79.75),
        ("comixup", 300): (80.13, 79.79),
        ("puzzlemix", 1200): (80.36, 80.48),
        ("comixup", 1200): (80.47, 80.3),
    }
    rows: Rows = {}
    for (method, epochs), values in figures.items():
        row = {}
        for schedule, value in zip(("multistep", "onecycle"), values, strict=True):
            run = PaperRun(f"{method} {schedule} {epochs}", method, epochs=epochs, multistep=schedule == "multistep")
            row[schedule] = PaperCell(run, "top1", {NETWORKS[0]: value})
        rows[method, str(epochs)] = row
    return PaperTable(
        "Table 1: MultiStepLR and OneCycleLR, top-1 %",
        ("multistep", "onecycle"),
        rows,
        headings=("method", "epochs"),
        about=SCHEDULED | {"epochs"},
        baseline="cutmix multistep 300",
        note="CutMix under OneCycleLR is the paper's CutMix+. MultiStepLR as in the code of Co-Mixup and PuzzleMix.",
    )


def _variants(
    title: str, heading: str, column: str, option: str, figures: Mapping[Any, float], names: Mapping[Any, str], own: Any
) -> PaperTable:
    """A table of R-Mix's top-1 with a row a value of one option; ``own`` is R-Mix's."""
    rows: Rows = {}
    for value, published in figures.items():
        run = PaperRun(f"{option}={names[value]}", "rmix", {option: value})
        rows[(names[value],)] = {column: PaperCell(run, "top1", {NETWORKS[0]: published})}
    return PaperTable(title, (column,), rows, headings=(heading,), about=frozenset({option}), baseline=f"{option}={names[own]}")


def _patches_by_values() -> PaperTable:
    figures = {
        (2, 4): (81.22, 81.49, 81.35, 81.18),
        (4, 8): (80.98, 80.8, 80.3, 80.54),
        (8, 16): (79.94, 80.33, 79.29, 79.5),
        (16, 32): (79.6, 79.06, 78.86, 79.2),
        (2, 32): (79.64, 79.69, 79.21, 79.64),
        (2, 4, 8): (80.87, 80.34, 80.04, 80.94),
        (4, 8, 16): (80.12, 80.37, 80.34, 80.41),
        (8, 16, 32): (79.53, 79.12, 79.55, 79.67),
    }
    counts = (5, 10, 16, 20)
    rows: Rows = {}
    for patches, values in figures.items():
        name = "{" + ", ".join(map(str, patches)) + "}"
        rows[(name,)] = {
            f"K = {count}": PaperCell(
                PaperRun(f"p={name} K={count}", "rmix", {"num_patches": patches, "num_top_k": count}),
                "top1",
                {NETWORKS[0]: value},
            )
            for count, value in zip(counts, values, strict=True)
        }
    return PaperTable(
        "Table 7: R-Mix by patches a side p and number of top-k values K, top-1 %",
        tuple(f"K = {count}" for count in counts),
        rows,
        headings=("p",),
        about=frozenset({"num_patches", "num_top_k"}),
        baseline="p={2, 4} K=10",
    )


def _costs() -> PaperTable:
    figures: dict[str, tuple[int, float, float]] = {
        "vanilla": (300, 1, 76.41),
        "input_mixup": (300, 1, 77.57),
        "manifold_mixup": (300, 1, 78.36),
        "cutmix+": (300, 1, 80.6),
        "saliencymix": (2000, 2, 80.31),
        "puzzlemix": (300, 2.9, 79.38),
        "comixup": (300, 3, 80.13),
        "automix": (1200, 2, 80.95),
        "alignmix": (2000, 1.05, 81.71),
        "rmix": (300, 2, 81.49),
    }
    rows: Rows = {}
    for name, (epochs, cost, top1) in figures.items():
        run = replace(_run(name), epochs=epochs)
        shown = "the paper's: ResNet-18" if name == "automix" else ""
        row = {"cost": PaperCell(run, "step_ratio", {NETWORKS[0]: cost}), "top-1 %": PaperCell(run, "top1", {NETWORKS[0]: top1})}
        rows[f"{name} ({shown})" if shown else name, str(epochs)] = row
    return PaperTable(
        "Table 10: CIFAR-100, cost an epoch relative to vanilla, and top-1 %",
        ("cost", "top-1 %"),
        rows,
        headings=("method", "epochs"),
        about=SCHEDULED | {"epochs"},
        note=f"{COMPARED} AutoMix's published figure is of a ResNet-18, in whose place stands the pre-activation one.",
    )


def _properties() -> PaperTable:
    asked = {
        "speed": "step_ratio",
        "top saliency": "top_saliency",
        "least saliency": "least_saliency",
        "full image": "full_image",
        "dropout": "dropout",
        "mixed": "mixed",
        "second objective": "second_objective",
    }
    published: dict[str, tuple[float | str, ...]] = {
        "input_mixup": (1, "?", "?", "yes", "no", "yes", "no"),
        "cutout": (1, "?", "?", "no", "yes", "no", "no"),
        "cutmix": (1, "mixed", "mixed", "yes", "yes", "yes", "no"),
        "comixup": (3, "yes", "no", "yes", "yes", "yes", "yes"),
        "rmix": (2, "yes", "yes", "yes", "yes", "yes", "no"),
    }
    table = _methods_by_figures("Table 3: what sets methods apart", asked, published, NETWORKS[0])
    return replace(
        table, trained=False, note="Nothing is trained: steps are timed, and the rest is what rlmix knows of its methods."
    )


PAPER_TABLES = {
    "table1": _schedules(),
    "table2": _networks_by_methods(
        "Table 2: CutMix+ on four networks, top-1 %",
        {
            "cutmix": (78.71, 79.86, 82.5, 78.14),
            "puzzlemix": (79.38, 80.76, 84.05, 78.88),
            "comixup": (80.13, 80.85, None, 80.22),
            "cutmix+": (80.6, 81.79, 83.97, 82.3),
        },
        COMPARED,
    ),
    "table3": _properties(),
    "table4": _networks_by_methods(
        "Table 4: CIFAR-100, four networks, top-1 %",
        {
            "vanilla": (76.41, 78.3, 78.86, 78.21),
            "input_mixup": (77.57, 79.92, 81.73, 78.3),
            "manifold_mixup": (78.36, 79.45, 82.6, 77.72),
            "cutmix": (78.71, 79.86, 82.5, 78.14),
            "puzzlemix": (79.38, 80.76, 84.05, 78.88),
            "comixup": (80.13, 80.85, None, 80.22),
            "cutmix+": (80.6, 81.79, 83.97, 82.3),
            "rmix": (81.49, 82.32, 85.0, 83.02),
        },
        COMPARED,
    ),
    "table5": _methods_by_figures(
        "Table 5: ImageNet, ResNet-50, 100 epochs",
        {"top-1 %": "top1", "localization %": "localization", "cost": "step_ratio"},
        {
            "vanilla": (75.97, 54.36, 1),
            "input_mixup": (77.03, 55.07, 1),
            "manifold_mixup": (76.7, 54.86, 1),
            "cutmix": (77.08, 54.91, 1),
            "puzzlemix": (77.51, 55.22, 2.8),
            "comixup": (77.61, 55.32, 3),
            "rmix": (77.39, 55.58, 2),
        },
        "resnet50",
    ),
    "table6": _methods_by_figures(
        "Table 6: calibration, and robustness to FGSM at 8/255",
        {"ECE %": "ece", "FGSM error %": "fgsm_error"},
        {
            "vanilla": (10.25, 87.12),
            "input_mixup": (18.5, 81.3),
            "manifold_mixup": (7.6, 80.29),
            "cutmix": (18.41, 86.96),
            "puzzlemix": (8.22, 78.7),
            "comixup": (5.83, 77.61),
            "rmix": (3.73, 77.08),
        },
        NETWORKS[0],
        note=COMPARED,
    ),
    "table7": _patches_by_values(),
    "table8": _variants(
        "Table 8: R-Mix by alpha of lam ~ Beta(alpha, alpha), top-1 %",
        "alpha",
        "top-1 %",
        "alpha",
        {0.2: 81.29, 0.5: 81.4, 1.0: 81.49, 2.0: 81.01},
        {0.2: "0.2", 0.5: "0.5", 1.0: "1", 2.0: "2"},
        1.0,
    ),
    "table9": _networks_by_methods(
        "Table 9: RL-Mix on four networks, top-1 %",
        {
            "cutmix": (78.71, 79.86, 82.5, 78.14),
            "cutmix+": (80.6, 81.79, 83.97, 82.3),
            "rmix": (81.49, 82.32, 85.0, 83.02),
            "rlmix": (80.75, 82.16, 84.9, 82.43),
        },
        f"{COMPARED} {LEARNED}",
    ),
    "table10": _costs(),
    "table11": _methods_by_figures(
        "Table 11: ImageNet, ResNet-50, cost an epoch relative to vanilla, and top-1 %",
        {"cost": "step_ratio", "top-1 %": "top1"},
        {
            "vanilla": (1, 75.97),
            "input_mixup": (1, 77.03),
            "manifold_mixup": (1, 76.7),
            "cutmix": (1, 77.08),
            "saliencymix": (2, 77.14),
            "puzzlemix": (2.9, 77.51),
            "comixup": (3, 77.61),
            "automix": (2, 77.91),
            "alignmix": (1.05, 78.0),
            "rmix": (2, 77.41),
        },
        "resnet50",
        note=f"{IMAGENET} R-Mix is 77.39 in Table 5, and so is its published checkpoint.",
    ),
    "table12": _variants(
        "Table 12: four strategies of mixing two masks, top-1 %",
        "strategy",
        "top-1 %",
        "rule",
        {"cut_top": 79.88, "cut_top_least": 79.52, "mix_top": 81.49, "mix_least": 75.42},
        {"cut_top": "1 cut_top", "cut_top_least": "2 cut_top_least", "mix_top": "3 mix_top", "mix_least": "4 mix_least"},
        "mix_top",
    ),
}
"""The paper's."""
