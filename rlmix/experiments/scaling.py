"""An experiment in small: a fraction of its images; and a recipe as options, for data that have another one."""

from typing import Any

from rlmix.config import Config
from rlmix.data.registry import load_data
from rlmix.recipes import data_recipe


def scale_images(config: Config, scale: float) -> dict[str, Any]:
    """How many images are trained on and tested on: the fraction, and one of every class; the batch is no larger than they are.

    Args:
        config: A training's, whose own numbers of images are left as they are.
        scale: The fraction, in (0, 1].

    Raises:
        ValueError: If the data cannot be read.
        OSError: If they are not there.
    """
    data = load_data(config)
    count, tested = (
        given or min(len(labels), max(data.num_classes, round(scale * len(labels))))
        for given, labels in ((config.data.train_images, data.train_labels), (config.data.test_images, data.labels("test")))
    )
    batch_size = min(config.optim.batch_size or data_recipe(config.data.name).batch_size, count)
    return {"train_images": count, "test_images": tested, "batch_size": batch_size}


def recipe_options(data: str) -> dict[str, Any]:
    """The recipe of ``data`` as options of a training, but for model, epochs and the images' size."""
    return {name: value for name, value in vars(data_recipe(data)).items() if name not in ("model", "epochs", "image_size")}
