"""Equations 2 to 7 in plain NumPy, float64, one image and one patch at a time; shares no code with rlmix."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import config
from numpy.typing import NDArray

Array = NDArray[np.float64]


@contextmanager
def unchecked() -> Iterator[None]:
    """Without conftest's shape checks, as users call rlmix: wrong arguments reach rlmix's own checks."""
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)


def softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def linear_gradient(images: Array, labels: NDArray[np.int64], weight: Array, bias: Array) -> Array:
    """Input gradient of the mean cross-entropy of softmax(W x + b), derived by hand: W^T (softmax - onehot) / B."""
    batch = len(images)
    residual = softmax(images.reshape(batch, -1) @ weight.T + bias)
    residual[np.arange(batch), labels] -= 1
    return (residual @ weight / batch).reshape(images.shape)


def finite_differences(loss: Callable[[Array], float], images: Array, step: float = 1e-5) -> Array:
    """Central differences, pixel by pixel."""
    gradient = np.zeros_like(images)
    for index in np.ndindex(images.shape):
        forward, backward = images.copy(), images.copy()
        forward[index] += step
        backward[index] -= step
        gradient[index] = (loss(forward) - loss(backward)) / (2 * step)
    return gradient


def gradient_map(gradient: Array) -> Array:
    """Eq. 2."""
    batch, channels, height, width = gradient.shape
    result = np.zeros((batch, height, width))
    for channel in range(channels):
        result += gradient[:, channel] ** 2 / channels
    return np.sqrt(result)


def patch_saliency(maps: Array, num_patches: int) -> Array:
    """Eq. 3."""
    batch, height, width = maps.shape
    tall, wide = height // num_patches, width // num_patches
    result = np.zeros((batch, num_patches, num_patches))
    for image in range(batch):
        for row in range(num_patches):
            for column in range(num_patches):
                result[image, row, column] = maps[
                    image, row * tall : (row + 1) * tall, column * wide : (column + 1) * wide
                ].mean()
        total = result[image].sum()
        result[image] = result[image] / total if np.isfinite(total) and total > 0 else 1 / num_patches**2
    return result


def salient_mask(patches: Array, top_k: Array) -> NDArray[np.bool_]:
    """Eq. 4."""
    return np.stack([image >= np.quantile(image, q, method="linear") for image, q in zip(patches, top_k, strict=True)])


def own_weight(own: bool, theirs: bool, lam: float, rule: str) -> float:
    """Weight of the first image in one patch (Table 12)."""
    if rule == "cut_top":
        return 1.0 if own else 0.0
    if rule == "cut_top_least":
        return 1.0 if own == theirs else 0.0
    if own == theirs:
        return lam
    salient = 1.0 if own else 0.0
    return salient if rule == "mix_top" else 1 - salient


def mix(
    images: Array, targets: Array, mask: NDArray[np.bool_], partner: NDArray[np.int64], lam: float | Array, rule: str
) -> tuple[Array, Array]:
    """Eq. 5 to 7, with soft targets; the share is counted pixel by pixel."""
    batch, _, height, width = images.shape
    num_patches = mask.shape[1]
    lams = np.broadcast_to(np.asarray(lam, dtype=np.float64), batch)
    mixed, mixed_targets = np.zeros_like(images), np.zeros_like(targets)
    for image in range(batch):
        other, share = partner[image], 0.0
        for y in range(height):
            for x in range(width):
                row, column = y * num_patches // height, x * num_patches // width
                weight = own_weight(mask[image, row, column], mask[other, row, column], lams[image], rule)
                mixed[image, :, y, x] = weight * images[image, :, y, x] + (1 - weight) * images[other, :, y, x]
                share += weight / (height * width)
        mixed_targets[image] = share * targets[image] + (1 - share) * targets[other]
    return mixed, mixed_targets


def expected_calibration_error(probabilities: Array, labels: NDArray[np.int64], num_bins: int) -> float:
    """Guo et al. 2017, Eq. 2 and 3: bins open below, closed above."""
    confidence, prediction = probabilities.max(1), probabilities.argmax(1)
    total = 0.0
    for bin in range(num_bins):
        inside = (confidence > bin / num_bins) & (confidence <= (bin + 1) / num_bins)
        if inside.any():
            total += inside.sum() * abs((prediction == labels)[inside].mean() - confidence[inside].mean())
    return 100 * total / len(labels)
