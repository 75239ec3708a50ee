"""SaliencyMix: CutMix with the box on the partner's most salient point."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlmix.maps.static import fine_grained_saliency
from rlmix.mixing.cutmix import CutMix
from rlmix.mixing.registry import METHODS, Setting


def most_salient(map: Float[Tensor, "batch height width"]) -> Int[Tensor, "batch 2"]:
    """Row and column of each map's largest value, the first one in reading order where there are several."""
    index = map.flatten(1).argmax(1)
    width = map.shape[2]
    return torch.stack([index // width, index % width], 1)


@METHODS.register("saliencymix")
@dataclass(frozen=True)
class SaliencyMix(CutMix):
    """Paste the surroundings of the partner's most salient point into each image, at the place where they were.

    As :class:`~rlmix.mixing.cutmix.CutMix`, one permutation and one ``lam ~ Beta(alpha, alpha)`` a batch, sides ``int(side *
    sqrt(1 - lam))``, but the box of image i is centred on ``argmax S(x[partner[i]])`` and clipped at the border, so every image
    has a box, and by its share of pixels a target, of its own. S is the fine-grained static saliency
    (:func:`~rlmix.maps.static.fine_grained_saliency`): it needs no classifier, so the cost is 1 pass and the map (R-Mix's
    paper says 2). S mostly reaches its maximum twice, where the image is brightest and where it is darkest against its surround;
    the first one in reading order is taken, as in OpenCV, so an image of one colour has its most salient point at the top left. A
    batch of one is its own partner and stays.

    Args:
        alpha: Parameter of the Beta distribution, > 0.
        probability: Of mixing a batch at all, in [0, 1].

    Source: Uddin et al. 2021, "SaliencyMix: A Saliency Guided Data Augmentation Strategy for Better Regularization". Differences from
    the published code, which follow the paper's equation:

    - It takes one box for the whole batch from the map of one partner: the other images get a box that says nothing about them,
      little else than CutMix. Here each pair has its own; all maps are computed at once, so this costs no loop.
    - It hands normalised floats to an OpenCV routine that reads them as bytes: on 400 CIFAR-100 images its most salient pixel was no
      nearer to that of the bytes than chance has it. Here the map is that of the normalised images, which hardly differs.
    - It cuts ``side // 2`` pixels to both sides of the centre, which loses a row and a column of every odd box.
    """

    @classmethod
    def for_training(cls, setting: Setting, **hyperparameters: Any) -> "SaliencyMix":
        """The same for all data."""
        return cls(**hyperparameters)

    def centers(
        self,
        images: Float[Tensor, "batch channel height width"],
        partner: Int[Tensor, " batch"],
        generator: torch.Generator | None,
    ) -> Int[Tensor, "batch 2"]:
        """Each partner's most salient pixel; nothing is drawn."""
        return most_salient(fine_grained_saliency(images))[partner]
