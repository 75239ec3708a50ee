"""The last mixed batch of a process, for people: who was mixed with whom, what was salient, and what became of it."""

import torch
from torch import Tensor

from rlmix.envs.process import MixingProcess
from rlmix.envs.render import heat, shaded
from rlmix.experiments.gallery import shares
from rlmix.reporting.strips import Strip, Strips, Tile


def batch_strips(process: MixingProcess, num_images: int = 8) -> Strips:
    """The first images of the last batch: class, top-k, and lam and the parts of the target below each."""
    outcome, training = process.outcome, process.require_training()
    if outcome is None:
        raise RuntimeError("act() must be called before a picture of its batch")
    decision, pairing = outcome.decision, outcome.pairing
    count = min(num_images, len(decision.batch.labels))
    images = decision.batch.images
    partner = pairing.partner[:count].to(images.device)
    clean = training.to_pixels(images[:count])
    labels, maps, top_k = decision.batch.labels.cpu(), decision.saliency.map[:count], outcome.top_k.cpu()
    salient = shaded(clean, outcome.mask[:count])
    mixed = training.to_pixels(outcome.mixed.images[:count])
    targets = outcome.mixed.targets[:count].float().cpu()
    rows: dict[str, tuple[Tensor, list[list[str]]]] = {
        "image": (clean, [[f"class {int(label)}"] for label in labels[:count]]),
        "partner": (training.to_pixels(images[partner]), [[f"class {int(label)}"] for label in labels[partner.cpu()]]),
        "saliency": (heat(maps), [[]] * count),
        "salient": (salient, [[f"top-k {float(value):.2f}"] for value in top_k[:count]]),
        "mixed": (mixed, [[*shares(target), f"lam {pairing.lam:.2f}"] for target in targets]),
    }
    strips = [Strip(title, _tiles(pixels, lines)) for title, (pixels, lines) in rows.items()]
    size = f"{pairing.num_patches}x{pairing.num_patches}"
    return Strips(
        strips, f"{size} patches; below mixed: classes and their parts of the target, and lam where both images are blended"
    )


def _tiles(pixels: Tensor, lines: list[list[str]]) -> list[Tile]:
    shown = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].expand(*pixels.shape[:-1], 3)
    return [Tile(image.numpy(), text) for image, text in zip(shown.to(torch.uint8).cpu().contiguous(), lines, strict=True)]
