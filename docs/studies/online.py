"""Let RL-Mix learn in a plain loop on a frozen classifier: ``python docs/studies/online.py RUN policy.zip --epochs 60``.

RUN is the folder of the classifier's run. What was learned is then held against ``rlmix train --freeze-from RUN`` of as many epochs by
``rlmix policies --freeze-from RUN --policies TRAINED policy.zip``.
"""

import argparse
import time
from pathlib import Path

import rlmix
from rlmix.training.trainer import Training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = rlmix.Config.flat(
        freeze_from=str(options.run), method="rmix", epochs=options.epochs, batch_size=options.batch_size, seed=options.seed
    )
    training = Training(config)
    mixer, fixed, seconds, earned = rlmix.RLMix(learn=True, seed=options.seed), rlmix.RMix(num_patches=(2, 4)), [0.0, 0.0], []
    for step in range(training.num_steps):
        batch = training.next_batch()
        shared = {"num_classes": training.data.num_classes, "generator": training.mixing_generator}
        start = time.perf_counter()
        mixed = mixer(training.model, batch.images, batch.labels, progress=step / training.num_steps, **shared)
        gradient = training.step(mixed, input_gradient=True)
        earned.append(float(mixer.feedback(gradient).mean()))
        middle = time.perf_counter()
        training.look(fixed(training.model, batch.images, batch.labels, **shared))
        seconds[0] += middle - start
        seconds[1] += time.perf_counter() - middle
    mixer.save(options.policy)
    part = max(1, len(earned) // 10)
    first, last = (sum(values) / part for values in (earned[:part], earned[-part:]))
    print(f"paid {first:.4f} in the first tenth and {last:.4f} in the last; {options.policy}")  # noqa: T201  (what it is for)
    print(f"a step takes {seconds[0] / seconds[1]:.3f} times R-Mix's on the same frozen classifier")  # noqa: T201


if __name__ == "__main__":
    main()
