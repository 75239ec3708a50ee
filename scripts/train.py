"""Train a classifier under a mix-up method; under rlmix, teach a PPO agent to mix meanwhile.

rlmix train --method rlmix --data digits --epochs 5 --seed 0 --out DIR
rlmix train --resume DIR
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from rlmix import metrics
from rlmix.agents.algorithms import ALGORITHMS, Agent, build_agent
from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.policies import CoinPolicy, ConstantPolicy, FixedRandomPolicy, Policy
from rlmix.agents.ppo import PPOConfig
from rlmix.allocator import keep_freed_memory
from rlmix.config import TrainingConfig
from rlmix.envs.host import render_process
from rlmix.envs.process import MixingProcess
from rlmix.envs.rlmix_env import RLMixEnv
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.methods import METHODS
from rlmix.names import check_name
from rlmix.runs import Run, check_free, peak_memory_mb, read_config, read_yaml
from rlmix.scripts.options import UsageError, parse, read_args, to_args
from rlmix.scripts.progress import TrainingProgress
from rlmix.training import Training

POLICIES = ("rlmix", "rmix", "rmix-p8", "constant", "coin", "policy")
"""Methods that are a policy in the environment: an agent that learns, the fixed-random one at two patch counts, a constant, a coin, and
one that has learned."""
ALL_METHODS = (*POLICIES, *METHODS)
NO_ALPHA = ("vanilla", "cutout")
NOT_SAVED = ("out", "overwrite", "resume", "config")


@dataclass(frozen=True)
class Train(TrainingConfig):
    """Train a classifier under a mix-up method. Options left at None take the data set's recipe."""

    method: str = "rlmix"
    """rlmix (an agent learns to choose), policy (see --policy), rmix (fixed-random), rmix-p8 (the same at the agent's 8 patches),
    constant (see --top-k), coin (between 0 and 0.99); vanilla, input_mixup,
    manifold_mixup, cutout, cutmix, saliencymix, puzzlemix, comixup, automix, alignmix, augmix."""
    credit: Literal["own", "pair", "batch"] = "pair"
    """Who earns an image's reward. An image's choice also mixes the image it is the partner of: paid for their own alone, agents drift to
    Input Mix-up and lower everyone's reward; paid half for the other (pair) they raise it. batch pays everyone the mean."""
    observation: Literal["paper", "pair"] = "pair"
    """What an agent sees of an image: paper (its map and logits), pair (also those of its two partners, lam, and the training's
    progress). On what the paper's sees there is next to nothing to learn."""
    top_k: float | None = None
    """The quantile of --method constant, in [0, 1); 0 is plain Input Mix-up."""
    policy: str | None = None
    """The run whose learned policy --method policy takes, as it is: whatever classifier, data or batch size it was learned with."""
    algorithm: str = "ppo"
    """Who learns under rlmix: ppo, a2c, dqn (Stable-Baselines3), bandit (one-step policy gradient)."""
    granularity: Literal["image", "batch"] = "image"
    """Under rlmix: one decision an image (the vector environment), or the paper's joint decision for the batch."""
    agent: PPOConfig = field(default_factory=PPOConfig)
    """The agent's hyperparameters."""
    picture_every: int = 5
    """Epochs between two pictures of a mixed batch in TensorBoard; 0 for none."""
    out: Path | None = None
    """The run's folder; runs/<data>-<model>-<method>-s<seed> where not given."""
    overwrite: bool = False
    """Replace the run that --out holds."""
    resume: Path | None = None
    """Go on with the run in this folder, with its own options."""
    config: Path | None = None
    """Read options from a YAML file, such as a run's config.yaml; typed ones win."""

    def resolved(self) -> "Train":
        check_name("method", self.method, ALL_METHODS)
        if (self.method == "constant") != (self.top_k is not None):
            raise ValueError(f"top_k must be given with method constant, and only then, got {self.top_k} with {self.method}")
        if self.top_k is not None and not 0 <= self.top_k < 1:
            raise ValueError(f"top_k must be in [0, 1), got {self.top_k}")
        if (self.method == "policy") != (self.policy is not None):
            raise ValueError(f"policy must be given with method policy, and only then, got {self.policy} with {self.method}")
        check_name("algorithm", self.algorithm, ALGORITHMS)
        if self.freeze_from is not None and self.method not in POLICIES:
            raise ValueError(f"freeze_from must go with a policy ({', '.join(POLICIES)}), got method {self.method}")
        if self.picture_every < 0:
            raise ValueError(f"picture_every must be at least 0, got {self.picture_every}")
        if self.alpha is not None and self.method in NO_ALPHA:
            raise ValueError(f"alpha must be left out with method {self.method}, which has none, got {self.alpha}")
        self.agent.check()
        patches = self.num_patches or ((2, 4) if self.method == "rmix" else (8,))
        return replace(super().resolved(), num_patches=patches)

    @property
    def training(self) -> TrainingConfig:
        """The part that the classifier's training reads."""
        return TrainingConfig(**{entry.name: getattr(self, entry.name) for entry in fields(TrainingConfig)})

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        kind, _, path = self.data.partition(":")
        data = Path(path).stem if path else kind
        return self.out or Path("runs") / f"{data}-{self.model}-{self.method}-s{self.seed}"

    def as_dict(self) -> dict[str, Any]:
        values = {name: value for name, value in super().as_dict().items() if name not in NOT_SAVED}
        agent = {entry.name: getattr(self.agent, entry.name) for entry in fields(PPOConfig)}
        values["agent"] = {name: list(value) if isinstance(value, tuple) else value for name, value in agent.items()}
        return values


def main(args: Sequence[str] | None = None) -> None:
    """Parse and train."""
    options = read_options(read_args(args))
    train(options)


def read_options(args: Sequence[str]) -> Train:
    """Options from the command line, over those of --config, or those of the run to resume."""
    options = parse(Train, "train", args)
    if options.resume is not None:
        typed = [arg for arg in args if arg.startswith("--") and arg.partition("=")[0] != "--resume"]
        if typed:
            raise UsageError(f"--resume goes on with the run's own options and takes no others, got {', '.join(typed)}")
        saved = parse(Train, "train", to_args(Train, read_config(options.resume)))
        return replace(saved, out=options.resume, resume=options.resume)
    if options.config is not None:
        saved = parse(Train, "train", to_args(Train, read_yaml(options.config)))
        return parse(Train, "train", args, default=saved)
    return options


def train(options: Train, *, quiet: bool = False) -> dict[str, Any]:
    """Run a training to its end and give its result.json.

    Raises:
        ValueError: If an option is out of range; nothing has been written then.
        OSError: If the data or the run's folder cannot be used.
        FloatingPointError: If the loss stops being finite.
    """
    keep_freed_memory()
    options = options.resolved()
    if options.resume is None:
        check_free(options.folder, options.overwrite)
    task = Task(options)
    if options.resume is not None:
        run, state = Run.reopen(options.folder)
        if state is not None:
            task.load_state_dict(state)
    else:
        run = Run.create(options.folder, options.as_dict(), options.overwrite)
    session = Session(run, options, task, quiet)
    try:
        with session.progress:
            task.fit(session)
        return session.finish()
    except (KeyboardInterrupt, FloatingPointError, OSError) as error:
        error.add_note(f"{run.kept} of {options.epochs} epochs are kept; go on with: rlmix train --resume {run.folder}")
        raise
    finally:
        run.close()


class Task:
    """What is trained: a classifier, and where the method is a policy, the environment's process and who decides in it."""

    def __init__(self, options: Train) -> None:
        self.options = options
        self.process: MixingProcess | None = None
        self.policy: Policy | None = None
        self.agent: Agent | None = None
        config = options.training
        if options.method in METHODS:
            self.training = Training(config, method=options.method)
            return
        if options.method == "rlmix":
            env = RLMixEnv(config) if options.granularity == "batch" else RLMixVectorEnv(config=config)
            self.agent = build_agent(options.algorithm, env, options.agent, options.seed)
            self.process = env.process
        else:
            self.process = MixingProcess(config)
            self.process.reset()
            self.policy = fixed_policy(options)
        self.training = self.process.require_training()

    def fit(self, session: "Session") -> None:
        """Train what is left of the budget."""
        training, process = self.training, self.process
        if self.agent is not None and process is not None:
            process.on_epoch_end = session.close_epoch
            if not training.finished:
                self.agent.learn(session.step, session.end_epoch)
        while not training.finished:
            if process is not None and self.policy is not None:
                process.run_epoch(self.policy, on_step=lambda top_k, rewards: session.step())
            else:
                for _ in range(training.steps_per_epoch):
                    training.fit_step()
                    session.step()
            session.close_epoch(training)
            session.end_epoch({} if self.policy is None else {"policy_entropy": self.policy.entropy})

    def deciders(self) -> dict[str, Any]:
        """The state of who decides."""
        decider = self.agent or self.policy
        return {} if decider is None else {"decider": decider.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        (self.process or self.training).load_state_dict(state["training"])
        decider = self.agent or self.policy
        if decider is not None:
            decider.load_state_dict(state["decider"])


def fixed_policy(options: Train) -> Policy:
    """Who decides where nobody learns."""
    if options.policy is not None:
        return LearnedPolicy(Path(options.policy), options.seed)
    if options.top_k is not None:
        return ConstantPolicy(options.top_k)
    kind = CoinPolicy if options.method == "coin" else FixedRandomPolicy
    return kind(options.num_top_k, options.seed)


class Session:
    """Watches a task: measures it, logs it, keeps checkpoints."""

    def __init__(self, run: Run, options: Train, task: Task, quiet: bool) -> None:
        self.run, self.options, self.task = run, options, task
        training = task.training
        self.progress = TrainingProgress(training.num_steps, training.global_step, training.config.recipe.epochs, quiet=quiet)
        self.progress.say(
            f"{options.method} on {options.data} with {options.model}, {training.steps_per_epoch} steps an epoch: {run.folder}"
        )
        self._resumed_at = time.perf_counter()
        self._training_seconds = 0.0
        self._record: dict[str, Any] = {}
        self._state: dict[str, Any] = {}

    def step(self) -> None:
        """After each step."""
        if self.progress.due():
            training, process = self.task.training, self.task.process
            metrics = training.epoch_metrics() | ({} if process is None else process.epoch_metrics())
            self.progress.step(training.epoch, training.global_step, metrics["train_loss"], metrics.get("reward_mean"))

    def close_epoch(self, training: Training) -> None:
        """After an epoch's last step, before anything else is drawn: evaluate, and take the classifier's state."""
        self._pause()
        process = self.task.process
        self._record = {
            "epoch": training.epoch,
            "step": training.global_step,
            **training.epoch_metrics(),
            **training.evaluate(),
            "learning_rate": training.learning_rate,
            **({} if process is None else process.epoch_metrics() | {"top_k_counts": process.epoch_top_k_counts()}),
        }
        self._state = training.state_dict()
        if process is not None:
            self._log_mixing(process)
        self._resumed_at = time.perf_counter()

    def end_epoch(self, update: dict[str, float]) -> None:
        """After the agent's update on the epoch: log it and keep a checkpoint."""
        self._pause()
        record = self._record | update | {"epoch_seconds": self._training_seconds}
        self.run.log_epoch(record)
        self.run.save_checkpoint({"epoch": record["epoch"], "training": self._state, **self.task.deciders()})
        self.progress.epoch(record)
        self._training_seconds = 0.0
        self._resumed_at = time.perf_counter()

    def finish(self) -> dict[str, Any]:
        """Measure the trained classifier, and write result.json."""
        training, epochs = self.task.training, self.run.epochs
        top1 = [record["test_top1"] for record in epochs]
        seconds = sum(record["epoch_seconds"] for record in epochs)
        logits = training.predict()
        result = {
            "method": self.options.method,
            "seed": self.options.seed,
            "top1": top1[-1],
            "top1_median10": statistics.median(top1[-10:]),
            "top1_best": max(top1),
            "ece": metrics.expected_calibration_error(logits.softmax(1), training.data.test_labels),
            "fgsm_error": None if training.frozen else metrics.fgsm_error(training.model, training.data),
            "seconds": seconds,
            "seconds_per_epoch": seconds / len(epochs),
            "peak_memory_mb": peak_memory_mb(training.device),
            "reward_mean": epochs[-1].get("reward_mean"),
        }
        self.run.finish(result, self.options.as_dict())
        self.progress.say(
            f"test top-1 {result['top1']:.2f} %, calibration error {result['ece']:.2f} %, {seconds:.0f} s: {self.run.folder}"
        )
        return result

    def _log_mixing(self, process: MixingProcess) -> None:
        epoch, every = self._record["epoch"], self.options.picture_every
        self.run.writer.add_histogram("mixing/top_k", process.epoch_top_k(), epoch)
        if every and (epoch % every == 0 or epoch in (1, self.options.epochs)):
            self.run.writer.add_image("mixing/batch", render_process(process), epoch, dataformats="HWC")

    def _pause(self) -> None:
        if self.task.training.device.type == "cuda":
            _synchronize(self.task.training.data.mean)
        self._training_seconds += time.perf_counter() - self._resumed_at


def _synchronize(tensor: Tensor) -> None:
    tensor.sum().item()


if __name__ == "__main__":
    from rlmix.scripts.main import run_command

    run_command(main)
