"""Class activation maps, boxes, and localization computed by hand."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from toys import write_folder

import rlmix
from rlmix import evaluation as metrics
from rlmix.data.boxes import read_boxes
from rlmix.data.registry import load_data
from rlmix.models import build_model
from rlmix.models.wideresnet import WideResNet


@pytest.fixture(scope="module")
def resnet():
    model = build_model("resnet18", 5, seed=1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
                module.bias.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(1))
    return model.eval()


def some_images(number=3, size=96):
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(2))


def test_activation_maps_equal_the_sum_over_channels_written_out(resnet):
    images = some_images()
    with torch.no_grad():
        maps, logits = metrics.activation_maps(resnet, images)
        features = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(images))))
        for layer in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
            features = layer(features)
    features, weight = features.double().numpy(), resnet.fc.weight.detach().double().numpy()
    for image in range(3):
        for label in range(5):
            expected = np.zeros(features.shape[2:])
            for channel in range(512):
                expected += weight[label, channel] * features[image, channel]
            np.testing.assert_allclose(maps[image, label].numpy(), expected, atol=1e-4)
    torch.testing.assert_close(logits, resnet(images))


def test_activation_maps_equal_captums(resnet):
    """Grad-CAM before its ReLU is the map divided by its positions, where pooling and a linear layer follow."""
    attr = pytest.importorskip("captum.attr")
    images = some_images()
    with torch.no_grad():
        maps, _ = metrics.activation_maps(resnet, images)
    oracle = attr.LayerGradCam(resnet, resnet.layer4)
    for label in range(5):
        theirs = oracle.attribute(images, target=label, relu_attributions=False)[:, 0]
        torch.testing.assert_close(maps[:, label] / theirs[0].numel(), theirs.detach(), rtol=1e-4, atol=1e-5)


def test_logits_are_the_maps_means_plus_the_bias():
    for model in (build_model("preactresnet18_w16", 4), WideResNet(10, 1, num_classes=4), build_model("resnext29_4x24", 4)):
        with torch.no_grad(), metrics.evaluating(model):
            maps, logits = metrics.activation_maps(model, some_images(size=32))
            torch.testing.assert_close(maps.mean((2, 3)) + model.classifier.bias, logits)


def test_networks_of_another_form_are_refused(resnet):
    with pytest.raises(ValueError, match=r"need a network that ends in a linear layer, got SqueezeNet"):
        metrics.activation_maps(build_model("squeezenet1_1", 4), some_images())
    model = build_model("preactresnet18_w16", 4).eval()
    model.classifier = nn.Sequential(nn.Linear(128, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(ValueError, match="a linear layer of its last stage's mean, got PreActResNet"), torch.no_grad():
        metrics.activation_maps(model, some_images(size=32))


def test_box_is_around_the_largest_region_above_the_threshold():
    map = np.zeros((6, 8), np.float32)
    map[0, 0] = 10  # the peak, alone
    map[2:4, 3:7] = 2
    map[4, 7] = 9  # touches the region at a corner only
    map[5, 2] = 1.9
    assert metrics.box_of(map, 0.2) == (3, 2, 7, 4)
    assert metrics.box_of(map, 0.21) == (0, 0, 1, 1)  # now two single pixels: the first
    map[3, 7] = 2.5
    assert metrics.box_of(map, 0.2) == (3, 2, 8, 5)


def test_a_map_nowhere_positive_gives_the_whole_image():
    assert metrics.box_of(np.full((4, 6), -1, np.float32)) == (0, 0, 6, 4)
    assert metrics.box_of(np.zeros((4, 6), np.float32)) == (0, 0, 6, 4)


def cubic(distance):
    """Keys 1981 with a = -0.75, as torch has it."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def enlarged_by_hand(map, size):
    """3x3 sums, then bicubic weights of the four nearest rows and columns, those beyond the border repeated."""
    height, width = map.shape
    sums = np.zeros_like(map)
    for row in range(height):
        for column in range(width):
            sums[row, column] = map[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].sum()

    def weights(count, target):
        table = np.zeros((target, count))
        for position in range(target):
            source = (position + 0.5) * count / target - 0.5
            for near in range(int(np.floor(source)) - 1, int(np.floor(source)) + 3):
                table[position, min(max(near, 0), count - 1)] += cubic(source - near)
        return table

    return weights(height, size[0]) @ sums @ weights(width, size[1]).T


def box_by_hand(map, threshold):
    """Flood fill over eight neighbours; a region's worth is what it leaves unreachable for a flood from outside."""
    scaled = (map - map.min()) / (map.max() - map.min())
    kept = {(int(row), int(column)) for row, column in np.argwhere(scaled >= threshold)}

    def flood(start, allowed, steps):
        seen, open_ = {start}, [start]
        while open_:
            row, column = open_.pop()
            for down, right in steps:
                near = row + down, column + right
                if near in allowed and near not in seen:
                    seen.add(near)
                    open_.append(near)
        return seen

    sides = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    corners = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]
    everywhere = {(row, column) for row in range(-1, map.shape[0] + 1) for column in range(-1, map.shape[1] + 1)}
    best, best_area = None, -1
    while kept:
        region = flood(min(kept), kept, corners)
        kept -= region
        area = len(everywhere) - len(flood((-1, -1), everywhere - region, sides))
        if area > best_area:
            best, best_area = region, area
    rows, columns = zip(*best, strict=True)
    return min(columns), min(rows), max(columns) + 1, max(rows) + 1


@pytest.mark.parametrize("seed", range(12))
def test_the_papers_box_is_that_of_sums_bicubic_range_and_flood_fill(seed):
    map = np.random.default_rng(seed).normal(size=(5, 4)).astype(np.float32)
    drawn = metrics.protocol_of("comixup")
    enlarged = drawn.enlarge(torch.from_numpy(map)[None], (30, 28))[0].numpy()
    np.testing.assert_allclose(enlarged, enlarged_by_hand(map.astype(np.float64), (30, 28)), atol=1e-4)
    assert drawn.box(enlarged, drawn.threshold) == box_by_hand(enlarged, 0.25)


def test_the_papers_box_joins_corners_and_counts_what_is_enclosed():
    map = np.full((8, 9), -1, np.float32)  # its minimum is below zero: the range counts, not the maximum
    map[1:4, 1:4] = 0.1
    map[2, 2] = -1  # a ring of 8 pixels that encloses 9
    map[5, 5:9] = 1
    map[6, 3:5] = 0.0  # touches the bar at a corner; together 6 pixels
    assert metrics.box_of_range(map, 0.25) == (1, 1, 4, 4)
    assert metrics.box_of_range(map, 0.6) == (5, 5, 9, 6)  # the bar alone
    map[4, 4] = 0.2  # joins the ring to the bar, corner by corner
    assert metrics.box_of_range(map, 0.25) == (1, 1, 9, 7)
    assert metrics.box_of_range(np.ones((4, 6), np.float32), 0.25) == (0, 0, 6, 4)


def test_localization_follows_the_protocol_that_is_named(painted):
    boxes = {0: [(0.0, 0.0, 10.0, 10.0)]}
    for name in metrics.PROTOCOLS:
        (box,), _ = metrics.localize(Painted(), painted_batch(painted), torch.tensor([0]), name)
        found = metrics.localization_accuracy(Painted(), painted, boxes, name)
        assert found.gt_known == 100 * (metrics.iou(box, boxes[0][0]) >= 0.5)
        # a patch of 10x10 at the corner; sums with neighbours reach one pixel further
        assert box == ((0, 0, 11, 11) if name == "comixup" else (0, 0, 10, 10))
    assert metrics.localize(Painted(), painted_batch(painted), torch.tensor([0])) == metrics.localize(
        Painted(), painted_batch(painted), torch.tensor([0]), "comixup", 0.25
    )
    with pytest.raises(ValueError, match="localization must be one of comixup, zhou, got 'zou'"):
        metrics.localize(Painted(), painted_batch(painted), torch.tensor([0]), "zou")


def painted_batch(data):
    (images, _) = next(data.batches("test", 1))
    return images.float().div(255).permute(0, 3, 1, 2)


OVERLAPS = [
    ((0.0, 0.0, 4.0, 4.0), (0.0, 0.0, 4.0, 4.0), 1),
    ((0.0, 0.0, 4.0, 4.0), (4.0, 0.0, 8.0, 4.0), 0),
    ((0.0, 0.0, 4.0, 4.0), (2.0, 2.0, 6.0, 6.0), 4 / 28),
    ((0.0, 0.0, 4.0, 4.0), (0.0, 0.0, 4.0, 2.0), 0.5),
]


@pytest.mark.parametrize(("first", "second", "expected"), OVERLAPS)
def test_intersection_over_union(first, second, expected):
    assert metrics.iou(first, second) == metrics.iou(second, first) == pytest.approx(expected)


class Painted(nn.Module):
    """Feature c is image channel c; class c's map is that channel: what is painted there is what is localized."""

    def __init__(self):
        super().__init__()
        self.stage1 = nn.Identity()
        self.fc = nn.Linear(3, 3, bias=False)
        self.fc.weight.data = torch.eye(3)

    def forward(self, images):
        return self.fc(self.stage1(images).mean((2, 3)))


def paint(root, name, regions, size=(20, 20)):
    """An image black but for rectangles (channel, x0, y0, x1, y1), ends inclusive."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for channel, x0, y0, x1, y1 in regions:
        pixels[y0 : y1 + 1, x0 : x1 + 1, channel] = 255
    Image.fromarray(pixels).save(root / name)


@pytest.fixture
def painted(tmp_path):
    """Three test images of classes 0, 1, 2, unresized.

    0: a 10x10 patch of its channel, at (0, 0) to (9, 9). True box (0, 0) to (9, 11): IoU 100/120. Predicted right. Hit in both.
    1: its channel in 6x6 at (2, 2) to (7, 7), and more of channel 0: misclassified. True box the same: known alone.
    2: its channel at (0, 0) to (4, 9), 50 pixels. True box (0, 0) to (9, 10), 110 pixels: IoU 50/110 < 0.5. Missed in both.
    """
    write_folder(tmp_path, num_train=1, num_val=0, num_classes=3, size=(20, 20))
    paint(tmp_path, "val/class0/a.png", [(0, 0, 0, 9, 9)])
    paint(tmp_path, "val/class1/a.png", [(1, 2, 2, 7, 7), (0, 0, 10, 19, 19)])
    paint(tmp_path, "val/class2/a.png", [(2, 0, 0, 4, 9)])
    (tmp_path / "boxes.csv").write_text(
        "split,path,x0,y0,x1,y1\nval,val/class0/a.png,0,0,9,11\nval,val/class1/a.png,2,2,7,7\nval,val/class2/a.png,0,0,9,10\n"
        "train,train/class0/00.png,1,1,2,2\n"
    )
    data = load_data(rlmix.Config.flat(data=f"imagefolder:{tmp_path}", image_size=20, resize_size=20, workers=0))
    no_shift = {"mean": torch.zeros(3), "std": torch.ones(3)}
    return type(data)(**(vars(data) | no_shift))


def test_both_scores_of_three_images_are_those_computed_by_hand(painted):
    boxes = read_boxes(painted.root / "boxes.csv", painted)
    assert boxes.by_image == {0: [(0, 0, 10, 12)], 1: [(2, 2, 8, 8)], 2: [(0, 0, 10, 11)]}
    assert not boxes.skipped
    found = metrics.localization_accuracy(Painted(), painted, boxes.by_image, "zhou")
    assert (found.gt_known, found.top1, found.num_images) == (pytest.approx(200 / 3), pytest.approx(100 / 3), 3)
    assert found.whole_image == 0  # of 400 pixels the boxes hold 120, 36 and 110
    again = metrics.localization_accuracy(Painted(), painted, boxes.by_image, "zhou", batch_size=2)
    assert again == found
    only = metrics.localization_accuracy(Painted(), painted, {1: boxes.by_image[1]}, "zhou")
    assert (only.gt_known, only.top1, only.num_images) == (100, 0, 1)


def test_any_of_an_images_boxes_may_be_hit(painted):
    found = metrics.localization_accuracy(Painted(), painted, {2: [(15.0, 15.0, 20.0, 20.0), (0.0, 0.0, 5.0, 10.0)]}, "zhou")
    assert (found.gt_known, found.top1, found.whole_image) == (100, 100, 0)
    found = metrics.localization_accuracy(Painted(), painted, {2: [(0.0, 0.0, 20.0, 10.0)]}, "zhou")  # half of the image
    assert (found.gt_known, found.whole_image) == (0, 100)


def test_boxes_move_with_resize_and_crop(tmp_path):
    """40x32 pixels: the shorter side to 16, so by a half, to 20x16; the centre's 8x8 begin at (6, 4)."""
    data = load_data(rlmix.Config.flat(data=write_folder(tmp_path), image_size=8, resize_size=16, workers=0))
    rows = ["0,0,39,31", "16,12,19,13", "0,0,3,3"]  # everything; edges (8, 6) to (10, 7), less (6, 4); left of the crop
    names = [f"val/class0/{index:02d}.png" for index in range(3)]
    (tmp_path / "boxes.csv").write_text(
        "split,path,x0,y0,x1,y1\n" + "".join(f"val,{n},{r}\n" for n, r in zip(names, rows, strict=True))
    )
    boxes = read_boxes(tmp_path / "boxes.csv", data)
    assert boxes.by_image == {0: [(0, 0, 8, 8)], 1: [(2, 2, 4, 3)]}
    assert boxes.skipped == {"outside the crop": 1}


@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_turned_with_their_image(tmp_path, orientation, ending):
    """A white box in the stored image: where the test image is white is where its box must be. 12x10 pixels, cropped to 10x10."""
    write_folder(tmp_path, num_train=1, num_val=1)
    stored, exif = np.zeros((10, 12, 3), np.uint8), Image.Exif()
    stored[1:5, 2:8] = 255
    exif[274] = orientation
    for path in (tmp_path / "val" / "class0").iterdir():
        path.unlink()
    Image.fromarray(stored).save(tmp_path / "val" / "class0" / f"a.{ending}", exif=exif, quality=100)
    (tmp_path / "boxes.csv").write_text(
        f"split,path,x0,y0,x1,y1\nval,val/class0/a.{ending},2,1,7,4\nval,val/class0/a.{ending},0,0,11,9\nval,val/class0/a.{ending},0,0,9,11\n"
    )
    data = load_data(rlmix.Config.flat(data=f"imagefolder:{tmp_path}", image_size=10, resize_size=10, workers=0))
    image = next(data.batches("test", 1)).images[0]
    rows, columns = np.nonzero(image.numpy().min(2) > 127)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    boxes = read_boxes(tmp_path / "boxes.csv", data)
    assert boxes.by_image == {0: [tuple(map(float, expected)), (0.0, 0.0, 10.0, 10.0)]}
    assert boxes.skipped == {"outside the image": 1}  # of the stored one, 12 wide and 10 high
    sides = {int(expected[2] - expected[0]), int(expected[3] - expected[1])}
    assert sides == {4, 6}
    assert (expected[2] - expected[0] == 4) == (orientation >= 5)


def test_degenerate_and_outside_boxes_are_skipped_and_counted(painted):
    path = painted.root / "odd.csv"
    rows = ["0,0,9,11", "5,5,4,9", "5,5,9,4", "0,0,20,5", "-1,0,5,5", "0,0,5,20"]
    path.write_text(
        "split,path,x0,y0,x1,y1\n" + "".join(f"val,val/class0/a.png,{row}\n" for row in rows) + "val,val/x.png,0,0,1,1\n"
    )
    boxes = read_boxes(path, painted)
    assert boxes.by_image == {0: [(0, 0, 10, 12)]}
    assert boxes.skipped == {"degenerate": 2, "outside the image": 3, "naming no image": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,x0\n", "must have the columns split,path,x0,y0,x1,y1, got path,x0"),
        ("", "must have the columns split,path,x0,y0,x1,y1, got "),
        ("split,path,x0,y0,x1,y1\nval,a,1,2,3\n", "line 2 must have whole numbers for x0, y0, x1, y1"),
        ("split,path,x0,y0,x1,y1\nval,a,1,2,3,x\n", "line 2 must have whole numbers for x0, y0, x1, y1"),
    ],
)
def test_files_that_hold_no_boxes_are_named(painted, text, message):
    path = painted.root / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} {message}"):
        read_boxes(path, painted)


def test_no_box_and_a_threshold_out_of_range_are_refused(painted):
    with pytest.raises(ValueError, match="boxes must hold at least one box"):
        metrics.localization_accuracy(Painted(), painted, {})
    with pytest.raises(ValueError, match=r"threshold must be in \(0, 1\), got 1.0"):
        metrics.localization_accuracy(Painted(), painted, {0: [(0.0, 0.0, 1.0, 1.0)]}, threshold=1.0)
