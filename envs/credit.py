"""The family of credits: who earns a reward. An image's choice mixes two images: its own, and the one it is the partner of.

A credit is a function of ``rewards`` (B,), of each mixed image, and ``partner_of`` (B,), of the mixed image in which each image is the
partner; it gives what each image's choice is paid.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from rlmix.common.registry import Registry

CREDITS: Registry[Callable[[Tensor, Tensor], Tensor]] = Registry("credit")


@CREDITS.register("own")
def own(rewards: Float[Tensor, " batch"], partner_of: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """The image itself: its own mixture's reward."""
    return rewards


@CREDITS.register("pair")
def pair(rewards: Float[Tensor, " batch"], partner_of: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Both images that the choice mixes: half its own reward, half that of the image it is the partner of."""
    return (rewards + partner_of) / 2


@CREDITS.register("batch")
def batch(rewards: Float[Tensor, " batch"], partner_of: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Everyone: the batch's mean."""
    return rewards.mean().expand(len(rewards))


def share_credit(rewards: Float[Tensor, " batch"], partner_of: Float[Tensor, " batch"], credit: str) -> Float[Tensor, " batch"]:
    """What each image's choice is paid under the credit called so.

    Args:
        rewards: Of each mixed image.
        partner_of: Of the mixed image in which each image is the partner.
        credit: One of :data:`CREDITS`.

    Raises:
        ValueError: If there is no such credit, or it gives other than one number an image.
    """
    paid: Any = CREDITS[credit](rewards, partner_of)
    if not isinstance(paid, Tensor) or paid.shape != rewards.shape:
        found = tuple(paid.shape) if isinstance(paid, Tensor) else type(paid).__name__
        raise ValueError(f"credit {credit} must give one number an image, {tuple(rewards.shape)}, got {found}")
    return paid.to(rewards.dtype)
