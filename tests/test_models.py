"""The classifiers: sizes, shapes, seeds and structure."""

import pytest
import torch
from torch import nn

from rlmix.models import MODELS, build_model

SIZES = [("preactresnet18", 11_217_316)]  # 100 classes


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_number_of_parameters(name, size):
    assert count(build_model(name, 100)) == size


def test_w16_is_a_quarter_of_the_width_everywhere():
    full = dict(build_model("preactresnet18", 100).named_parameters())
    quarter = dict(build_model("preactresnet18_w16", 100).named_parameters())
    assert full.keys() == quarter.keys()
    fixed = {3, 100}  # channels of the images, classes, and the kernel's side
    for name, parameter in full.items():
        expected = tuple(size if size in fixed or size == 1 else size // 4 for size in parameter.shape)
        assert quarter[name].shape == expected, name


@pytest.mark.parametrize("name", ["preactresnet18_w16"])
@pytest.mark.parametrize(("size", "channels", "num_classes"), [(32, 3, 10), (64, 3, 200), (32, 1, 2)])
def test_output_is_a_row_of_logits_an_image(name, size, channels, num_classes):
    model = build_model(name, num_classes, channels)
    logits = model(torch.rand(2, channels, size, size))
    assert logits.shape == (2, num_classes)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_every_parameter(name):
    model = build_model(name, 4)
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_same_seed_same_weights_and_the_global_random_state_stays():
    torch.manual_seed(1)
    random_state = torch.get_rng_state()
    first = build_model("preactresnet18_w16", 10, seed=3)
    assert torch.equal(torch.get_rng_state(), random_state)
    torch.manual_seed(2)
    again, other = (build_model("preactresnet18_w16", 10, seed=seed).state_dict() for seed in (3, 4))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again[name]), name
        if name.endswith(("conv1.weight", "stem.weight", "classifier.weight")):
            assert not torch.equal(value, other[name]), name


def test_no_batch_norm_after_the_last_stage():
    """The classifier's input is the spatial mean of the last stage's output, unnormalised and unrectified."""
    model = build_model("preactresnet18_w16", 10).eval()
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(name.startswith("stage") for name in norms)
    assert len(norms) == 16
    seen = {}
    model.stage4.register_forward_hook(lambda module, inputs, output: seen.update(features=output))
    model.classifier.register_forward_hook(lambda module, inputs, output: seen.update(pooled=inputs[0]))
    with torch.no_grad():
        model(torch.rand(2, 3, 32, 32))
    assert seen["features"].shape == (2, 128, 4, 4)
    torch.testing.assert_close(seen["pooled"], seen["features"].mean((2, 3)))
    assert (seen["features"] < 0).any()


def test_stem_is_a_bare_convolution_and_shortcuts_change_shape_only():
    model = build_model("preactresnet18_w16", 10)
    assert isinstance(model.stem, nn.Conv2d)
    assert model.stem.bias is None
    shortcuts = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)}
    assert shortcuts == {f"stage{stage}.0.shortcut" for stage in (2, 3, 4)}


@pytest.mark.parametrize("name", ["preactresnet18_w16"])
def test_blocks_equal_the_pre_activation_formula(name):
    """One block, written out with functional calls: conv2(relu(bn2(conv1(a)))) + shortcut(a), a = relu(bn1(x))."""
    functional = nn.functional
    block = build_model(name, 10).eval().stage2[0]
    x = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        for norm in (block.norm1, block.norm2):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        activated = functional.batch_norm(x, block.norm1.running_mean, block.norm1.running_var).clamp(min=0)
        hidden = functional.conv2d(activated, block.conv1.weight, stride=2, padding=1)
        hidden = functional.batch_norm(hidden, block.norm2.running_mean, block.norm2.running_var).clamp(min=0)
        expected = functional.conv2d(hidden, block.conv2.weight, padding=1)
        expected += functional.conv2d(activated, block.shortcut.weight, stride=2)
        torch.testing.assert_close(block(x.clone()), expected)


def test_unknown_model_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"model must be one of preactresnet18, .* got 'preactresnet_18' \(did you mean 'preact"):
        build_model("preactresnet_18", 10)
    with pytest.raises(ValueError, match=r"got 'zzz'$"):
        build_model("zzz", 10)
