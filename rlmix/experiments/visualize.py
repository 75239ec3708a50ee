"""How images are mixed: by a run's classifier and policy, on its data or on a folder of pictures; or by every method."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.policies import FixedRandomPolicy, Policy
from rlmix.common.files import check_place
from rlmix.common.groups import check_values, options_of
from rlmix.common.names import check_name
from rlmix.common.seeding import stream
from rlmix.config import Config
from rlmix.data.augmentation import denormalize, normalize
from rlmix.data.picture_folder import read_pictures
from rlmix.envs.process import Decision
from rlmix.envs.rewards import UNMEASURED, build_reward
from rlmix.evaluation import evaluating
from rlmix.experiments import gallery
from rlmix.experiments.commands.policies import Policies
from rlmix.experiments.commands.visualize import Visualize
from rlmix.experiments.policies import measure, say
from rlmix.experiments.saved_run import load_run, read_settings
from rlmix.experiments.settings import is_policy, learns, leaves_policy, settled
from rlmix.experiments.task import fixed_policy
from rlmix.maps.gradient import Saliency, saliency
from rlmix.maps.patches import check_patches
from rlmix.mixing.actions import as_action
from rlmix.mixing.core import sample_center, sample_pairing
from rlmix.models import build_model
from rlmix.models.weights import load_weights, read_weights
from rlmix.option_groups import EnvConfig
from rlmix.reporting.mixing_figures import MixedBatch, draw_pairs, draw_steps, mix_batch
from rlmix.reporting.output import make_console
from rlmix.reporting.plots import top_k_histograms
from rlmix.reporting.strips import as_pixels
from rlmix.training.allocator import keep_freed_memory
from rlmix.training.guard import finite_saliency
from rlmix.training.run_folder import read_metrics
from rlmix.training.trainer import Batch


class Clean(NamedTuple):
    """What is mixed, and what was seen of it."""

    batch: Batch
    names: Sequence[str]
    """Of what the labels count: classes, or the pictures themselves where their classes are not known."""
    seen: Saliency
    mean: Tensor
    """By which the images are normalised."""
    std: Tensor


def visualize(options: Visualize) -> None:
    """Draw what the options ask for.

    Raises:
        ValueError: If they do not go together, or one is out of range.
        OSError: If there is no such run, file or folder.
    """
    check_values(options)
    if not options.num_images >= 1:
        raise ValueError(f"num_images must be at least 1, got {options.num_images}")
    if options.out is not None:
        check_place(options.out if options.run is not None or options.images is not None else options.out.parent, "out")
    keep_freed_memory()
    if options.run is not None:
        draw_run(options, options.run)
    elif options.policy is not None:
        raise ValueError(f"policy must come with a run's folder, whose classifier it meets, got {options.policy}")
    elif options.model.weights is not None:
        draw_weights(options, Path(options.model.weights))
    elif options.images is not None:
        raise ValueError(f"images must come with a run's folder or --weights, which says what is salient, got {options.images}")
    else:
        names = gallery.SHOWN if options.methods == ("all",) else options.methods
        for name in names:
            if ":" not in name:
                check_name("methods", name, gallery.SHOWN)
        config = Config.of(options, seed=options.seed).resolved()
        path = options.out or Path("methods.png")
        _save(gallery.draw_methods(config, names, options.num_images), path)


def draw_run(options: Visualize, folder: Path) -> None:
    """Figures 2 and 4 of a run, and what its policy or --policy chooses, as files and into its TensorBoard events."""
    from rlmix.training.events import EventWriter

    run, training, state = load_run(folder, maps=options.images is None)
    if options.policy is not None:
        run = under_policy(run, options.policy)
    policy = policy_of(run, folder) if options.policy is None else LearnedPolicy(options.policy, run.run.seed)
    data, out = training.data, options.out or folder
    if options.images is None:
        batch = training.next_batch()
        names = [f"class {label}" for label in range(data.num_classes)]
        clean = Clean(batch, names, training.saliency(batch), data.mean, data.std)
    else:
        clean = look_at(training.model, options.images, data.image_size, (data.mean, data.std), options)
    if options.policy is None and learns(run.run.method) and not leaves_policy(run):
        make_console().print(f"algorithm {run.agent.algorithm} looks at no image: the pictures are of R-Mix's random choice")
    figures: dict[str, Figure] = {}
    learner = options.policy or (folder if leaves_policy(run) and options.images is None else None)
    if learner is not None:
        found = measure(measurement(options, run, folder, learner, out / "policy"), data)
        say(found)
        make_console().print(f"written to {out / 'policy'}", soft_wrap=True)
        figures |= found.pictures
    epoch = int(state["epoch"])
    mixed = mix_clean(clean, policy, run, stream(options.seed, "visualize"), min(epoch / training.recipe.epochs, 1.0))
    figures |= save_figures(mixed, clean, options, out)
    moved = top_k_histograms({folder.name: {run.run.seed: read_metrics(folder)}}) if run.run.method == "rlmix" else None
    if moved is not None:
        _save(moved, out / "top_k.png")
        figures["top_k"] = moved
    with EventWriter(folder) as writer:
        for name, figure in figures.items():
            writer.add_image(f"visualize/{name}", as_pixels(figure), epoch, dataformats="HWC")


def under_policy(run: Config, folder: Path) -> Config:
    """The run, its images mixed and paid for as in the run in ``folder``: a policy's choices mean what they did where it learned."""
    learned, known = settled(read_settings(folder)), options_of(Config)
    return run.changed(
        **{name: known[name].of(learned) for name in ("action", "num_top_k", "num_patches", "alpha", "rule", "reward")}
    )


def measurement(options: Visualize, run: Config, folder: Path, learner: Path, out: Path) -> Policies:
    """What ``rlmix policies`` does on the run's classifier with the policy of ``learner``, on images, partners and lam of other draws.

    Maps are exact ones: kept ones are made while a classifier trains.
    """
    own = {"weights": None, "freeze_backbone": False, "layer_decay": 1.0}  # how the run began and learned, which is over
    run = run.changed(freeze_from=str(folder), mixing_seed=None, saliency_mode="exact", **own)
    reward = build_reward(run.env.reward)
    unfit = run.env.reward == UNMEASURED or reward.updating or reward.average
    searched = options.searched
    if searched is None:
        searched = 0 if options.policy is None else min(2, options.batches)
    return Policies(
        policies=(str(learner.resolve()),),
        constants=(),
        batches=options.batches,
        searched=searched,
        seed=Policies.seed + options.seed,
        reward=EnvConfig.reward if unfit else run.env.reward,
        out=out,
        data=run.data,
        model=run.model,
        optim=run.optim,
        mixing=run.mixing,
        device=run.device,
    )


def draw_weights(options: Visualize, path: Path) -> None:
    """Figures 2 and 4 of a bare classifier on a folder of pictures."""
    if options.images is None or options.model.name is None:
        raise ValueError("weights must come with --model and --images, which they are for")
    state = read_weights(path)
    rows = [len(value) for value in state.values() if isinstance(value, Tensor) and value.ndim == 2]
    if not rows:
        raise ValueError(f"{path} must hold a classifier's state_dict, and has no linear layer")
    size = (options.size, options.size)
    model = build_model(options.model.name, rows[-1], image_size=size)
    load_weights(model, options.model.name, state, str(path))
    clean = look_at(model, options.images, size, None, options)
    run = settled(Config(mixing=options.mixing).changed(method="rmix"))
    policy = FixedRandomPolicy(options.mixing.num_top_k, options.seed)
    mixed = mix_clean(clean, policy, run, stream(options.seed, "visualize"))
    save_figures(mixed, clean, options, options.out or options.images)


def look_at(
    model: nn.Module, folder: Path, size: tuple[int, int], statistics: tuple[Tensor, Tensor] | None, options: Visualize
) -> Clean:
    """Pictures of a folder; salient is what moves the loss of the classifier's own guess, in eval mode: so few make no batch."""
    pictures = read_pictures(folder, size, options.num_images, options.data.skip_corrupt)
    pixels = torch.stack([*pictures.values()]).to(next(model.parameters()).device)
    if statistics is None:
        values = pixels.float().div(255)
        statistics = values.mean((0, 1, 2)), values.std((0, 1, 2)).clamp(min=1e-3)
    images = normalize(pixels, *statistics)
    with evaluating(model):
        with torch.no_grad():
            guesses = model(images).argmax(1)
        seen = saliency(model, images, guesses)
    batch = Batch(images, torch.arange(len(images), device=images.device))
    return Clean(batch, [*pictures], seen, *statistics)


def policy_of(run: Config, folder: Path) -> Policy:
    """Who decides in the run in ``folder``; R-Mix's random choice for a run in which nobody looks at images."""
    if leaves_policy(run):
        return LearnedPolicy(folder, run.run.seed)
    if is_policy(run.run.method) and not learns(run.run.method):
        return fixed_policy(run)
    return FixedRandomPolicy(run.mixing.num_top_k, run.run.seed)


def mix_clean(clean: Clean, policy: Policy, run: Config, generator: torch.Generator, progress: float = 0.0) -> MixedBatch:
    """Draw partners, lam and num_patches, let the policy choose, and mix."""
    images, labels = clean.batch
    check_patches(run.mask_patches, images.shape[2:])
    pairing = sample_pairing(len(images), run.mask_patches, run.policy_alpha, generator)
    pairing = pairing._replace(partner=pairing.partner.to(images.device))
    center = sample_center(len(images), generator).to(images.device)
    seen, sound = finite_saliency(clean.seen)
    decision = Decision(clean.batch, seen, pairing, progress, sound, center)
    chosen = as_action(policy(decision)).to(images.device)
    return mix_batch(images, labels, clean.seen.map, pairing, chosen, run.mixing.rule, len(clean.names), center)


def save_figures(batch: MixedBatch, clean: Clean, options: Visualize, folder: Path) -> dict[str, Figure]:
    """figure2.png and figure4.png in ``folder``."""
    count = min(options.num_images, len(clean.batch.images))
    pixels = denormalize(batch.images, clean.mean, clean.std)[..., :3].cpu().numpy()
    mixed = denormalize(batch.mixed[:count], clean.mean, clean.std)[..., :3].cpu().numpy()
    steps = draw_steps(batch, pixels, mixed, clean.names)
    figures = {"figure2": steps, "figure4": draw_pairs(batch, pixels, mixed, clean.names)}
    for name, figure in figures.items():
        _save(figure, folder / f"{name}.png")
    return figures


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": ""})
    make_console().print(f"written to {path}", soft_wrap=True)
