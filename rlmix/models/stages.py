"""Named stages of a classifier, and hooks on what they give: how methods mix features without a network of their own."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlmix.common.names import check_name
from rlmix.models.head import holds_blocks, is_container
from rlmix.models.wrappers import inner

STAGE_NAMES = ("stage1", "stage2", "stage3", "stage4")
"""What the stages are called on every network; a network may have fewer."""
CONTAINERS = ("features", "layers", "trunk_output", "blocks")
"""What networks call all that is between their stem or images and their head."""
OTHER_TOKENS = 5
"""Most tokens of a sequence that stand for no patch: of the class, of distillation, registers."""
LISTED = 40


def name_stages(model: nn.Module, names: Sequence[str]) -> None:
    """Have these modules be the network's stages, in place of those that :func:`stages` finds by itself.

    Args:
        model: The network.
        names: Dotted names of one to four of its modules, in the order in which they run.

    Raises:
        ValueError: If there is no such module, or they are too many.
    """
    known = dict(inner(model).named_modules())
    for name in names:
        if not name or name not in known:
            check_name("stages", name, candidates(model))
            raise ValueError(f"stages must be modules of the network, got {name!r}")
    if not 1 <= len(set(names)) == len(names) <= len(STAGE_NAMES):
        raise ValueError(f"stages must be one to {len(STAGE_NAMES)} different modules, got {', '.join(names)}")
    inner(model).stage_modules = tuple(names)  # type: ignore[assignment]  # an attribute goes along with copies of the network


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """The stages a network has, in order; each gives features (B, C, H, W), a transformer's tokens (B, L, C).

    They are, by what comes first: what :func:`name_stages` was given; attributes ``stage1``, ``stage2``, ... or ``layer1``, ..., as of the
    project's and torchvision's residual networks; what timm says are a network's features; four blocks of torchvision's ViT at equal
    distances; and of other networks the last four groups of modules between which the resolution falls.
    """
    model = inner(model)
    aliases = {name: (name, name.replace("stage", "layer")) for name in STAGE_NAMES}
    given = getattr(model, "stage_modules", ())
    attributes = {name: getattr(model, alias) for name, names in aliases.items() for alias in names if hasattr(model, alias)}
    found = {name: module for name, module in attributes.items() if isinstance(module, nn.Module)}
    if found and not given:
        return found
    names = given or _by_feature_info(model) or _by_transformer_block(model) or _by_resolution(model)
    return {name: model.get_submodule(path) for name, path in zip(STAGE_NAMES, names, strict=False)}


def _by_feature_info(model: nn.Module) -> list[str]:
    """What timm says; of more than four, as of the blocks of a transformer without a pyramid, four at equal distances or the last."""
    info: Any = getattr(model, "feature_info", ())
    entries = [dict(entry) for entry in (info if isinstance(info, list | tuple) else getattr(info, "info", ()))]
    known = dict(model.named_modules())
    names = [entry["module"] for entry in entries if entry.get("module") in known]
    if len({entry.get("reduction") for entry in entries}) == 1:
        return _at_equal_distances(names)
    return names[-len(STAGE_NAMES) :]


def _by_transformer_block(model: nn.Module) -> list[str]:
    """Of torchvision's ViT."""
    blocks = getattr(getattr(model, "encoder", None), "layers", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList):
        return []
    return _at_equal_distances([f"encoder.layers.{name}" for name, _ in blocks.named_children()])


def _at_equal_distances(names: list[str]) -> list[str]:
    number = min(len(names), len(STAGE_NAMES))
    return [names[round((index + 1) * len(names) / number) - 1] for index in range(number)]


def _by_resolution(model: nn.Module) -> list[str]:
    """The last module before the next one that has a stride, of a container of modules that run one after the other."""
    prefix = next((name for name in CONTAINERS if isinstance(getattr(model, name, None), nn.Sequential | nn.ModuleList)), "")
    if not prefix and not type(model).__module__.startswith("torchvision.models."):  # nobody knows in which order they run
        return []
    ends: list[str] = []
    for name, child in (model.get_submodule(prefix) if prefix else model).named_children():
        if isinstance(child, nn.AdaptiveAvgPool2d | nn.Linear):
            break
        path = f"{prefix}.{name}" if prefix else name
        ends = [*ends, path] if not ends or _has_stride(child) else [*ends[:-1], path]
    return ends[-len(STAGE_NAMES) :] if len(ends) > 1 else []


def _has_stride(module: nn.Module) -> bool:
    strides = [getattr(part, "stride", 1) for part in module.modules()]
    return any(max(stride) > 1 if isinstance(stride, tuple) else isinstance(stride, int) and stride > 1 for stride in strides)


def candidates(model: nn.Module) -> list[str]:
    """Names of modules that stages may be: what lies side by side in the network and its containers, down to blocks."""
    known, found = dict(inner(model).named_modules()), []
    for name, module in known.items():
        above = name.rpartition(".")[0]
        opened = not above or (above in found and (is_container(known[above]) or holds_blocks(known[above])))
        if name and opened and any(True for _ in module.parameters()):
            found.append(name)
    return found


def stage(model: nn.Module, name: str) -> nn.Module:
    """The stage ``name``; ``"last"`` is the last one.

    Raises:
        ValueError: If the network has no such stage, naming those it has; where it has none, the modules that may be.
    """
    have = stages(model)
    if name == "last" and have:
        return list(have.values())[-1]
    if name not in have:
        listed, kind = ", ".join(have) or "none", type(inner(model)).__name__
        names = [] if have else candidates(model)
        more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
        choice = f"; --stages names up to {len(STAGE_NAMES)}, of {', '.join(names[:LISTED])}{more}" if names else ""
        raise ValueError(f"stage must be one of those {kind} has ({listed}), got {name!r}{choice}")
    return have[name]


@contextmanager
def transformed(model: nn.Module, name: str, transform: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, what the stage ``name`` gives passes through ``transform``; works through a DDP wrapper of ``model`` as well.

    Raises:
        ValueError: If the stage gives other than a tensor.
        RuntimeError: At the end, if the stage was not run: another network, or a compiled one that does not look at hooks.
    """
    calls = 0

    def hook(module: nn.Module, inputs: tuple[Any, ...], features: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if not isinstance(features, Tensor):
            raise ValueError(f"{name} must give a tensor, got {type(features).__name__} of {type(module).__name__}")
        return transform(features)

    handle = stage(model, name).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if not calls:
        raise RuntimeError(f"{name} must be run by the network that is scored, and was not")


def maps_of(features: Tensor, image_size: Sequence[int]) -> Float[Tensor, "batch channel height width"]:
    """The maps in what a stage gives.

    Args:
        features: Maps (B, C, H, W), which are given as they are. Of square images also maps with the channel last, (B, H, W, C), and tokens
            (B, L, C), of which all but the first few stand for the patches, row by row.
        image_size: Height and width of the images.

    Raises:
        ValueError: If they are nothing of that.
    """
    shape, square = features.shape, len(set(image_size)) == 1
    if features.ndim == 4:
        last = square and shape[1] == shape[2] != shape[3]
        return features.permute(0, 3, 1, 2) if last else features
    if features.ndim == 3 and square and shape[1] - math.isqrt(shape[1]) ** 2 <= OTHER_TOKENS:
        side = math.isqrt(shape[1])
        return features[:, shape[1] - side**2 :].mT.unflatten(2, (side, side))
    raise ValueError(
        f"a stage must give maps (batch, channel, height, width), or the tokens of a square grid, got {tuple(shape)}"
    )


def with_maps(features: Tensor, maps: Float[Tensor, "batch channel height width"]) -> Tensor:
    """``features`` with other maps in them, the inverse of :func:`maps_of`; tokens that stand for no patch stay."""
    if features.shape == maps.shape:
        return maps
    if features.ndim == 4:
        return maps.permute(0, 2, 3, 1)
    tokens = maps.flatten(2).mT
    return torch.cat([features[:, : features.shape[1] - tokens.shape[1]], tokens], 1)
