"""ResNeXt for 32-pixel images (Xie et al. 2017, "Aggregated Residual Transformations for Deep Neural Networks")."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ResNeXtBlock(nn.Module):
    """1x1 convolution to the groups' channels, grouped 3x3, 1x1 back, beside a shortcut; ReLU of the sum.

    Args:
        in_channels: Of the input.
        channels: Of the output.
        group_width: Channels of each group.
        cardinality: Groups.
        stride: Of the grouped convolution and the shortcut.
    """

    def __init__(self, in_channels: int, channels: int, group_width: int, cardinality: int, stride: int) -> None:
        super().__init__()
        hidden = cardinality * group_width
        self.reduce = nn.Sequential(nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True))
        grouped = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=cardinality, bias=False)
        self.grouped = nn.Sequential(grouped, nn.BatchNorm2d(hidden), nn.ReLU(inplace=True))
        self.expand = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))
        changes = stride != 1 or in_channels != channels
        shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
        self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(channels)) if changes else None

    def forward(self, features: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel2 height2 width2"]:
        shortcut = features if self.shortcut is None else self.shortcut(features)
        return F.relu(self.expand(self.grouped(self.reduce(features))) + shortcut)


class ResNeXt(nn.Module):
    """A ResNeXt of three stages with 256, 512 and 1024 channels.

    Args:
        depth: Convolutions and the classifier, shortcuts aside: 2 more than a multiple of 9.
        cardinality: Groups of the 3x3 convolutions.
        base_width: Channels of a group in the first stage; each further stage doubles them.
        num_classes: N.
        in_channels: Channels of the images.
    """

    def __init__(self, depth: int, cardinality: int, base_width: int, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        num_blocks, rest = divmod(depth - 2, 9)
        if rest or num_blocks < 1:
            raise ValueError(f"depth must be 2 more than a multiple of 9, got {depth}")
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True))
        self.stage1 = _stage(num_blocks, 64, 256, base_width, cardinality, stride=1)
        self.stage2 = _stage(num_blocks, 256, 512, 2 * base_width, cardinality, stride=2)
        self.stage3 = _stage(num_blocks, 512, 1024, 4 * base_width, cardinality, stride=2)
        self.classifier = nn.Linear(1024, num_classes)

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch classes"]:
        features = self.stem(images)
        for stage in (self.stage1, self.stage2, self.stage3):
            features = stage(features)
        return self.classifier(features.mean((2, 3)))


def _stage(num_blocks: int, in_channels: int, channels: int, group_width: int, cardinality: int, stride: int) -> nn.Sequential:
    first = ResNeXtBlock(in_channels, channels, group_width, cardinality, stride)
    rest = (ResNeXtBlock(channels, channels, group_width, cardinality, stride=1) for _ in range(num_blocks - 1))
    return nn.Sequential(first, *rest)
