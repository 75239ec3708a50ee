"""The classifiers, by name."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from rlmix.common.names import check_name
from rlmix.common.seeding import drawing_from, stream
from rlmix.models.preactresnet import PreActResNet
from rlmix.models.resnext import ResNeXt
from rlmix.models.wideresnet import WideResNet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "preactresnet18": partial(PreActResNet, (2, 2, 2, 2), width=64),
    "preactresnet18_w16": partial(PreActResNet, (2, 2, 2, 2), width=16),
    "wideresnet16_8": partial(WideResNet, 16, 8),
    "wideresnet28_10": partial(WideResNet, 28, 10),
    "resnext29_4x24": partial(ResNeXt, 29, 4, 24),
}
"""The project's own, for images of 32 pixels."""

SMALL_PIXELS = 64
"""Below this, what ImageNet's stems leave of an image (an eighth to a quarter a side) is too little for a network's later stages."""


def model_names() -> list[str]:
    """Every name :func:`build_model` takes: :data:`MODELS`, and torchvision's classifiers."""
    import torchvision

    return [*MODELS, *torchvision.models.list_models(module=torchvision.models)]


def build_model(
    name: str, num_classes: int, in_channels: int = 3, seed: int = 0, image_size: tuple[int, int] | None = None
) -> nn.Module:
    """A freshly initialised classifier.

    Args:
        name: One of :data:`MODELS`, or a classifier of torchvision such as ``resnet50``, with its own stem and random weights.
        num_classes: N.
        in_channels: Channels of the images.
        seed: Of the initial weights. The global random state is neither read nor moved, so any thread may build.
        image_size: Height and width of the images. A network of torchvision warns where they are small for its stem.

    Raises:
        ValueError: If there is no such model, or one of torchvision is to take other than three channels.
    """
    if name not in MODELS:
        check_name("model", name, model_names())
    with drawing_from(stream(seed, "init")):
        if name in MODELS:
            return MODELS[name](num_classes=num_classes, in_channels=in_channels)
        return _build_torchvision(name, num_classes, in_channels, image_size)


def _build_torchvision(name: str, num_classes: int, in_channels: int, image_size: tuple[int, int] | None) -> nn.Module:
    import torchvision

    if in_channels != 3:
        raise ValueError(f"model {name} takes images of 3 channels, got {in_channels}")
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    elif image_size is not None and name.startswith("vit_"):
        options = {"image_size": image_size[0]}
    elif image_size is not None and name == "maxvit_t":
        options = {"input_size": image_size}
    if image_size is not None and min(image_size) < SMALL_PIXELS:
        height, width = image_size
        warnings.warn(f"{name} keeps its stem, made for 224 pixels; {height}x{width} leave it little to see", stacklevel=3)
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
