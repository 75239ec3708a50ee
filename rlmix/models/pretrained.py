"""The weights that a training begins with, out of a file: all but the head, and the head where it has the same classes."""

from collections.abc import Mapping

from torch import Tensor, nn

from rlmix.models.head import head_of


def load_pretrained(model: nn.Module, name: str, num_classes: int, state: Mapping[str, object], source: str) -> str:
    """Load a state_dict, whose head may be for other classes, or missing: the network's then stays as drawn.

    Args:
        model: The network.
        name: What it is called.
        num_classes: N.
        state: Of :meth:`torch.nn.Module.state_dict`.
        source: Where the state is from.

    Returns:
        A line of what was loaded and what was left.

    Raises:
        ValueError: If a weight outside of the head is missing or of another shape; the network is as before then.
    """
    given = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    own, head = model.state_dict(), head_of(model, num_classes)
    of_head = [key for key in own if not head or key.startswith(f"{head}.")]
    fits = [key for key in own if key in given and given[key].shape == own[key].shape]
    # files of before torch 0.4.1 have no counters of batches, on which nothing depends
    wrong = [key for key in own if key not in fits and key not in of_head and not key.endswith("num_batches_tracked")]
    if wrong:
        first, shape = wrong[0], "x".join(map(str, own[wrong[0]].shape))
        found = "x".join(map(str, given[first].shape)) if first in given else "none"
        more = f", and {len(wrong) - 1} more do not fit" if wrong[1:] else ""
        raise ValueError(f"weights must hold {first} of {shape} for {name}, and {source} has {found}{more}")
    whole = set(of_head) <= set(fits)
    taken = {key: given[key] for key in fits if whole or key not in of_head}
    model.load_state_dict(taken, strict=False)
    said = f"weights: {len(taken)} of {len(own)} tensors of {name} from {source}"
    if not whole:
        weight = given.get(f"{head}.weight")
        classes = "" if weight is None else f", of {len(weight)} classes there and {num_classes} here"
        said += f"; left as drawn: {head}{classes}"
    extra = [key for key in given if key not in own]
    if extra:
        said += f"; not of this network: {extra[0]}" + (f" and {len(extra) - 1} more" if extra[1:] else "")
    return said
