"""How each method of a finished study mixes the same pairs of images: each run's own classifier, and its own policy."""

import torch

from rlmix.agents.policies import Policy
from rlmix.data.dataset import Dataset
from rlmix.experiments.arms import Study
from rlmix.experiments.gallery import Shown, always_mixing, strips, under
from rlmix.experiments.saved_run import SavedRun, load_run
from rlmix.experiments.settings import is_policy
from rlmix.experiments.visualize import Clean, mix_clean, policy_of
from rlmix.mixing.core import Arranged, Mixed
from rlmix.mixing.objective import Objective, is_guided
from rlmix.reporting.strips import Strips
from rlmix.training.trainer import Batch, Training

NUM_IMAGES = 4


def mixed_pictures(study: Study) -> Strips | None:
    """Pictures of each arm's run of the first seed, as its newest checkpoint has it; None where no run can be opened.

    Returns:
        A row an arm, on training images of the first one, with one partner and one lam for all. The caption says which arms are missing,
        as those whose checkpoints were deleted.
    """
    seed = study.seeds[0]
    first: Training | None = None
    data: Dataset | None = None
    shown: dict[str, Shown] = {}
    missing = []
    for arm in study.arms:
        folder = study.run(arm, seed).folder
        try:
            options, training, state = found = load_run(folder, data, maps=True, devices=None, nodes=1, compile=False)
            first = first or training
            if is_policy(options.run.method):
                policy, progress = policy_of(options, folder), min(int(state["epoch"]) / training.recipe.epochs, 1.0)
                shown[study.title(arm)] = chosen(found, policy, progress, first)
            else:
                if isinstance(training.method, torch.nn.Module):
                    training.method.load_state_dict(state["training"]["method"])
                shown[study.title(arm)] = mixing(training, first)
        except (OSError, ValueError) as error:
            missing.append(f"{study.title(arm)} ({error})")
            continue
        data = training.data
    if first is None or not shown:
        return None
    drawn = strips(first, first.next_batch(), shown, NUM_IMAGES, seed)
    left_out = f". Left out: {'; '.join(missing)}" if missing else ""
    return drawn._replace(caption=f"{drawn.caption}. Each by its own run of seed {seed}{left_out}")


def chosen(found: SavedRun, policy: Policy, progress: float, first: Training) -> Shown:
    """What a run's policy makes of a batch that ``first`` draws, by the maps that the run has."""
    options, training, _ = found
    names = [str(label) for label in range(training.data.num_classes)]

    def mix(batch: Batch, generator: Arranged) -> Mixed | Objective:
        clean = Clean(batch, names, training.saliency(batch, first.order.moment), training.data.mean, training.data.std)
        mixed = mix_clean(clean, policy, options, generator, progress)
        return Mixed(mixed.mixed, mixed.targets)

    return mix


def mixing(training: Training, first: Training) -> Shown:
    """What a run's method makes of a batch that ``first`` draws, by the maps that the run has, where the method takes maps."""
    method = always_mixing(training.method)
    if not is_guided(method):
        return under(training, method)

    def mix(batch: Batch, generator: Arranged) -> Mixed | Objective:
        map = training.saliency(batch, first.order.moment).map
        with training.fabric.autocast():
            return method.mix_by(*batch, map, num_classes=training.data.num_classes, generator=generator).mixed

    return mix
