"""Stages of anyone's network: those found by themselves, those that are named, and tokens as maps."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from oracle import unchecked
from torch import nn
from torchvision.models import VisionTransformer
from toys import DIGITS, arguments

import rlmix
import rlmix.evaluation
from rlmix.experiments.reading import read_options
from rlmix.mixing.alignmix import AlignMix, mix_aligned, sample_align
from rlmix.mixing.automix import AutoMix, blend, features_after, sample_pair
from rlmix.mixing.core import sample_lam
from rlmix.mixing.manifold_mixup import ManifoldMixup
from rlmix.mixing.objective import Objective
from rlmix.models import build_model
from rlmix.models.stages import candidates, maps_of, name_stages, stage, stages, with_maps
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.run_folder import read_metrics
from rlmix.training.trainer import Training

FOUND = {
    "alexnet": ["features.1", "features.4", "features.11", "features.12"],
    "vgg11": ["features.9", "features.14", "features.19", "features.20"],
    "squeezenet1_1": ["features.1", "features.4", "features.7", "features.12"],
    "densenet121": ["features.denseblock1", "features.denseblock2", "features.denseblock3", "features.norm5"],
    "mobilenet_v2": ["features.3", "features.6", "features.13", "features.18"],
    "efficientnet_b0": ["features.2", "features.3", "features.5", "features.8"],
    "mnasnet0_5": ["layers.8", "layers.9", "layers.11", "layers.16"],
    "regnet_y_400mf": [f"trunk_output.block{index}" for index in (1, 2, 3, 4)],
    "googlenet": ["conv3", "inception3b", "inception4e", "inception5b"],
    "inception_v3": ["Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c"],
    "convnext_tiny": ["features.1", "features.3", "features.5", "features.7"],
    "maxvit_t": ["blocks.0", "blocks.1", "blocks.2", "blocks.3"],
    "vit_b_16": [f"encoder.layers.encoder_layer_{index}" for index in (2, 5, 8, 11)],
    "resnet18": ["layer1", "layer2", "layer3", "layer4"],
}


@pytest.mark.parametrize("name", FOUND)
def test_networks_of_torchvision_have_stages_in_the_order_in_which_they_run(name):
    if name == "regnet_y_400mf":  # computes its widths by tensors
        model, device = build_model(name, 7, image_size=(224, 224)).eval(), "cpu"
    else:
        device = "meta"
        with torch.device("meta"):
            model = build_model(name, 7, image_size=(224, 224)).eval()
    have, shapes = stages(model), []
    assert list(have) == ["stage1", "stage2", "stage3", "stage4"]
    assert [have[f"stage{index + 1}"] for index in range(4)] == [model.get_submodule(path) for path in FOUND[name]]
    for module in have.values():
        module.register_forward_hook(lambda module, inputs, features: shapes.append(features.shape))
    with torch.no_grad():
        model(torch.zeros(1, 3, 224, 224, device=device))
    assert len(shapes) == 4
    if name == "vit_b_16":
        assert set(shapes) == {torch.Size([1, 197, 768])}
    else:
        assert [shape[2] for shape in shapes] == sorted({shape[2] for shape in shapes}, reverse=True)


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_atto", "efficientnet_b0", "vit_tiny_patch16_224", "mobilenetv3_small_050"]
)
def test_networks_of_timm(name):
    pytest.importorskip("timm")
    model, ran = build_model(f"timm:{name}", 7, image_size=(64, 64)).eval(), []
    have = stages(model)
    assert len(have) == 4
    for key, module in have.items():
        module.register_forward_hook(lambda module, inputs, features, key=key: ran.append(key))
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    assert ran == list(have)


def test_what_timm_says_of_a_network_is_taken():
    network = nn.Module()
    network.steps = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(12)))
    pyramid = [{"module": f"steps.{index}", "reduction": 2**index} for index in range(5)]
    for info in (pyramid, SimpleNamespace(info=pyramid)):
        network.feature_info = info
        assert list(stages(network).values()) == [network.steps[index] for index in (1, 2, 3, 4)]
    network.feature_info = [{"module": f"steps.{index}", "reduction": 16} for index in range(12)]
    assert list(stages(network).values()) == [network.steps[index] for index in (2, 5, 8, 11)]


def test_named_ones_come_first_and_go_along_with_a_copy():
    model = build_model("resnet18", 7)
    name_stages(model, ["layer1.0", "layer2.1", "layer4"])
    assert list(stages(model).values()) == [model.layer1[0], model.layer2[1], model.layer4]
    assert stage(model, "last") is model.layer4
    encoder = AutoMix(model, 10).encoder
    assert stage(encoder, "stage3") is encoder.layer4
    assert model.state_dict().keys() == build_model("resnet18", 7).state_dict().keys()


def test_candidates_go_down_to_blocks():
    with torch.device("meta"):
        resnet, vit = build_model("resnet18", 7), build_model("vit_b_16", 7)
    assert candidates(resnet) == [
        *("conv1", "bn1"),
        *(f"layer{index}{block}" for index in (1, 2, 3, 4) for block in ("", ".0", ".1")),
        "fc",
    ]
    assert candidates(vit)[:4] == ["conv_proj", "encoder", "encoder.layers", "encoder.layers.encoder_layer_0"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["layer9"], r"^stages must be one of conv1, bn1, layer1, layer1.0, .*, fc, got 'layer9' \(did you mean 'layer4'\?\)"),
        ([""], "^stages must be one of conv1, bn1"),
        (["layer1", "layer1"], "^stages must be one to 4 different modules, got layer1, layer1"),
        (["conv1", "layer1", "layer2", "layer3", "layer4"], "^stages must be one to 4 different modules"),
    ],
)
def test_names_that_cannot_be_are_refused(names, message):
    with torch.device("meta"):
        model = build_model("resnet18", 7)
    with pytest.raises(ValueError, match=message):
        name_stages(model, names)


def tokens_of(length, channels=5):
    return torch.randn(2, length, channels, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("length", "side"), [(16, 4), (17, 4), (18, 4), (201, 14), (5, 2)])
def test_tokens_are_a_grid_behind_those_of_no_patch(length, side):
    tokens = tokens_of(length)
    maps = maps_of(tokens, (32, 32))
    assert maps.shape == (2, 5, side, side)
    for row in range(side):
        for column in range(side):
            assert torch.equal(maps[:, :, row, column], tokens[:, length - side**2 + row * side + column])
    doubled = with_maps(tokens, 2 * maps)
    assert torch.equal(doubled[:, : length - side**2], tokens[:, : length - side**2])
    assert torch.equal(doubled[:, length - side**2 :], 2 * tokens[:, length - side**2 :])


def test_maps_with_the_channel_last_are_turned_where_they_can_be_told():
    features = torch.randn(2, 4, 4, 6)
    assert torch.equal(maps_of(features, (32, 32)), features.permute(0, 3, 1, 2))
    assert torch.equal(with_maps(features, maps_of(features, (32, 32))), features)
    plain = torch.randn(2, 6, 4, 4)
    assert maps_of(plain, (32, 32)) is plain
    wide = torch.randn(2, 4, 4, 6)  # of images of another shape it may be anything
    assert maps_of(wide, (32, 48)) is wide


@pytest.mark.parametrize(("shape", "size"), [((2, 22, 4), (32, 32)), ((2, 17, 4), (32, 48)), ((2, 8), (32, 32))])
def test_what_is_no_map_is_refused(shape, size):
    with unchecked(), pytest.raises(ValueError, match=r"^a stage must give maps .*, or the tokens of a square grid, got \(2, "):
        maps_of(torch.zeros(shape), size)


@pytest.fixture
def vit():
    torch.manual_seed(0)
    network = VisionTransformer(16, 4, num_layers=4, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3)
    nn.init.normal_(network.heads.head.weight)  # it begins with zeros
    return network


@pytest.fixture
def batch():
    return torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3


def embedded(vit, images):
    patches = vit.conv_proj(images).flatten(2).mT
    return torch.cat([vit.class_token.expand(len(images), -1, -1), patches], 1) + vit.encoder.pos_embedding


def finished(vit, tokens, blocks):
    for block in blocks:
        tokens = block(tokens)
    return vit.heads(vit.encoder.ln(tokens)[:, 0])


def test_manifold_mixup_blends_tokens(vit, batch):
    images, labels = batch
    generator = torch.Generator().manual_seed(5)
    torch.randint(1, (), generator=generator)
    partner = torch.randperm(6, generator=generator)
    lam = sample_lam(2.0, generator)
    mixed = ManifoldMixup(layers=("stage2",))(vit, images, labels, num_classes=3, generator=torch.Generator().manual_seed(5))
    tokens = vit.encoder.layers[1](vit.encoder.layers[0](embedded(vit, images)))
    logits = finished(vit, lam * tokens + (1 - lam) * tokens[partner], vit.encoder.layers[2:])
    rows = F.one_hot(labels, 3).float()
    expected = F.cross_entropy(logits, lam * rows + (1 - lam) * rows[partner])
    torch.testing.assert_close(mixed.score(vit).loss, expected)


def test_alignmix_aligns_patches_and_blends_the_class(vit, batch):
    images, labels = batch
    name_stages(vit, ["encoder.layers.encoder_layer_1"])
    seed = next(seed for seed in range(20) if sample_align(6, 2.0, torch.Generator().manual_seed(seed)).align)
    draw = sample_align(6, 2.0, torch.Generator().manual_seed(seed))
    mixed = AlignMix()(vit, images, labels, num_classes=3, generator=torch.Generator().manual_seed(seed))
    tokens = vit.encoder.layers[1](vit.encoder.layers[0](embedded(vit, images)))
    patches = tokens[:, 1:].mT.reshape(6, 8, 4, 4)
    aligned = mix_aligned(patches, draw.partner, draw.lam, draw.move_partner).flatten(2).mT
    first = draw.lam * tokens[:, :1] + (1 - draw.lam) * tokens[draw.partner, :1]
    logits = finished(vit, torch.cat([first, aligned], 1), vit.encoder.layers[2:])
    torch.testing.assert_close(mixed.score(vit).logits, logits, rtol=1e-4, atol=1e-5)


def test_automix_makes_its_mask_of_patches(vit, batch):
    images, labels = batch
    method = AutoMix(vit, 10, (16, 16))
    found = features_after(method.encoder, images, "stage3")
    tokens = embedded(vit, images)
    for block in vit.encoder.layers[:3]:
        tokens = block(tokens)
    torch.testing.assert_close(found, tokens[:, 1:].mT.reshape(6, 8, 4, 4))
    pair = sample_pair(6, 2.0, torch.Generator().manual_seed(3))
    mask = method.block(found, found[pair.partner], (16, 16))
    expected = blend(images, F.one_hot(labels, 3).float(), mask, pair)
    mixed = method(vit, images, labels, num_classes=3, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(mixed.images, expected.images)


@pytest.mark.parametrize("method", ["manifold_mixup", "automix", "alignmix"])
@pytest.mark.parametrize("model", ["squeezenet1_1", "mobilenet_v3_small"])
@pytest.mark.filterwarnings("ignore:.*keeps its stem")
def test_networks_without_names_for_their_stages_train(model, method):
    config = rlmix.Config.flat(
        batch_size=4, train_images=12, model=model, epochs=1, learning_rate=1e-3, device="cpu", method=method
    )
    training = Training(config, method=method)
    assert training.fit_epoch()["train_loss"] > 0


class Named(nn.Module):
    """Its stages go by the project's names."""

    def __init__(self, num_classes, named=True):
        super().__init__()
        first, second = ("stage1", "stage2") if named else ("begin", "middle")
        self.order = (first, second)
        self.add_module(first, nn.Conv2d(3, 4, 3, 2))
        self.add_module(second, nn.Sequential(nn.ReLU(), nn.Conv2d(4, 8, 3, 2), nn.AdaptiveAvgPool2d(2)))
        self.head = nn.Linear(32, num_classes)

    def forward(self, images):
        for name in self.order:
            images = getattr(self, name)(images)
        return self.head(images.flatten(1))


def unnamed(num_classes):
    return Named(num_classes, named=False)


def test_named_by_an_option_they_are_as_of_their_own_names(tmp_path):
    tiny = [*arguments(DIGITS), "--metrics", "ece"]
    lines = {
        "own": ["--model", "test_stages:Named"],
        "option": ["--model", "test_stages:unnamed", "--stages", "begin", "middle"],
    }
    for name, line in lines.items():
        rlmix_main(["train", *tiny, *line, "--method", "manifold_mixup", "--out", str(tmp_path / name)])
    losses = [[record["train_loss"] for record in read_metrics(tmp_path / name)] for name in lines]
    assert losses[0] == losses[1]
    assert rlmix.load_run(tmp_path / "option", device="cpu").training.model.stage_modules == ("begin", "middle")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--method vanilla --stages layer1",
            "^--stages must be left out with --method vanilla, which mixes no features: it would do",
        ),
        ("--method rmix --stages layer1", "^--stages must be left out with --method rmix, which mixes no features"),
    ],
)
def test_where_no_features_are_mixed_they_are_refused(line, message):
    with pytest.raises(ValueError, match=message):
        read_options(line.split())
    read_options(["--method", "alignmix", "--stages", "stage4"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--method manifold_mixup --stages begin", "stage must be one of those Named has (stage1), got 'stage2'"),
        ("--method automix --stages begin middle", "stage must be one of those Named has (stage1, stage2), got 'stage3'"),
        (
            "--method alignmix",
            "stage must be one of those Named has (none), got 'last'; --stages names up to 4, of begin, middle, ",
        ),
        (
            "--method alignmix --stages begins",
            "--stages must be one of begin, middle, middle.1, head, got 'begins' (did you mean 'begin'?)",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(line, message, tmp_path, capsys):
    options = ["--data", "digits", "--train-images", "32", "--model", "test_stages:unnamed", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(["train", *options, *line.split()])
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"rlmix: error: {message}")
    assert not (tmp_path / "run").exists()


def test_a_class_activation_map_needs_maps(vit, batch):
    with pytest.raises(ValueError, match=r"^class activation maps need a last stage that gives maps, got \(6, 17, 8\)"):
        rlmix.evaluation.activation_maps(vit.eval(), batch[0])


def test_a_stage_that_gives_no_tensor_is_refused(batch):
    class Pair(nn.Module):
        def forward(self, images):
            return images, images

    network = nn.Sequential(Pair())
    name_stages(network, ["0"])
    mixed = ManifoldMixup(layers=("stage1",))(network, *batch, num_classes=3)
    assert isinstance(mixed, Objective)
    with pytest.raises(ValueError, match=r"^stage1 must give a tensor, got tuple of Pair"):
        mixed.score(network)
