"""The stem's convolution and its blockwise input gradient, against torch's own."""

import pytest
import torch
from torch import nn

from rlmix.models.stem import Stem, input_gradient


@pytest.mark.parametrize(("height", "width", "in_channels"), [(8, 8, 3), (6, 10, 1), (2, 2, 4)])
def test_the_input_gradient_is_torchs(height, width, in_channels):
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2, in_channels, height, width, generator=draw, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, in_channels, 3, 3, generator=draw, dtype=torch.float64)
    output = torch.conv2d(images, weight, padding=1)
    gradient = torch.randn(output.shape, generator=draw, dtype=torch.float64)
    (expected,) = torch.autograd.grad(output, images, gradient)
    torch.testing.assert_close(input_gradient(gradient, weight), expected, atol=1e-12, rtol=0)


def test_a_literal_gradient():
    """A kernel that only looks at its upper left neighbour hands each output's gradient to that neighbour."""
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 0, 0] = 2.0
    gradient = torch.arange(16.0).reshape(1, 1, 4, 4)
    expected = [[10, 12, 14, 0], [18, 20, 22, 0], [26, 28, 30, 0], [0, 0, 0, 0]]
    assert input_gradient(gradient, weight)[0, 0].tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_gradients_with_autocast_and_without(dtype):
    torch.manual_seed(0)
    stem, plain = Stem(3, 16), nn.Conv2d(3, 16, 3, padding=1, bias=False)
    plain.load_state_dict(stem.state_dict())
    found = []
    for layer in (stem, plain):
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            output = layer(images)
        output.float().square().sum().backward()
        found.append((output, images.grad, layer.weight.grad))
    for ours, torchs in zip(*found, strict=True):
        assert ours.dtype == torchs.dtype
        torch.testing.assert_close(ours, torchs)


def test_odd_sides_and_images_without_gradient_take_the_plain_way():
    stem = Stem(3, 4)
    for images in (torch.randn(1, 3, 7, 7).requires_grad_(), torch.randn(1, 3, 8, 8)):
        assert "Blockwise" not in type(stem(images).grad_fn).__name__
    assert "Blockwise" in type(stem(torch.randn(1, 3, 8, 8).requires_grad_()).grad_fn).__name__


def test_it_can_be_differentiated_twice():
    stem = Stem(2, 3).double()
    images = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda values: stem(values).square(), images)
