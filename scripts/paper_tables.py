"""The paper's tables as experiments: what each varies, what it reports, and the paper's figures where they are known.

"Expeditious Saliency-guided Mix-up through Random Gradient Thresholding" (Luu, Huang, Xing, Lee, Wang 2022). What could not be learned
about a table stands in its ``uncertain``; a figure that is not known is not there. docs/reproduce.md says where each comes from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

NETWORKS = ("preactresnet18", "wideresnet16_8", "wideresnet28_10", "resnext29_4x24")
Known = Mapping[tuple[str, str, str], float]
"""Model, row, figure, and the paper's number."""


@dataclass(frozen=True)
class PaperArm:
    """A row: a method, and the options that the table varies."""

    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper."""

    title: str
    arms: tuple[PaperArm, ...]
    baseline: str
    """Label of the row that paired differences are from."""
    uncertain: str
    """What we do not know about the paper's table, or decided ourselves."""
    figures: tuple[str, ...] = ("top1",)
    """What is reported, of reproduce's FIGURES."""
    models: tuple[str, ...] = NETWORKS[:1]
    data: str = "cifar100"
    """Empty where the data must be given."""
    epochs: int = 300
    known: Known = field(default_factory=dict)

    @property
    def varied(self) -> set[str]:
        """Options that the rows set themselves."""
        return {name for arm in self.arms for name in arm.options}


def _by_network(label: str, *top1: float) -> dict[tuple[str, str, str], float]:
    return {(model, label, "top1"): value for model, value in zip(NETWORKS, top1, strict=True)}


CUTMIX_PLUS = _by_network("cutmix+", 80.60, 81.79, 83.97, 82.30)
RMIX = _by_network("rmix", 81.49, 82.32, 85.00, 83.02)
RLMIX = _by_network("rlmix", 80.75, 82.16, 84.90, 82.43)


def _main_figure(label: str) -> Known:
    """R-Mix's figure of the main table, where a row has its settings."""
    return {(model, label, figure): value for (model, _, figure), value in RMIX.items()}


def _named(*methods: str) -> tuple[PaperArm, ...]:
    return tuple(PaperArm("cutmix+" if method == "cutmix" else method, method) for method in methods)


def _grid() -> tuple[PaperArm, ...]:
    patches = ((2,), (4,), (8,), (2, 4))
    return tuple(
        PaperArm(f"p={'/'.join(map(str, p))} K={k}", "rmix", {"num_patches": p, "num_top_k": k})
        for p, k in product(patches, (5, 10, 20))
    )


TABLES = {
    "table1": PaperTable(
        title="Table 1: CutMix under MultiStepLR, and under OneCycleLR (CutMix+)",
        arms=(
            PaperArm("cutmix", "cutmix", {"schedule": "multistep", "learning_rate": 0.1}),
            PaperArm("cutmix+", "cutmix", {"schedule": "onecycle", "learning_rate": 0.3}),
        ),
        baseline="cutmix",
        uncertain="The networks, and MultiStepLR's rate (0.1) and milestones (half and three quarters of the training), are ours.",
        known=CUTMIX_PLUS,
    ),
    "table2": PaperTable(
        title="Table 2: CIFAR-100, four networks",
        arms=_named("vanilla", "input_mixup", "manifold_mixup", "cutmix", "saliencymix", "puzzlemix", "comixup", "rmix", "rlmix"),
        baseline="rmix",
        uncertain="Which other methods the paper lists, and under which schedule, is not known: here all share OneCycleLR.",
        models=NETWORKS,
        known=CUTMIX_PLUS | RMIX | RLMIX,
    ),
    "table4": PaperTable(
        title="Table 4: ImageNet, ResNet-50, 100 epochs",
        arms=_named("vanilla", "input_mixup", "manifold_mixup", "cutmix", "puzzlemix", "rmix"),
        baseline="rmix",
        uncertain="Which methods the paper lists is not known. The figure is that of the checkpoint its authors published.",
        figures=("top1", "top5"),
        models=("resnet50",),
        data="",
        epochs=100,
        known={("resnet50", "rmix", "top1"): 77.39},
    ),
    "table5": PaperTable(
        title="Table 5: weakly supervised localization on ImageNet, ResNet-50",
        arms=_named("vanilla", "input_mixup", "cutmix", "puzzlemix", "rmix"),
        baseline="rmix",
        uncertain="Methods, threshold and the paper's figures are not known.",
        figures=("localization", "localization_gt_known", "top1"),
        models=("resnet50",),
        data="",
        epochs=100,
    ),
    "table6": PaperTable(
        title="Table 6: calibration, and robustness to FGSM at 8/255",
        arms=_named("vanilla", "input_mixup", "manifold_mixup", "cutmix", "puzzlemix", "comixup", "rmix", "rlmix"),
        baseline="rmix",
        uncertain="Which methods the paper lists is not known.",
        figures=("ece", "fgsm_error", "top1"),
        known={("preactresnet18", "rmix", "ece"): 3.73},
    ),
    "table7": PaperTable(
        title="Table 7: patches a side p, and number of top-k values K",
        arms=_grid(),
        baseline="p=2/4 K=10",
        uncertain="The grid's values are ours; p=2/4 K=10, the paper's choice, has R-Mix's main figure beside it.",
        known=_main_figure("p=2/4 K=10"),
    ),
    "table8": PaperTable(
        title="Table 8: alpha of lam ~ Beta(alpha, alpha)",
        arms=tuple(PaperArm(f"alpha={alpha:g}", "rmix", {"alpha": alpha}) for alpha in (0.2, 0.5, 1.0, 2.0, 4.0)),
        baseline="alpha=1",
        uncertain="The values are ours; alpha=1, the paper's choice, has R-Mix's main figure beside it.",
        known=_main_figure("alpha=1"),
    ),
    "table9": PaperTable(
        title="Table 9: what a training step costs, relative to vanilla",
        arms=_named("vanilla", "cutmix", "saliencymix", "puzzlemix", "comixup", "rmix", "rlmix"),
        baseline="rmix",
        uncertain="That Table 9 is about cost is our reading. One epoch each: a step costs the same in all of them.",
        figures=("step_ratio", "seconds_per_epoch"),
        epochs=1,
        known={("preactresnet18", "saliencymix", "step_ratio"): 2.0, ("preactresnet18", "rlmix", "step_ratio"): 4.0},
    ),
    "table10": PaperTable(
        title="Table 10: the learned policy beside fixed ones",
        arms=(
            *_named("rlmix", "rmix", "rmix-p8"),
            *(PaperArm(f"constant {top_k:g}", "constant", {"top_k": top_k}) for top_k in (0.0, 0.44, 0.99)),
        ),
        baseline="rmix",
        uncertain="That Table 10 is about the policy is our reading; the constants and the control rmix-p8 are ours.",
        figures=("top1", "reward_mean"),
        known=RMIX | RLMIX,
    ),
    "table12": PaperTable(
        title="Table 12: four strategies of mixing two masks",
        arms=(
            PaperArm("1 cut_top", "rmix", {"rule": "cut_top"}),
            PaperArm("2 cut_top_least", "rmix", {"rule": "cut_top_least"}),
            PaperArm("3 mix_top", "rmix", {"rule": "mix_top"}),
            PaperArm("4 mix_least", "rmix", {"rule": "mix_least"}),
        ),
        baseline="3 mix_top",
        uncertain="Of the paper's figures only R-Mix's main one is known, beside its own strategy.",
        known=_main_figure("3 mix_top"),
    ),
}
