"""Make data on which mixing may pay, few images of few classes: ``python docs/studies/few_images.py cifar100.npz DEST``.

Writes two npz files for ``rlmix --data npz:FILE`` with the same training images. What they are tested on differs:

- ``choose.npz``: training images that were left over. Everything is chosen on these.
- ``report.npz``: the data set's test images, to be looked at once, when all is chosen.
"""

import argparse
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="an npz with x_train, y_train, x_test, y_test")
    parser.add_argument("dest", type=Path)
    parser.add_argument("--every", type=int, default=10, help="classes 0, EVERY, 2 EVERY, ...")
    parser.add_argument("--images", type=int, default=200, help="training images of each class: its first")
    parser.add_argument("--shrink", type=int, default=1, help="means of so many pixels a side")
    options = parser.parse_args()
    with np.load(options.data) as arrays:
        splits = {name: (arrays[f"x_{name}"], arrays[f"y_{name}"]) for name in ("train", "test")}
    classes = range(0, int(splits["train"][1].max()) + 1, options.every)
    places = {name: [np.flatnonzero(labels == each) for each in classes] for name, (_, labels) in splits.items()}

    def take(split: str, part: slice) -> tuple[np.ndarray, np.ndarray]:
        kept = [found[part] for found in places[split]]
        labels = np.repeat(np.arange(len(kept)), [len(found) for found in kept])
        return shrink(splits[split][0][np.concatenate(kept)], options.shrink), labels

    options.dest.mkdir(parents=True, exist_ok=True)
    images, labels = take("train", slice(options.images))
    tests = {"choose": take("train", slice(options.images, None)), "report": take("test", slice(None))}
    for name, (x_test, y_test) in tests.items():
        np.savez(options.dest / f"{name}.npz", x_train=images, y_train=labels, x_test=x_test, y_test=y_test)
        print(f"{options.dest / name}.npz: {len(images)} training images of {len(classes)} classes, {len(x_test)} to test on")  # noqa: T201  (what it is for)


def shrink(images: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares of ``factor`` pixels a side, which must divide the images'."""
    count, height, width, channels = images.shape
    squares = images.reshape(count, height // factor, factor, width // factor, factor, channels)
    return squares.mean((2, 4)).round().astype(np.uint8)


if __name__ == "__main__":
    main()
