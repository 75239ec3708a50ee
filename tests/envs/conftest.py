"""Configurations of the environments' tests."""

import pytest
from toys import toy_config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two epochs of four steps of 16 toy images, 16x16 pixels."""
    return toy_config(tmp_path_factory.mktemp("toy"), 16)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two epochs of three steps of four 8x8 images of three classes: milliseconds."""
    return toy_config(tmp_path_factory.mktemp("small"), 8, num_train=12, num_classes=3, batch_size=4)
