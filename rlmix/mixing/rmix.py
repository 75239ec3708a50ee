"""R-Mix as a drop-in for any training loop."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from rlmix.common.transfer import to_device
from rlmix.data.augmentation import CropFlip, ResizedCrop
from rlmix.maps.gradient import check_images, check_labels, patch_saliency, saliency, salient_mask
from rlmix.maps.patches import check_patches
from rlmix.maps.recycled import RecycledMaps
from rlmix.mixing.core import Mixed, Pairing, check_mixing, mix, patch_weights, sample_pairing, sample_top_k
from rlmix.option_groups import MASK_PATCHES


@dataclass(frozen=True)
class RMix:
    """R-Mix for any training loop: ``mixed = RMix()(model, images, labels, num_classes=100)``.

    Takes the saliency of the batch, draws partners, one ``lam``, one ``num_patches`` and a random top-k value an image, and mixes.
    Sampling (:func:`~rlmix.mixing.core.sample_pairing`, :func:`~rlmix.mixing.core.sample_top_k`) and applying (:meth:`apply`) are separate.

    Args:
        num_top_k: How many top-k values there are, ``linspace(0, 0.99, num_top_k)``.
        num_patches: Patches per side of the masks, one drawn a batch; each at most the pixels of the shorter side. Sizes that one does not
            divide have patches that differ by a pixel, see :func:`rlmix.maps.patches.patch_sides`.
        alpha: Parameter of ``lam ~ Beta(alpha, alpha)``, > 0.
        rule: How patches are mixed, see :func:`~rlmix.mixing.core.mix`.
        num_classes: N of the labels; as many as the model has logits where it is given nowhere.
        recycle: Maps that take the place of the saliency pass (:class:`~rlmix.maps.recycled.RecycledMaps`); ``num_classes`` must be given
            then, and with every batch its ``indices``.

    Source: "Expeditious Saliency-guided Mix-up through Random Gradient Thresholding" (Luu et al. 2022), Eq. 2 to 7.
    """

    num_top_k: int = 10
    num_patches: tuple[int, ...] = MASK_PATCHES
    alpha: float = 1.0
    rule: str = "mix_top"
    num_classes: int | None = None
    recycle: RecycledMaps | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_patches", tuple(self.num_patches))
        check_mixing(self.num_top_k, self.num_patches, self.alpha, self.rule)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        *,
        num_classes: int | None = None,
        generator: torch.Generator | None = None,
        top_k_generator: torch.Generator | None = None,
        indices: Int[Tensor, " batch"] | None = None,
        draw: CropFlip | ResizedCrop | None = None,
    ) -> Mixed:
        """Mix a batch.

        Args:
            model: The classifier in training; left as found.
            images: The batch, as the model takes it.
            labels: Class indices of any integer type, or soft targets (B, N): one-hot, smoothed, multi-hot.
            num_classes: N; the constructor's, or as many as the model has logits, where not given.
            generator: Draws partners, lam and num_patches; the global one where None.
            top_k_generator: Draws the top-k values; ``generator`` where None.
            indices: Of the images in the training set; under ``recycle``, and only then.
            draw: How they were cropped and mirrored, where maps are to move along.
        """
        check_images(images)
        check_patches(self.num_patches, images.shape[2:])
        labels = check_labels(labels, len(images))
        num_classes = num_classes or self.num_classes or (labels.shape[1] if labels.ndim == 2 else None)
        if self.recycle is None:
            if indices is not None or draw is not None:
                raise ValueError("indices and draw must be left out without recycle, which keeps the maps that they belong to")
            map, logits = saliency(model, images, labels)
            num_classes = num_classes or logits.shape[1]
        else:
            map = self.recycle.seen(images, indices, draw).to(images.device)
            if num_classes is None:
                raise ValueError(
                    "num_classes must be given under recycle, where no pass tells how many logits there are, got None"
                )
        pairing = sample_pairing(len(images), self.num_patches, self.alpha, generator)
        pairing = pairing._replace(partner=to_device(pairing.partner, images.device))
        top_k = sample_top_k(len(images), self.num_top_k, top_k_generator or generator)
        mask = self._mask(map, pairing, top_k)
        mixed = mix(images, labels, mask, pairing.partner, pairing.lam, self.rule, num_classes=num_classes)
        if self.recycle is not None and indices is not None:
            weights = patch_weights(mask, mask[pairing.partner], pairing.lam, self.rule)
            self.recycle.expect(indices, draw, weights, pairing.partner)
            mixed = mixed._replace(images=mixed.images.detach().requires_grad_())
        return mixed

    def apply(
        self,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        map: Float[Tensor, "batch height width"],
        pairing: Pairing,
        top_k: Float[Tensor, " batch"],
        *,
        num_classes: int,
    ) -> Mixed:
        """Mix by what has been drawn; deterministic."""
        partner = to_device(pairing.partner, images.device)
        return mix(images, labels, self._mask(map, pairing, top_k), partner, pairing.lam, self.rule, num_classes=num_classes)

    def _mask(self, map: Tensor, pairing: Pairing, top_k: Tensor) -> Tensor:
        return salient_mask(patch_saliency(map, pairing.num_patches), to_device(top_k, map.device))
