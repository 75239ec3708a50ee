"""Maps that know less than they seem to: what is left of a method under them is not saliency's doing. Each costs an exact pass."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rlmix.common.seeding import stream
from rlmix.common.transfer import to_device
from rlmix.maps.approximate import SALIENCY_MODES, ExactPass, Moment, SaliencySource, Surroundings
from rlmix.maps.gradient import Saliency

NOISE = 4
"""Points a side between which a map of noise is smooth."""


@SALIENCY_MODES.register("random")
class RandomMaps(SaliencySource):
    """Control: smooth noise in place of every map; logits are the exact pass's."""

    def __call__(self, look: ExactPass, images: Tensor, labels: Tensor, moment: Moment) -> Saliency:
        draw = stream(self.setting.seed, f"maps {moment.epoch} {moment.batch} {self.setting.ranks.rank}")
        noise = to_device(torch.rand(len(images), 1, NOISE, NOISE, generator=draw), images.device)
        map = F.interpolate(noise, images.shape[2:], mode="bilinear", align_corners=True)[:, 0]
        return Saliency(map, look(images, labels).logits)


@SALIENCY_MODES.register("position")
class MeanMap(SaliencySource):
    """Control: one map for all images, the mean so far of the exact ones by position in the batch's frame."""

    def __init__(self, setting: Surroundings) -> None:
        super().__init__(setting)
        if setting.ranks.size > 1:
            raise ValueError("saliency_mode position must be used on one device, as each would have a mean of its own images")
        self.total: Float[Tensor, "height width"] = torch.zeros(setting.image_size, dtype=torch.float64, device=setting.device)

    def __call__(self, look: ExactPass, images: Tensor, labels: Tensor, moment: Moment) -> Saliency:
        map, logits = look(images, labels)
        self.total += (map / map.mean((1, 2), keepdim=True)).nan_to_num(0, 0, 0).double().sum(0)
        return Saliency(self.total.float().expand_as(map), logits)

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total.copy_(state["total"])


@SALIENCY_MODES.register("other")
class OthersMap(SaliencySource):
    """Control: every image has the exact map of another one of its batch, and its own logits."""

    def __call__(self, look: ExactPass, images: Tensor, labels: Tensor, moment: Moment) -> Saliency:
        map, logits = look(images, labels)
        return Saliency(map.roll(1, 0), logits)
