"""The network of a training, as a configuration asks for it: its weights, what of it learns, and its format in memory."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.models import build_model
from rlmix.models.head import freeze_backbone
from rlmix.models.memory_format import takes_channels_last
from rlmix.models.pretrained import load_pretrained
from rlmix.models.stages import name_stages
from rlmix.training.frozen import freeze, read_pretrained


class Network(NamedTuple):
    """What :func:`make_network` gives."""

    model: nn.Module
    channels_last: bool
    """Whether its weights are so, and its images are to be."""
    loaded: str | None
    """What was loaded of ``config.model.weights``, in a line."""


def make_network(config: Config, data: Dataset, device: torch.device) -> Network:
    """Build the classifier of a training, before anything keeps its parameters.

    Args:
        config: Resolved.
        data: What it is trained on.
        device: Where.

    Raises:
        OSError: If a run or file that weights are taken of cannot be read.
        ValueError: If there is no such network, or the weights are another's.
    """
    name, options = config.recipe.model, config.model
    model = build_model(name, data.num_classes, data.num_channels, config.run.seed, data.image_size)
    if options.freeze_from is not None:
        freeze(model, name, options.freeze_from)
    if options.stages is not None:
        name_stages(model, options.stages)
    loaded = None
    if options.weights is not None:
        loaded = load_pretrained(model, name, data.num_classes, read_pretrained(Path(options.weights)), options.weights)
    if options.freeze_backbone:
        freeze_backbone(model, data.num_classes)
    channels_last = options.channels_last and takes_channels_last(model, device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    return Network(model.to(device), channels_last, loaded)
