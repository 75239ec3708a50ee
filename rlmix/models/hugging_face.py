"""Networks of Hugging Face's ``transformers`` from a folder's configuration; nothing is fetched, and none of its code runs."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn


def build_hugging_face(path: str, num_classes: int, in_channels: int, image_size: tuple[int, int] | None) -> nn.Module:
    """The image classifier of a config.json, with random weights; its own are loaded by ``--weights PATH/model.safetensors``.

    Args:
        path: The folder, or the file.
        num_classes: N.
        in_channels: Channels of the images.
        image_size: Height and width of the images, where the configuration has such.

    Raises:
        FileNotFoundError: If there is no config.json.
        ValueError: If it is none of an image classifier, or ``transformers`` is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise ValueError(f'model hf:{path} must have transformers installed: pip install "rlmix[transformers]"') from error
    folder = Path(path)
    file = folder / "config.json" if folder.is_dir() else folder
    if not file.is_file():
        raise FileNotFoundError(f"model hf:{path} must hold a config.json, and there is none")
    try:
        config: Any = transformers.AutoConfig.from_pretrained(str(file), local_files_only=True, trust_remote_code=False)
        config.num_labels = num_classes
        for name, value in (("num_channels", in_channels), ("image_size", image_size and max(image_size))):
            if value is not None and hasattr(config, name):
                setattr(config, name, value)
        network: nn.Module = transformers.AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever a damaged file, or a model for text, makes the builders stumble over
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"model hf:{path} must be an image classifier's: {type(error).__name__} {reason}") from error
    network.register_forward_hook(_logits)
    return network


def _logits(module: nn.Module, images: Any, output: Any) -> Tensor:
    """What the training works with of the network's output."""
    found: Tensor = output.logits
    return found
