"""What sets mix-up methods apart: the properties of the paper's Table 3, for every method."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """What a method does to an image and its label. None where it does not look at saliency, so that the question has no answer."""

    top_saliency: bool | None
    """What is most salient of an image stays where the partner's is not as salient."""
    least_saliency: bool | None
    """What is least salient of both images has a part in the mixture too."""
    full_image: bool
    """Every pixel of the mixture comes from an image."""
    dropout: bool
    """Parts of an image leave no trace in its mixture."""
    mixed: bool
    """The target names two classes."""
    second_objective: bool
    """Something besides the classifier's cross-entropy is optimised: a mask, a mix block, a consistency."""


TRAITS = {
    "vanilla": Traits(None, None, full_image=True, dropout=False, mixed=False, second_objective=False),
    "input_mixup": Traits(None, None, full_image=True, dropout=False, mixed=True, second_objective=False),
    "manifold_mixup": Traits(None, None, full_image=True, dropout=False, mixed=True, second_objective=False),
    "cutout": Traits(None, None, full_image=False, dropout=True, mixed=False, second_objective=False),
    "cutmix": Traits(None, None, full_image=True, dropout=True, mixed=True, second_objective=False),
    "saliencymix": Traits(True, False, full_image=True, dropout=True, mixed=True, second_objective=False),
    "puzzlemix": Traits(True, False, full_image=True, dropout=True, mixed=True, second_objective=True),
    "comixup": Traits(True, False, full_image=True, dropout=True, mixed=True, second_objective=True),
    "automix": Traits(True, False, full_image=True, dropout=False, mixed=True, second_objective=True),
    "alignmix": Traits(None, None, full_image=True, dropout=False, mixed=True, second_objective=False),
    "augmix": Traits(None, None, full_image=True, dropout=False, mixed=False, second_objective=True),
    "rmix": Traits(True, True, full_image=True, dropout=True, mixed=True, second_objective=False),
    "rlmix": Traits(True, True, full_image=True, dropout=True, mixed=True, second_objective=False),
}


def spell(trait: bool | None) -> str:
    """``yes``, ``no``, or ``?`` where a method does not ask, as the paper has it."""
    return "?" if trait is None else "yes" if trait else "no"
