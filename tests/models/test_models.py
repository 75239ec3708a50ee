"""The classifiers: sizes, shapes, seeds and structure."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import rlmix
from rlmix.data.memory import image_data
from rlmix.models import MODELS, build_model, model_names
from rlmix.models.resnext import ResNeXt
from rlmix.models.stages import stage, stages
from rlmix.models.wideresnet import WideResNet
from rlmix.training.trainer import Training

SIZES = [  # 100 classes
    ("preactresnet18", 11_217_316),
    ("wideresnet16_8", 11_012_036),
    ("wideresnet28_10", 36_546_980),
    ("resnext29_4x24", 4_937_252),
    ("resnet50", 23_712_932),  # torchvision's 25,557,032 at 1000 classes, less 900 x 2049
]
MACS = [("preactresnet18", 555.5), ("wideresnet16_8", 2001.2), ("wideresnet28_10", 5951.2), ("resnext29_4x24", 761.3)]
"""Millions of multiplications and additions for an image of 32x32 pixels, 100 classes."""


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_number_of_parameters(name, size):
    with torch.device("meta"):
        assert count(build_model(name, 100)) == size


def convolution_macs(model: nn.Module, images: torch.Tensor) -> int:
    """By the formula, layer by layer: outputs x inputs that each is a sum over."""
    total = 0

    def add(module, inputs, output):
        nonlocal total
        fan_in = module.weight[0].numel()
        total += output.numel() * fan_in

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(add)
    model(images)
    return total


@pytest.mark.parametrize(("name", "millions"), MACS)
def test_number_of_multiplications(name, millions):
    with torch.device("meta"):
        model, images = build_model(name, 100), torch.zeros(1, 3, 32, 32)
        with FlopCounterMode(display=False) as counter:
            logits = model(images)
        assert logits.shape == (1, 100)
        assert counter.get_total_flops() / 2 == convolution_macs(model, images)
    assert counter.get_total_flops() / 2e6 == pytest.approx(millions, rel=0.01)


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


SMALL = {
    "wideresnet": lambda: WideResNet(10, 1, num_classes=4),
    "resnext": lambda: ResNeXt(11, 2, 4, num_classes=4),
    "preactresnet18_w16": lambda: build_model("preactresnet18_w16", 4),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_model_trains_every_parameter(name):
    model = SMALL[name]()
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


def test_wide_blocks_equal_the_formula():
    """conv2(relu(bn2(conv1(relu(bn1(x)))))) + shortcut(x), every convolution with a bias, the stride in the second."""
    functional = nn.functional
    block = WideResNet(10, 1, num_classes=4).eval().stage2[0]
    x = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        for norm in (block.norm1, block.norm2):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        hidden = functional.batch_norm(x, block.norm1.running_mean, block.norm1.running_var).clamp(min=0)
        hidden = functional.conv2d(hidden, block.conv1.weight, block.conv1.bias, padding=1)
        hidden = functional.batch_norm(hidden, block.norm2.running_mean, block.norm2.running_var).clamp(min=0)
        expected = functional.conv2d(hidden, block.conv2.weight, block.conv2.bias, stride=2, padding=1)
        expected += functional.conv2d(x, block.shortcut.weight, block.shortcut.bias, stride=2)
        torch.testing.assert_close(block(x.clone()), expected)


def test_resnext_blocks_equal_torchvisions_bottleneck():
    """torchvision's Bottleneck has the same arithmetic; its weights go in, in order."""
    from torchvision.models.resnet import Bottleneck

    block = ResNeXt(11, 4, 24, num_classes=4).stage2[0].eval()
    downsample = nn.Sequential(nn.Conv2d(256, 512, 1, 2, bias=False), nn.BatchNorm2d(512))
    oracle = Bottleneck(256, 128, 2, downsample, groups=4, base_width=24).eval()
    oracle.load_state_dict(dict(zip(oracle.state_dict(), block.state_dict().values(), strict=True)))
    x = torch.randn(2, 256, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(block(x.clone()), oracle(x.clone()))


@pytest.mark.parametrize("name", SMALL)
def test_the_last_stage_gives_what_is_pooled(name):
    model, seen = SMALL[name]().eval(), {}
    stage(model, "last").register_forward_hook(lambda module, inputs, output: seen.update(features=output))
    with torch.no_grad():
        logits = model(torch.rand(2, 3, 32, 32))
        torch.testing.assert_close(model.classifier(seen["features"].mean((2, 3))), logits)


@pytest.mark.parametrize(
    ("build", "depth"), [(lambda depth: WideResNet(depth, 1, 4), 17), (lambda depth: ResNeXt(depth, 4, 24, 4), 30)]
)
def test_depths_that_cannot_be_are_named(build, depth):
    with pytest.raises(ValueError, match=f"depth must be .* more than a multiple of .*, got {depth}"):
        build(depth)


@pytest.mark.filterwarnings("ignore:.* keeps its stem")
@pytest.mark.parametrize("method", ["manifold_mixup", "automix", "alignmix"])
@pytest.mark.parametrize("name", ["wideresnet", "resnext", "resnet18"])
def test_methods_that_mix_features_train_every_network(name, method, register):
    if name in SMALL:
        register(MODELS, name, lambda num_classes, in_channels: SMALL[name]())
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8), np.arange(8) % 4
    config = rlmix.Config.flat(data="npz:none", model=name, batch_size=4, epochs=3, learning_rate=0.01, device="cpu")
    training = Training(config, image_data(images, labels, images, labels), method)
    before = [parameter.clone() for parameter in training.model.parameters()]
    while not training.finished:
        assert np.isfinite(training.fit_epoch()["train_loss"])
    assert not any(map(torch.equal, before, training.model.parameters()))


@pytest.mark.filterwarnings("ignore:.* keeps its stem")
@pytest.mark.parametrize("method", ["manifold_mixup", "automix", "alignmix"])
def test_methods_that_mix_features_refuse_a_network_without_stages(method):
    config = rlmix.Config.flat(batch_size=4, train_images=12, model="swin_t", epochs=1, device="cpu")
    named = "; --stages names up to 4, of features, features.0, features.0.0, features.0.2, features.1, features.1.0"
    with pytest.raises(ValueError, match=rf"stage must be one of those SwinTransformer has \(none\), got '\w+'{named}"):
        Training(config, method=method).fit_epoch()


FAMILIES = ["alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5"]
FAMILIES += ["mobilenet_v3_small", "resnet18", "resnext50_32x4d", "squeezenet1_1", "swin_t", "vgg11", "vit_b_16"]
FAMILIES += ["wide_resnet50_2"]


@pytest.mark.parametrize("name", FAMILIES)
def test_torchvisions_classifiers_by_name(name):
    """One of each family, on no device: a row of logits, and residual ones have their stages."""
    with torch.device("meta"):
        model = build_model(name, 7, image_size=(224, 224))
        assert model(torch.zeros(2, 3, 224, 224)).shape == (2, 7)
    if name.startswith(("resne", "wide_resne")):
        assert list(stages(model)) == ["stage1", "stage2", "stage3", "stage4"]


def test_every_classifier_of_torchvision_has_a_name():
    import torchvision

    assert set(torchvision.models.list_models(module=torchvision.models)) | set(MODELS) == set(model_names())


def test_torchvisions_weights_follow_the_seed_alone():
    first, again, other = (build_model("resnet18", 5, seed=seed).conv1.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_small_images_at_an_imagenet_stem_are_warned_about():
    with pytest.warns(UserWarning, match="resnet18 keeps its stem, made for 224 pixels; 32x32 leave it little to see"):
        build_model("resnet18", 10, image_size=(32, 32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_model("resnet18", 10, image_size=(64, 64))
        build_model("preactresnet18_w16", 10, image_size=(32, 32))


def test_torchvisions_networks_take_colour_only():
    with pytest.raises(ValueError, match="model resnet18 takes images of 3 channels, got 1"):
        build_model("resnet18", 10, in_channels=1)


def test_unknown_model_is_named_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"model must be one of the \d+ of rlmix list models, got 'preactresnet_18' .did you mean"
    ):
        build_model("preactresnet_18", 10)
    with pytest.raises(ValueError, match=r"got 'zzz'$"):
        build_model("zzz", 10)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_timms_networks_take_the_images_and_classes_there_are(name):
    pytest.importorskip("timm")
    model = build_model(f"timm:{name}", 7, 3, 0, (32, 32)).eval()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_torchvisions_are_the_same_by_either_name():
    first, second = (build_model(name, 4, seed=1).state_dict() for name in ("resnet18", "torchvision:resnet18"))
    assert all(torch.equal(first[key], second[key]) for key in first)
