"""Manifold mix-up: input mix-up at a random depth of the network."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from rlmix.common.groups import check_values
from rlmix.common.ranges import above
from rlmix.common.transfer import to_device
from rlmix.maps.gradient import check_images
from rlmix.mixing.core import Mixed, device_of, sample_lam, sample_partner, soft_targets
from rlmix.mixing.input_mixup import interpolate
from rlmix.mixing.objective import Objective, Scored, score
from rlmix.mixing.registry import METHODS, Setting
from rlmix.models.stages import STAGE_NAMES, stage, transformed

LAYERS = ("input", *STAGE_NAMES)
"""Where there is something to blend: the images, or what a stage gives."""


@METHODS.register("manifold_mixup", reads=("stages",))
@dataclass(frozen=True)
class ManifoldMixup:
    """Blend the hidden features ``h`` of one random layer, and the targets: ``lam * h + (1 - lam) * h[partner]``.

    One layer, one permutation and one ``lam ~ Beta(alpha, alpha)`` a batch; the layers are equally likely. The features are mixed
    by a hook within the training step's own pass, so the cost is 1 pass; where the layer is the input, the result is that of
    :class:`~rlmix.mixing.input_mixup.InputMixup`. An image that is its own partner stays; so does a batch of one.

    Args:
        alpha: Parameter of the Beta distribution, > 0.
        layers: Layers to choose from: ``"input"`` and names of stages, after which features are mixed. A model that lacks one of them
            is refused at every call, whichever layer was drawn.

    Source: Verma et al. 2019, "Manifold Mixup: Better Representations by Interpolating Hidden States"; alpha 2 and these three
    layers are its choice for CIFAR. Its published code minimises the binary cross-entropy of every class's softmax output; this is
    the softmax cross-entropy of the paper's text and of all other methods here.
    """

    alpha: Annotated[float, above(0)] = 2.0
    layers: tuple[str, ...] = ("input", "stage1", "stage2")

    def __post_init__(self) -> None:
        check_values(self)
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers or not set(self.layers) <= set(LAYERS):
            raise ValueError(f"layers must be one or more of {', '.join(LAYERS)}, got {self.layers}")

    @classmethod
    def for_training(cls, setting: Setting, **hyperparameters: Any) -> "ManifoldMixup":
        """For a training's classifier, which must have the layers."""
        method = cls(**hyperparameters)
        method._check(setting.model)
        return method

    def _check(self, model: nn.Module) -> None:
        for name in self.layers:
            if name != "input":
                stage(model, name)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        *,
        num_classes: int,
        generator: torch.Generator | None = None,
    ) -> Mixed | Objective:
        check_images(images)
        self._check(model)
        layer = self.layers[int(torch.randint(len(self.layers), (), generator=generator, device=device_of(generator)))]
        partner = to_device(sample_partner(len(images), generator), images.device)
        lam = sample_lam(self.alpha, generator)
        targets = interpolate(soft_targets(labels, num_classes), partner, lam)
        if layer == "input":
            return Mixed(interpolate(images, partner, lam), targets)

        def score_mixed_features(network: nn.Module) -> Scored:
            with transformed(model, layer, lambda features: torch.lerp(Permuted.apply(features, partner), features, lam)):
                return score(Mixed(images, targets), network)

        return Objective(targets, score_mixed_features)


class Permuted(torch.autograd.Function):
    """``features[partner]`` for a permutation: its gradient is gathered by the inverse, where autograd's own scatters and adds."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, partner: Tensor) -> Tensor:
        ctx.save_for_backward(partner)
        return features[partner]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (partner,) = ctx.saved_tensors
        return gradients[0][partner.argsort()], None
