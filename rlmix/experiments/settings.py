"""A run's settings: what is trained and mixed, who decides, and what is kept."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from rlmix.agents.algorithms import ALGORITHMS
from rlmix.agents.sb3.ppo import PPOConfig
from rlmix.common.names import check_name
from rlmix.config import TrainingConfig
from rlmix.envs.map_rewards import AGENT_PATCHES
from rlmix.mixing.registry import METHODS
from rlmix.recipes import data_recipe, settled_data

POLICIES = ("rlmix", "rmix", "rmix-p8", "constant", "coin", "policy")
"""Methods that are a policy in the environment: an agent that learns, the fixed-random one at two choices of patches, a constant, a coin,
and one that has learned."""
ALL_METHODS = (*POLICIES, *METHODS)
NO_ALPHA = ("vanilla", "cutout")
NOT_SAVED = ("out", "overwrite", "resume", "config")


@dataclass(frozen=True)
class Train(TrainingConfig):
    """Train a classifier under a mix-up method. Options left at None take the data set's recipe."""

    method: str = "rlmix"
    """rlmix (an agent learns to choose), policy (see --policy), rmix (fixed-random), rmix-p8 (the same at the 8 patches of the
    paper's agent), constant (see --top-k), coin (between 0 and 0.99); vanilla, input_mixup,
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
    checkpoint_every: int = 0
    """Steps between two checkpoints within an epoch; 0 for none. There is one at every epoch's end, and one where a run is stopped."""
    time_limit: float | None = None
    """Minutes after which the run is stopped as by SIGTERM, with exit code 124: a little less than what a job may take."""
    out: Path | None = None
    """The run's folder; runs/<data>-<model>-<method>-s<seed> where not given."""
    overwrite: bool = False
    """Replace the run that --out holds."""
    resume: Path | None = None
    """Go on with the run in this folder, with its own options; typed ones may change what the training does not depend on."""
    config: Path | None = None
    """Read options from a YAML file, such as a run's config.yaml; typed ones win."""

    def check_names(self) -> None:
        """Raise ValueError where the method, the algorithm or the data are unknown: what else is read depends on them."""
        check_name("method", self.method, ALL_METHODS)
        check_name("algorithm", self.algorithm, ALGORITHMS)
        data_recipe(settled_data(self.data))

    def resolved(self) -> "Train":
        self.check_names()
        if (self.method == "constant") != (self.top_k is not None):
            raise ValueError(f"top_k must be given with method constant, and only then, got {self.top_k} with {self.method}")
        if self.top_k is not None and not 0 <= self.top_k < 1:
            raise ValueError(f"top_k must be in [0, 1), got {self.top_k}")
        if (self.method == "policy") != (self.policy is not None):
            raise ValueError(f"policy must be given with method policy, and only then, got {self.policy} with {self.method}")
        if self.freeze_from is not None and self.method not in POLICIES:
            raise ValueError(f"freeze_from must go with a policy ({', '.join(POLICIES)}), got method {self.method}")
        if self.picture_every < 0:
            raise ValueError(f"picture_every must be at least 0, got {self.picture_every}")
        if self.checkpoint_every < 0:
            raise ValueError(f"checkpoint_every must be at least 0, got {self.checkpoint_every}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise ValueError(f"time_limit must be above 0, got {self.time_limit}")
        if self.alpha is not None and self.method in NO_ALPHA:
            raise ValueError(f"alpha must be left out with method {self.method}, which has none, got {self.alpha}")
        self.agent.check()
        settled = super().resolved()
        named = self.method in POLICIES and settled.data.startswith("imagefolder:")
        if self.method == "rmix-p8" and self.num_patches not in (None, (AGENT_PATCHES,)):
            raise ValueError(f"num_patches must be left out with method rmix-p8, R-Mix at 8 patches, got {self.num_patches}")
        patches = (AGENT_PATCHES,) if self.method == "rmix-p8" else self.mask_patches
        return replace(settled, num_patches=patches, alpha=settled.policy_alpha if named else settled.alpha)

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
