"""A training as one frozen configuration, composed of groups of options: how it is read, settled and checked. Imports no torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, get_type_hints

from rlmix.common.groups import changed, check_values, options_of, read_flat, to_flat
from rlmix.common.mapping import checked
from rlmix.common.saved_config import is_run_config, place_of, read_config, read_yaml, updated
from rlmix.option_groups import (
    MASK_PATCHES,
    NOT_SAVED,
    AgentConfig,
    DataConfig,
    DeviceConfig,
    EnvConfig,
    MixingConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
)
from rlmix.recipes import AUTO, Recipe, data_recipe, is_brought, settled_data


@dataclass(frozen=True)
class Config:
    """A training: what, on what, how, and who decides. Options at None take the data set's recipe.

    Example:
        >>> config = Config(optim=OptimConfig(epochs=6), run=RunConfig(seed=1))
        >>> config == Config.flat(epochs=6, seed=1)
        True
        >>> config.resolved().model.name
        'preactresnet18_w16'
    """

    FIRST: ClassVar = ("method", "data", "model", "epochs", "seed", "out")
    """Options that most people need first."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @classmethod
    def flat(cls, **options: Any) -> Self:
        """Compose one from the command's flat option names.

        Args:
            options: By option, underscores for dashes; ``agent={"gamma": 0.5}`` or ``**{"agent.gamma": 0.5}`` for those with a dot.

        Raises:
            ValueError: If there is no such option.
        """
        return changed(cls(), options)

    @classmethod
    def of(cls, command: Any, **options: Any) -> Self:
        """Compose one from the groups that a command's options hold.

        Args:
            command: A composed configuration with some of the groups.
            options: What it has not, by flat option.
        """
        groups = {entry.name: getattr(command, entry.name) for entry in fields(cls) if hasattr(command, entry.name)}
        kinds = get_type_hints(cls)
        return changed(cls(**{name: group for name, group in groups.items() if isinstance(group, kinds[name])}), options)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read one from a YAML file of flat options, such as a run's config.yaml.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is no mapping, or holds an option that there is not, or not a value of its type.
        """
        options = read_yaml(Path(path))
        try:
            config = cls.from_mapping(updated(options) if is_run_config(options) else options)
            check_values(config)
            return config
        except ValueError as error:
            quoted = re.search(r"got '([\w.]+)'", str(error))
            named = str(error).partition(" must ")[0].removeprefix("option ")
            error.add_note(f"in {place_of(Path(path), quoted[1] if named == 'option' and quoted else named)}")
            raise

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> Self:
        """Read one from plain values by flat option; errors as of :meth:`from_yaml`."""
        return read_flat(cls(), options)

    def changed(self, **options: Any) -> Self:
        """Give it with other values under flat option names, as of :meth:`flat`."""
        return changed(self, options)

    @property
    def recipe(self) -> Recipe:
        """The data set's recipe, with what is set here in its place."""
        known, recipe = options_of(Config), data_recipe(settled_data(self.data.name))
        own = {entry.name: known[entry.name].of(self) for entry in fields(Recipe)}
        return Recipe(**{name: getattr(recipe, name) if value is None else value for name, value in own.items()})

    @property
    def policy_alpha(self) -> float:
        """Of lam where a policy mixes: as given, or the paper's for R-Mix, 0.2 on ImageNet and 1 on CIFAR."""
        if self.mixing.alpha is not None:
            return self.mixing.alpha
        return 0.2 if self.on_folder else 1.0

    @property
    def mask_patches(self) -> tuple[int, ...]:
        """Patches per side of the masks."""
        return MASK_PATCHES if self.mixing.num_patches is None else self.mixing.num_patches

    @property
    def map_source(self) -> str:
        """Where saliency maps come from: exact ones unless something else is named."""
        return self.mixing.saliency_mode or "exact"

    @property
    def on_folder(self) -> bool:
        """Whether the images lie in an imagefolder."""
        return settled_data(self.data.name).startswith("imagefolder:")

    @property
    def test_resize(self) -> int:
        """Pixels of the shorter side of an imagefolder's test images."""
        given = self.data.resize_size
        return given if given is not None else round((self.recipe.image_size or 0) * 256 / 224)

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        kind, _, path = self.data.name.partition(":")
        data = Path(path).stem if path else kind
        run = self.run
        return run.out or Path("runs") / f"{data}-{self.model.name}-{run.method}-s{run.seed}"

    def resolved(self) -> Self:
        """Give it with the data set's recipe in place of every None, and the data of the run ``freeze_from`` where none are named.

        Raises:
            ValueError: If a value is out of range, naming the value and what is allowed, or ``model`` is not the frozen one.
            FileNotFoundError: If ``freeze_from`` is no run's folder.
        """
        config = followed(self)
        check_values(config)
        settled = {"data": settled_data(config.data.name), "seed": int(config.run.seed)}
        config = config.changed(**settled, **vars(config.recipe))
        config.check()
        return config

    def check(self) -> None:
        """Raise ValueError where two values do not go together."""
        data, optim = self.data, self.optim
        if optim.accumulation > 1 and optim.on_nonfinite == "skip":
            raise ValueError(
                f"accumulation must be 1 with on_nonfinite skip, for no batch can be taken out of a sum again, got {optim.accumulation}"
            )
        if self.model.freeze_from is not None and (self.model.weights is not None or self.model.freeze_backbone):
            name = "freeze_backbone" if self.model.weights is None else "weights"
            raise ValueError(f"{name} must be left out with freeze_from, whose classifier is taken as it is")
        if self.model.freeze_backbone and optim.layer_decay < 1:
            raise ValueError(
                f"layer_decay must be left out with freeze_backbone, which trains one layer, got {optim.layer_decay}"
            )
        self._check_agent_device()
        if self.on_folder:
            if data.relabel:
                raise ValueError("relabel must be left out with an imagefolder, whose classes are its folders")
            if data.crop_padding:
                raise ValueError(
                    f"crop_padding must be 0 with an imagefolder, which is cropped and resized, got {data.crop_padding}"
                )
            if self.test_resize < (data.image_size or 0):
                raise ValueError(f"resize_size must be at least image_size {data.image_size}, got {data.resize_size}")
        elif data.resize_size is not None or (data.image_size is not None and not is_brought(data.name)):
            raise ValueError(f"image_size and resize_size must be left out with {data.name}, whose images have their own")
        if data.keys is not None and len(data.keys) not in (2, 4, 6):
            raise ValueError(f"keys must be 2, 4 or 6 names, images and labels of a split each, got {' '.join(data.keys)}")
        if data.splits is not None and not 1 <= len(set(data.splits)) == len(data.splits) <= 3:
            raise ValueError(f"splits must be 1 to 3 different names, of training, test and validation, got {data.splits}")
        if data.value_range is not None and not (len(data.value_range) == 2 and data.value_range[0] < data.value_range[1]):
            raise ValueError(f"value_range must be two numbers, the lower one first, got {data.value_range}")

    def _check_agent_device(self) -> None:
        agent, devices = self.agent, self.device.devices
        several = devices not in (None, 1) or self.device.nodes > 1
        needs = "algorithm ppo" if agent.algorithm != "ppo" else "granularity image" if agent.granularity != "image" else ""
        needs = needs or ("one process" if several else "")
        if agent.agent_device != "cpu" and needs:
            raise ValueError(f"agent_device must be cpu without {needs}, got {agent.agent_device}")

    def as_dict(self) -> dict[str, Any]:
        """Give plain values by flat option, for YAML and checkpoints."""
        values = to_flat(self)
        values["seed"] = int(self.run.seed)
        return {name: value for name, value in values.items() if name not in NOT_SAVED}


Composed = TypeVar("Composed")
_FOLLOWED = (
    *("data_root", "train_images", "test_images", "val_fraction", "image_size", "resize_size", "skip_corrupt", "relabel"),
    *("image_fit", "keys", "splits", "value_range"),
)
"""What settles, beside the data's name, which images and labels there are."""


def followed(config: Composed) -> Composed:
    """``config`` with the model, and where no data are named the data, of the run that its ``freeze_from`` names.

    Where data are named, the other options are taken to be meant for these.

    Args:
        config: A configuration with the groups ``data`` and ``model``.

    Raises:
        FileNotFoundError: If there is no such run.
        ValueError: If ``config`` names another model, or the run's config.yaml holds other than an option's values.
    """
    known = options_of(type(config))
    folder, given = (known[name].of(config) if name in known else None for name in ("freeze_from", "model"))
    if folder is None:
        return config
    saved = read_config(Path(folder))

    def read(name: str) -> Any:
        return checked(saved.get(name), known[name].type, f"{name} in {folder}/config.yaml")

    model = read("model")
    if None not in (model, given) and given != model:
        raise ValueError(f"model must be that of freeze_from {folder}, which is {model}, or be left out, got {given}")
    taken: dict[str, Any] = {"model": given or model}
    if known["data"].of(config) == AUTO:
        wanted = [name for name in _FOLLOWED if name in saved and known[name].of(config) == known[name].default]
        taken |= {name: read(name) for name in ("data", *wanted) if name in saved}
    return changed(config, taken)
