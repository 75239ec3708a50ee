"""A training loop as anyone writes it, to hold other people's trainers against."""

import torch
from torch import nn
from torch.nn import functional as F

NUM_CLASSES, SIZE = 4, 16


def make_network():
    """The same small network every time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96, NUM_CLASSES))


def make_batches(number=6, size=8):
    """Images and labels, the same every time."""
    generator = torch.Generator().manual_seed(1)
    draw = [torch.rand(size, 3, SIZE, SIZE, generator=generator) for _ in range(number)]
    return [(images, torch.randint(NUM_CLASSES, (size,), generator=generator)) for images in draw]


def drawing():
    """The generator that a loop's mixtures are drawn by."""
    return torch.Generator().manual_seed(2)


def train(model, mixer, batches, learning_rate=0.1):
    """Plain SGD on mixed batches; the mixer is paid where it learns. Gives the losses."""
    optimizer, generator, losses = torch.optim.SGD(model.parameters(), learning_rate), drawing(), []
    for images, labels in batches:
        mixed = mixer(model, images, labels, num_classes=NUM_CLASSES, generator=generator)
        output = model(mixed.images)
        loss = F.cross_entropy(getattr(output, "logits", output), mixed.targets)
        optimizer.zero_grad()
        loss.backward()
        if hasattr(mixer, "feedback"):
            mixer.feedback()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
