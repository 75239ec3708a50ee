"""The stem's convolution and its blockwise input gradient, against torch's own."""

import pytest
import torch
from torch import nn
from torch.nn.grad import conv2d_input, conv2d_weight

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


def backward(layer, autocast):
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = layer(images)
    output.float().square().sum().backward()
    return output, images, layer.weight


@pytest.mark.parametrize("autocast", [False, True])
def test_all_gradients_with_autocast_and_without(autocast):
    torch.manual_seed(0)
    stem, plain = Stem(3, 16), nn.Conv2d(3, 16, 3, padding=1, bias=False)
    plain.load_state_dict(stem.state_dict())
    (output, images, weight), (theirs, their_images, their_weight) = backward(stem, autocast), backward(plain, autocast)
    assert output.dtype == theirs.dtype
    torch.testing.assert_close(output, theirs)
    for ours, torchs in ((images.grad, their_images.grad), (weight.grad, their_weight.grad)):
        assert ours.dtype == torchs.dtype == torch.float32
        if not autocast:
            torch.testing.assert_close(ours, torchs)


def test_gradients_in_bfloat16_are_those_of_the_rounded_numbers():
    """Against float64, within the rounding of bfloat16; processors sum its products in different orders, torch's own too."""
    torch.manual_seed(0)
    output, images, weight = backward(Stem(3, 16), True)
    x, w, g = (value.detach().bfloat16().double() for value in (images, weight, 2 * output.float()))
    exact = conv2d_input(x.shape, w, g, padding=1), conv2d_weight(x, w.shape, g, padding=1)
    size = conv2d_input(x.shape, w.abs(), g.abs(), padding=1), conv2d_weight(x.abs(), w.shape, g.abs(), padding=1)
    for found, expected, terms in zip((images.grad, weight.grad), exact, size, strict=True):
        assert ((found - expected).abs() <= 2**-8 * terms).all()


def test_odd_sides_and_images_without_gradient_take_the_plain_way():
    stem = Stem(3, 4)
    for images in (torch.randn(1, 3, 7, 7).requires_grad_(), torch.randn(1, 3, 8, 8)):
        assert "Blockwise" not in type(stem(images).grad_fn).__name__
    assert "Blockwise" in type(stem(torch.randn(1, 3, 8, 8).requires_grad_()).grad_fn).__name__


def test_it_can_be_differentiated_twice():
    stem = Stem(2, 3).double()
    images = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda values: stem(values).square(), images)
