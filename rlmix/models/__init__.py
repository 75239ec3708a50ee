"""The classifiers, by name."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from rlmix.common.names import check_name
from rlmix.common.registry import Registry, load_attribute
from rlmix.common.seeding import drawing_from, stream
from rlmix.models.given import build_given, call
from rlmix.models.hugging_face import build_hugging_face
from rlmix.models.preactresnet import PreActResNet
from rlmix.models.resnext import ResNeXt
from rlmix.models.wideresnet import WideResNet
from rlmix.recipes import GIVEN

MODELS: Registry[Callable[..., nn.Module]] = Registry("model")
"""The project's own, for images of 32 pixels. They are called with ``num_classes`` and ``in_channels``."""
MODELS.add("preactresnet18", partial(PreActResNet, (2, 2, 2, 2), width=64), doc="PreAct ResNet-18, the paper's PARN-18.")
MODELS.add("preactresnet18_w16", partial(PreActResNet, (2, 2, 2, 2), width=16), doc="The same at a quarter of its width.")
MODELS.add("wideresnet16_8", partial(WideResNet, 16, 8), doc="Wide ResNet 16-8.")
MODELS.add("wideresnet28_10", partial(WideResNet, 28, 10), doc="Wide ResNet 28-10.")
MODELS.add("resnext29_4x24", partial(ResNeXt, 29, 4, 24), doc="ResNeXt 29 with 4 groups of 24.")

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
        name: One of :data:`MODELS`; a classifier of torchvision such as ``resnet50`` or ``torchvision:resnet50``, with its own stem and
            random weights; ``timm:NAME`` (the extra ``timm``); ``hf:PATH``, a configuration of Hugging Face's (the extra
            ``transformers``); ``given``, the one that Python gives (:func:`~rlmix.models.given.giving`); or ``module:function``, which
            is called with those of the keywords ``num_classes``, ``num_channels`` and ``image_size`` that it takes and gives a module
            from images to logits.
        num_classes: N.
        in_channels: Channels of the images.
        seed: Of the initial weights. The global random state is neither read nor moved, so any thread may build.
        image_size: Height and width of the images. A network of torchvision warns where they are small for its stem.

    Raises:
        ValueError: If there is no such model, one of torchvision is to take other than three channels, or ``module:function`` fails.
    """
    check_model(name)
    with drawing_from(stream(seed, "init")):
        if name in MODELS:
            return MODELS[name](num_classes=num_classes, in_channels=in_channels)
        if name.startswith("timm:"):
            return _build_timm(name, num_classes, in_channels, image_size)
        if name.startswith("hf:"):
            return build_hugging_face(name.removeprefix("hf:"), num_classes, in_channels, image_size)
        own = {"num_classes": num_classes, "num_channels": in_channels, "in_channels": in_channels, "image_size": image_size}
        if name == GIVEN:
            return build_given(own)
        if ":" in name and not name.startswith("torchvision:"):
            return _build_own(name, own)
        return _build_torchvision(name.removeprefix("torchvision:"), num_classes, in_channels, image_size)


def check_model(name: str) -> None:
    """Raise ValueError where no classifier has this name; ``module:function`` is looked for when it is built."""
    if name != GIVEN and (name.startswith("torchvision:") or ":" not in name):
        check_name("model", name.removeprefix("torchvision:"), model_names(), "rlmix list models")


def _build_own(name: str, keywords: dict[str, Any]) -> nn.Module:
    """Somebody's own function, with those of the keywords that it takes."""
    build = load_attribute("model", name)
    if not callable(build):
        raise ValueError(f"model {name} must be a function or a class, got {type(build).__name__}")
    return call(name, build, keywords)


def _build_timm(name: str, num_classes: int, in_channels: int, image_size: tuple[int, int] | None) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ValueError(f'model {name} must have timm installed: pip install "rlmix[timm]"') from error
    known = name.removeprefix("timm:")
    if not timm.is_model(known):
        check_name("model", known, timm.list_models(), "timm.list_models()")
    sizes: dict[str, Any] = {"img_size": image_size} if image_size is not None else {}
    try:
        model: nn.Module = timm.create_model(known, num_classes=num_classes, in_chans=in_channels, **sizes)
    except TypeError:  # a convolutional network takes images of any size, and no argument for it
        model = timm.create_model(known, num_classes=num_classes, in_chans=in_channels)
    return model


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
