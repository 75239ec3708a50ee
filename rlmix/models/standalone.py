"""A classifier with its normalisation, which takes images as they are shown."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlmix.models.outputs import logits_of


class StandaloneClassifier(nn.Module):
    """Normalises, classifies, and gives the logits, whatever the network's output is.

    Args:
        model: Takes normalised images.
        mean: Of a channel, of images in [0, 1].
        std: Of a channel.
    """

    mean: Float[Tensor, "channel 1 1"]
    std: Float[Tensor, "channel 1 1"]

    def __init__(self, model: nn.Module, mean: Float[Tensor, " channel"], std: Float[Tensor, " channel"]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch classes"]:
        """Give the logits of images in [0, 1]."""
        return logits_of(self.model((images - self.mean) / self.std))


def standalone_classifier(
    model: nn.Module, mean: Float[Tensor, " channel"], std: Float[Tensor, " channel"]
) -> StandaloneClassifier:
    """Give the classifier on the host, in eval mode."""
    return StandaloneClassifier(model.to(memory_format=torch.contiguous_format), mean, std).cpu().eval().requires_grad_(False)


def example_images(num_channels: int, image_size: tuple[int, int], batch_size: int = 2) -> dict[str, Tensor]:
    """Inputs of :meth:`StandaloneClassifier.forward` by name: grey images."""
    return {"images": torch.full((batch_size, num_channels, *image_size), 0.5)}
