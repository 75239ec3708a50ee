"""Pre-activation residual networks for 32-pixel images (He et al. 2016, "Identity Mappings in Deep Residual Networks").

This is the variant of the mix-up papers (Manifold Mixup, PuzzleMix, R-Mix): the stem is a bare convolution, shortcuts are bare 1x1
convolutions of the activated input, and no batch norm precedes the final pooling.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rlmix.models.stem import Stem


class PreActBlock(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, twice, beside a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        changes = stride != 1 or in_channels != channels
        self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False) if changes else None

    def forward(self, features: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel2 height2 width2"]:
        activated = F.relu(self.norm1(features), inplace=True)  # in place: batch norm's backward reads its input only
        shortcut = features if self.shortcut is None else self.shortcut(activated)
        hidden = self.conv1(activated)
        return self.conv2(F.relu(self.norm2(hidden), inplace=True)).add_(shortcut)


class PreActResNet(nn.Module):
    """A pre-activation ResNet of basic blocks.

    Args:
        num_blocks: Blocks in each of the four stages.
        num_classes: N.
        width: Channels of the first stage; each further stage doubles them and halves the resolution.
        in_channels: Channels of the images.
    """

    def __init__(self, num_blocks: tuple[int, int, int, int], num_classes: int, width: int = 64, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = Stem(in_channels, width)
        self.stage1 = _stage(num_blocks[0], width, width, stride=1)
        self.stage2 = _stage(num_blocks[1], width, 2 * width, stride=2)
        self.stage3 = _stage(num_blocks[2], 2 * width, 4 * width, stride=2)
        self.stage4 = _stage(num_blocks[3], 4 * width, 8 * width, stride=2)
        self.classifier = nn.Linear(8 * width, num_classes)

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch classes"]:
        features = self.stem(images)
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            features = stage(features)
        return self.classifier(features.mean((2, 3)))


def _stage(num_blocks: int, in_channels: int, channels: int, stride: int) -> nn.Sequential:
    first = PreActBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(PreActBlock(channels, channels, stride=1) for _ in range(num_blocks - 1)))
