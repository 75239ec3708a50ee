"""What ``rlmix compare`` is asked for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rlmix.config import Config
from rlmix.experiments.arms import Arm, Study
from rlmix.experiments.commands.engine import EngineConfig
from rlmix.experiments.families import hyperparameter_defaults
from rlmix.experiments.settings import (
    NEEDED,
    check_method,
    check_model,
    default_maps,
    has_alpha,
    is_policy,
    method_names,
    policy_card,
)
from rlmix.option_groups import (
    AgentConfig,
    DataConfig,
    DeviceConfig,
    EnvConfig,
    MixingConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
)


@dataclass(frozen=True)
class Compare:
    """The same classifier, data and schedule under each method, over the same seeds."""

    FIRST: ClassVar = ("methods", "seeds", "data", "model", "epochs", "jobs", "out")

    methods: tuple[str, ...] = ("rlmix", "rmix", "vanilla")
    """Any methods of rlmix list methods. But those that need an option of their own: constant, mixture, policy, shuffled."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each method is trained once with each."""
    models: tuple[str, ...] = ()
    """Compare on each of these models, in one table. On --model where not given."""
    baseline: str | None = None
    """What paired differences are from; rmix, else vanilla. On the same model; where neither is compared, the first one that does not learn
    to mix."""
    control: bool = True
    """Show R-Mix at the paper's 8 patches, as rmix-p8. It stands beside rlmix and rmix, which cut the same masks."""
    metrics: tuple[str, ...] = RunConfig.metrics
    """Figures of the trained classifier beside its top-1 (rlmix list metrics)."""
    timing: bool = True
    """Time a step of each method, interleaved, before the training."""
    out: Path = Path("runs/compare")
    """The comparison's folder; the runs lie in its runs/."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    @property
    def all_methods(self) -> tuple[str, ...]:
        """The methods, and the control where it belongs."""
        wanted = [*self.methods]
        if self.control and {"rlmix", "rmix"} <= set(wanted):
            wanted.append("rmix-p8")
        return tuple(dict.fromkeys(wanted))

    @property
    def base(self) -> str:
        """What paired differences are from."""
        order = ["rmix", "vanilla", *(method for method in self.methods if method != "rlmix"), *self.methods]
        return self.baseline or next(method for method in order if method in self.methods)

    @property
    def maps(self) -> str:
        """Where the policies' maps come from unless that is said: exact ones for all, where one of them has these by itself."""
        config = Config.of(self)
        own = {default_maps(config.changed(method=method)) for method in self.all_methods if is_policy(method)}
        return own.pop() if len(own) == 1 else config.map_source

    @property
    def study(self) -> Study:
        """What is to be trained."""
        models = self.models or (Config.of(self).recipe.model,)
        arms = [self.arm(model, method) for model in models for method in self.all_methods]
        return Study(tuple(arms), self.seeds, self.out, self.timing)

    def arm(self, model: str, method: str) -> Arm:
        """A method on a model."""
        mixing = dict(self.mixing.hyperparameters)
        own = set() if is_policy(method) else set(hyperparameter_defaults(method)) & set(mixing)
        shared: dict[str, Any] = {
            "model": model,
            "method": method,
            "metrics": self.metrics,
            "mixing": {name: mixing[name] for name in own},
        }
        options = Config.of(self).changed(**shared)
        if not has_alpha(method):
            options = options.changed(alpha=None)
        if is_policy(method) and policy_card(method).traits.get("patches"):
            options = options.changed(num_patches=None)
        if is_policy(method) and self.mixing.saliency_mode is None:
            options = options.changed(saliency_mode=self.maps)
        prefix = f"{model}-" if self.models else ""
        return Arm(prefix + method, options, prefix + self.base, method)

    def check(self) -> None:
        """Raise ValueError where an option is out of range, before anything is written."""
        for method in self.methods:
            check_method(method, "methods")
        if not self.methods:
            raise ValueError("methods must name at least one, got none")
        needs = {method: set(NEEDED) & {*policy_card(method).reads} for method in method_names() if is_policy(method)}
        for method in self.methods:
            if needs.get(method):
                allowed = ", ".join(name for name in method_names() if not needs.get(name))
                option = next(iter(needs[method]))
                raise ValueError(f"methods must be of {allowed}, got {method}, which needs {option}, and compare takes none")
        if self.base not in self.all_methods:
            raise ValueError(f"baseline must be one of the methods {', '.join(self.all_methods)}, got {self.baseline!r}")
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"models must differ, got {self.models}")
        for model in self.models:
            check_model(model, "models")
