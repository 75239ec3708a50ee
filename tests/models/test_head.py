"""Heads and depths beside what the networks' definitions say; learning rates by depth beside the power written out."""

import pytest
import torch
import torchvision
from torch import nn

from rlmix.models import build_model
from rlmix.models.head import freeze_backbone, head_of, layer_rates, layers

HEADS = {
    "preactresnet18_w16": "classifier",
    "wideresnet16_8": "classifier",
    "resnet18": "fc",
    "vgg11": "classifier.6",
    "squeezenet1_1": "classifier.1",
    "densenet121": "classifier",
    "convnext_tiny": "classifier.2",
    "vit_b_16": "heads.head",
    "efficientnet_b0": "classifier.1",
    "swin_t": "head",
}


def meta(name, num_classes=7):
    with torch.device("meta"):
        return build_model(name, num_classes)


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_what_gives_the_logits(name):
    assert head_of(meta(name), 7) == HEADS[name]


def test_a_network_without_one_is_refused():
    with pytest.raises(
        ValueError, match=r"^model must end in a layer with weights for each of 9 classes, and PreActResNet does not"
    ):
        head_of(meta("preactresnet18_w16"), 9)


def names_by_layer(model):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [[names[parameter] for parameter in layer] for layer in layers(model)]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("preactresnet18_w16", 1 + 8 + 1),
        ("resnet18", 2 + 8 + 1),  # a convolution and its norm, blocks, the head
        ("resnet50", 2 + 16 + 1),
        ("vit_b_16", 1 + 12 + 1 + 1),  # patches, blocks, the last norm, the head
        ("convnext_tiny", 1 + 18 + 3 * 2 + 2),  # a norm and a convolution between stages, a norm before the head
        ("vgg11", 8 + 3),
    ],
)
def test_layers_are_blocks(name, count):
    found = names_by_layer(meta(name))
    assert len(found) == count
    assert [one for layer in found for one in layer] == [one for one, _ in meta(name).named_parameters()] or name == "vit_b_16"
    assert sorted(one for layer in found for one in layer) == sorted(one for one, _ in meta(name).named_parameters())


def test_weights_of_a_container_are_of_the_layer_after_them():
    found = names_by_layer(meta("vit_b_16"))
    assert found[0] == ["class_token", "conv_proj.weight", "conv_proj.bias"]
    assert found[1][0] == "encoder.pos_embedding"
    assert all(name.startswith("encoder.layers.encoder_layer_11.") for name in found[12])


def test_rates_are_powers_by_depth():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
    rates = layer_rates(model, 5, 0.5)
    assert [rates[parameter] for parameter in model.parameters()] == [0.25, 0.25, 0.5, 0.5, 1, 1]
    resnet = torchvision.models.resnet18(num_classes=7)
    rates = layer_rates(resnet, 7, 0.8)
    assert rates[resnet.conv1.weight] == pytest.approx(0.8**10)
    assert rates[resnet.layer4[1].bn2.bias] == pytest.approx(0.8)
    assert rates[resnet.layer4[0].downsample[0].weight] == pytest.approx(0.64)
    assert rates[resnet.fc.bias] == 1


def test_a_frozen_backbone_is_in_eval_mode_and_asks_for_no_gradient():
    model = torchvision.models.vgg11_bn(num_classes=7)
    freeze_backbone(model, 7)
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == [
        "classifier.6.weight",
        "classifier.6.bias",
    ]
    assert {name for name, module in model.named_modules() if module.training} == {"", "classifier", "classifier.6"}
