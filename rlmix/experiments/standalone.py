"""A run's classifier and policy as files that are read without rlmix and without its data."""

import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import rlmix
from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.standalone import example_inputs, standalone_policy
from rlmix.common.files import write_atomically
from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.envs.rewards import AGENT_PATCHES
from rlmix.models.standalone import example_images, standalone_classifier


class Standalone(NamedTuple):
    """A module that needs nothing of rlmix, and what its users must know."""

    module: nn.Module
    inputs: Mapping[str, Tensor]
    """Examples by name; what has a shape has the batch in front."""
    about: Mapping[str, Any]


def classifier_of(model: nn.Module, data: Dataset, config: Config) -> Standalone:
    """Give a run's classifier with its normalisation; what it is about are its classes and how pictures become its images."""
    height, width = data.image_size
    about = {
        "rlmix": rlmix.__version__,
        "model": config.model.name,
        "data": config.data.name,
        "classes": list(getattr(data, "class_names", None) or range(data.num_classes)),
        "input": {"images": ["batch", data.num_channels, height, width], "range": [0, 1]},
        "preprocessing": str(data.test_transform) if hasattr(data, "test_transform") else None,
        "normalisation, inside": {"mean": data.mean.tolist(), "std": data.std.tolist()},
        "output": "logits",
    }
    module = standalone_classifier(model, data.mean.cpu(), data.std.cpu())
    return Standalone(module, example_images(data.num_channels, data.image_size), about)


def policy_of(policy: LearnedPolicy, num_classes: int) -> Standalone:
    """Give a run's policy; what it is about are its inputs and its top-k values."""
    module = standalone_policy(policy)
    inputs = example_inputs(module, num_classes)
    about = {
        "rlmix": rlmix.__version__,
        "observation": policy.observation,
        "inputs": {name: ["batch", *each.shape[1:]] if each.ndim else [] for name, each in inputs.items()},
        "maps": f"mean of the gradient's norm over channels in {AGENT_PATCHES}x{AGENT_PATCHES} patches, of any scale",
        "values": policy.actions.rows.tolist(),
        "output": ["top_k", *policy.actions.others],
        "draws": not policy.greedy,
    }
    return Standalone(module, inputs, about)


def write_program(path: Path, what: Standalone) -> None:
    """Write a program of ``torch.export``, with ``about.json`` inside; the size of the batch is free."""
    program = torch.export.export(what.module, tuple(what.inputs.values()), dynamic_shapes=_batches(what))
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"about.json": json.dumps(what.about)})
    write_atomically(path, lambda handle: handle.write(buffer.getvalue()))


def write_onnx(path: Path, what: Standalone) -> None:
    """Write an ONNX file, whose metadata are what it is about; the size of the batch is free."""
    with warnings.catch_warnings(action="ignore"):  # of names of axes that are given twice
        program: Any = torch.onnx.export(
            what.module, tuple(what.inputs.values()), dynamic_shapes=_batches(what), input_names=list(what.inputs), verbose=False
        )
    program.model.metadata_props.update({name: json.dumps(value) for name, value in what.about.items()})
    write_atomically(path, lambda handle: handle.write(program.model_proto.SerializeToString()))


def write_safetensors(path: Path, what: Standalone) -> None:
    """Write the weights by name, with what they are about as metadata."""
    from safetensors.torch import save

    weights = {name: value.contiguous().clone() for name, value in what.module.state_dict().items()}
    content = save(weights, {name: json.dumps(value) for name, value in what.about.items()})
    write_atomically(path, lambda handle: handle.write(content))


class Format(NamedTuple):
    """A way to write a module that stands alone."""

    write: Callable[[Path, Standalone], None]
    reader: str
    needs: Sequence[str] = ()
    """Packages of the extra ``export``."""


FORMATS = {
    "pt2": Format(write_program, "torch.export.load(...).module(), without rlmix"),
    "onnx": Format(write_onnx, "onnxruntime.InferenceSession", ("onnx", "onnxscript")),
    "safetensors": Format(write_safetensors, "safetensors.torch.load_file: weights, and what they are about", ("safetensors",)),
}


def _batches(what: Standalone) -> dict[str, Any]:
    batch = torch.export.Dim("batch")
    return {name: {0: batch} if example.ndim else None for name, example in what.inputs.items()}
