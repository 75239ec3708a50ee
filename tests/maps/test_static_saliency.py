"""Fine-grained static saliency against loops, and those against OpenCV where it is installed."""

import image_oracle
import numpy as np
import oracle
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images

from rlmix.maps.static import RADII, fine_grained_saliency


def photographs(size: int, crop: int | None = None) -> list[np.ndarray]:
    """Bytes (size, size, 3) of scikit-learn's two photographs, the whole short side or a crop of it, averaged down."""
    images = []
    for image in load_sample_images().images:
        side = (crop or min(image.shape[:2])) // size * size
        square = image[:side, :side].reshape(size, side // size, size, side // size, 3).mean((1, 3))
        images.append(np.rint(square).astype(np.uint8))
    return images


def as_batch(images: list[np.ndarray]) -> torch.Tensor:
    return torch.tensor(np.stack(images)).movedim(-1, 1).float()


def opencv_map(image: np.ndarray) -> np.ndarray:
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, "saliency"):
        pytest.skip("OpenCV without its contributed modules")
    done, found = cv2.saliency.StaticSaliencyFineGrained_create().computeSaliency(image)
    assert done
    return found / 255 if found.dtype == np.uint8 else found


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 20, 20), (5, 9, 30), (3, 2, 3), (2, 40, 26)])
def test_maps_equal_the_loops(shape):
    images = np.random.default_rng(sum(shape)).normal(size=(3, *shape))
    images[0] = np.cumsum(np.cumsum(images[0], 1), 2)  # one that is smooth
    maps = fine_grained_saliency(torch.tensor(images).float())
    for image, map in zip(images, maps, strict=True):
        np.testing.assert_allclose(map.numpy(), image_oracle.fine_grained(image_oracle.luma(image), rounded=False), atol=2e-5)


def test_images_larger_than_every_window_equal_the_loops():
    assert max(RADII) < 130
    image = np.cumsum(np.random.default_rng(0).normal(size=(1, 3, 130)), 2)
    expected = image_oracle.fine_grained(image[0], rounded=False)
    np.testing.assert_allclose(fine_grained_saliency(torch.tensor(image)[None].float())[0].numpy(), expected, atol=2e-5)


def test_a_bright_point_is_the_most_salient():
    images = torch.zeros(1, 3, 16, 16)
    images[:, :, 5, 11] = 1
    map = fine_grained_saliency(images)[0]
    assert int(map.argmax()) == 5 * 16 + 11
    assert map.max() <= 2


def test_scale_and_offset_do_not_matter():
    images = as_batch(photographs(32))
    map = fine_grained_saliency(images)
    torch.testing.assert_close(fine_grained_saliency(images / 64 - 2), map, atol=1e-4, rtol=0)


def test_one_colour_is_nowhere_salient():
    for value in (0.0, -1.3, 0.1):
        for channels in (1, 3, 4):
            assert not fine_grained_saliency(torch.full((2, channels, 17, 17), value)).any()


def test_images_do_not_influence_each_other_nor_are_they_written_to():
    images = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    kept = images.clone()
    together = fine_grained_saliency(images)
    assert torch.equal(images, kept)
    for image in range(4):
        torch.testing.assert_close(fine_grained_saliency(images[image : image + 1])[0], together[image], atol=1e-6, rtol=0)


def test_float32_within_autocast_and_from_half_precision():
    images = as_batch(photographs(32))
    expected = fine_grained_saliency(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fine_grained_saliency(images), expected)
    assert torch.equal(fine_grained_saliency(images.bfloat16()), expected)  # bytes fit into bfloat16
    assert not fine_grained_saliency(images.requires_grad_()).requires_grad


def test_wrong_shapes_are_named():
    with oracle.unchecked():
        for shape in ((3, 8, 8), (2, 3, 1, 8)):
            with pytest.raises(ValueError, match="images must have shape"):
                fine_grained_saliency(torch.zeros(shape))


def test_loops_rounded_to_bytes_equal_opencv():
    cv2 = pytest.importorskip("cv2")
    digits = [np.kron(image * 15, np.ones((4, 4))).astype(np.uint8) for image in load_digits().images[:3]]
    gray = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for size, crop in ((32, None), (24, 96)) for image in photographs(size, crop)]
    for image in digits + gray:
        expected = image_oracle.fine_grained(image.astype(float), rounded=True)
        np.testing.assert_allclose(opencv_map(image), expected, atol=1e-6)


def test_photographs_maps_are_close_to_opencv():
    images = photographs(32) + photographs(64)
    for image in images:
        theirs = opencv_map(np.ascontiguousarray(image[:, :, ::-1]))
        ours = fine_grained_saliency(as_batch([image]))[0].numpy()
        assert np.abs(ours - theirs).max() < 0.05
        assert theirs.ravel()[ours.argmax()] > 0.97 * theirs.max()
