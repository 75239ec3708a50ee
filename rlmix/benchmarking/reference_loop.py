"""Vanilla training as a tutorial writes it, with torchvision's transforms and torch's DataLoader: what rlmix's vanilla is held against."""

import os
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import v2

from rlmix.benchmarking.stopwatch import time_steps
from rlmix.config import Config
from rlmix.data.memory import ImageData
from rlmix.models import build_model

WORKERS = (0, 2, 8)
"""Numbers of loading processes that are tried, where there are as many cores."""


class TransformedImages(Dataset[tuple[Tensor, Tensor]]):
    """Training images (C, H, W), bytes, one by one through random crop, flip and normalisation."""

    def __init__(self, data: ImageData, crop_padding: int, flip: bool) -> None:
        self.images = data.train_images.cpu().permute(0, 3, 1, 2).contiguous()
        self.labels = data.train_labels.cpu()
        self.transform = v2.Compose(
            [
                v2.RandomCrop(data.image_size, padding=crop_padding),
                v2.RandomHorizontalFlip(0.5 if flip else 0.0),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(data.mean.tolist(), data.std.tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[index]), self.labels[index]


class HandwrittenLoop:
    """The work of :meth:`rlmix.training.trainer.Training.fit_step` under vanilla, a step at a time.

    Args:
        config: What to train and how.
        data: The data set.
        device: Where to train.
        num_workers: Processes that load and transform; 0 for none.
        channels_last: Memory format.
    """

    def __init__(self, config: Config, data: ImageData, device: torch.device, num_workers: int, channels_last: bool) -> None:
        recipe = config.recipe
        self.device, self.num_workers = device, num_workers
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        bfloat16 = config.device.precision == "bfloat16" or (config.device.precision == "auto" and device.type == "cuda")
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)
        model = build_model(recipe.model, data.num_classes, data.num_channels, config.run.seed)
        model = model.to(device).to(memory_format=self.format)
        self.model = torch.compile(model) if config.model.compile else model
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            recipe.learning_rate,
            momentum=config.optim.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=True,
            fused=True,
        )
        dataset = TransformedImages(data, recipe.crop_padding, recipe.flip)
        num_steps = recipe.epochs * (len(dataset) // recipe.batch_size)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, recipe.learning_rate, total_steps=num_steps, cycle_momentum=False
        )
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        # all epochs in a row: the loading processes do not start anew with each of the benchmark's short ones
        sampler = RandomSampler(dataset, num_samples=num_steps * recipe.batch_size)
        self.batches: Iterator[list[Tensor]] = iter(
            DataLoader(
                dataset,
                recipe.batch_size,
                sampler=sampler,
                drop_last=True,
                num_workers=num_workers,
                pin_memory=device.type == "cuda",
            )
        )

    @property
    def prefetched(self) -> int:
        """Batches that the workers load ahead."""
        return 2 * self.num_workers

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Images and labels, on the device."""
        images, labels = next(self.batches)
        images = images.to(self.device, memory_format=self.format, non_blocking=True)
        return images, labels.to(self.device, non_blocking=True)

    def step(self) -> None:
        """One optimizer step on the next batch."""
        images, labels = self.next_batch()
        with self.autocast:
            logits = self.model(images)
        loss = F.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.correct += (logits.argmax(1) == labels).sum()


def best_loop(config: Config, data: ImageData, device: torch.device) -> tuple[HandwrittenLoop, dict[str, float]]:
    """The hand-written loop at its fastest setting, and the milliseconds a step of every setting tried, the fastest first.

    Each runs alone, in consecutive steps, after as many untimed ones as use up what its workers loaded before.
    """
    best, step_ms = None, {}
    for num_workers in [count for count in WORKERS if count <= (os.cpu_count() or 1)]:
        for channels_last in (False, True):
            loop = HandwrittenLoop(config, data, device, num_workers, channels_last)
            name = f"{num_workers} workers, {'channels_last' if channels_last else 'contiguous'}"
            step_ms[name] = 1000 * time_steps(loop.step, device, lead=max(3, loop.prefetched), run=8)
            if best is None or step_ms[name] == min(step_ms.values()):
                best = loop
    assert best is not None
    return best, dict(sorted(step_ms.items(), key=lambda item: item[1]))
