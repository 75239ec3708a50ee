"""What a run's TensorBoard shows: tags in groups that are read from the top, with units and descriptions; hyperparameters; a text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rlmix.common.mapping import spread

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary


class Tag(NamedTuple):
    """A chart's name, of which TensorBoard sorts the groups, and what is drawn."""

    name: str
    text: str


TAGS = {
    "test_top1": Tag("1 test/accuracy, %", "Top-1: test images whose largest logit is their class, after each epoch."),
    "test_top5": Tag("1 test/top-5 accuracy, %", "Test images whose class is among the five largest logits, after each epoch."),
    "test_loss": Tag("1 test/loss, nats", "Cross-entropy on the test images, after each epoch."),
    "top1_ema": Tag("1 test/averaged weights, accuracy, %", "As accuracy, of the moving average of the weights (--ema)."),
    "val_top1": Tag(
        "1 validation/accuracy, %", "Top-1: images kept from training (--val-fraction) whose largest logit is their class."
    ),
    "val_top5": Tag("1 validation/top-5 accuracy, %", "Images kept from training whose class is among the five largest logits."),
    "val_loss": Tag("1 validation/loss, nats", "Cross-entropy on the images kept from training."),
    "val_top1_ema": Tag(
        "1 validation/averaged weights, accuracy, %", "As accuracy, of the moving average of the weights (--ema)."
    ),
    "reward_mean": Tag(
        "2 reward/mean of the epoch", "Mean over the epoch's mixed images, before credit is shared; what --reward says."
    ),
    "reward": Tag("2 reward/within the epoch", "The same over the last steps (--log-every)."),
    "reward_std": Tag("2 reward/deviation over images", "Standard deviation over the epoch's mixed images."),
    "loss": Tag("3 within the epoch/loss, nats", "Training loss of the mixed batches, mean over the last steps (--log-every)."),
    "step_learning_rate": Tag("3 within the epoch/learning rate", "Of the classifier's optimizer, at this step."),
    "top_k": Tag("3 within the epoch/mean top-k", "Mean quantile chosen over the last steps: 0 takes all patches for salient."),
    "train_loss": Tag("4 train/loss, nats", "Training loss of the mixed batches, mean over the epoch."),
    "train_top1": Tag("4 train/accuracy, %", "Top-1: mixed training images whose largest logit is their target's largest class."),
    "train_top5": Tag("4 train/top-5 accuracy, %", "Mixed images whose target's largest class is among the five largest logits."),
    "learning_rate": Tag("4 train/learning rate", "Of the classifier's optimizer, at the epoch's end."),
    "nonfinite_steps": Tag("4 train/steps left out", "Steps of the epoch left out because loss or gradient were not finite."),
    "top_k_mean": Tag("5 mixing/mean top-k", "Mean quantile chosen over the epoch: 0 takes all patches for salient."),
    "top_k_values": Tag("5 mixing/top-k", "All quantiles chosen in the epoch, one an image."),
    "mixes_mean": Tag("5 mixing/share mixed", "Part of the epoch's images that were chosen to be mixed (--action top_k_mix)."),
    "lam_mean": Tag("5 mixing/mean lam", "Mean weight chosen for the first image of a blend (--action top_k_lam)."),
    "num_patches_mean": Tag("5 mixing/mean patches", "Mean of the patches a side chosen for the masks (--action top_k_patches)."),
    "box_mean": Tag(
        "5 mixing/mean box", "Mean side of the boxes chosen, as a part of the image's; 0 for none (--action top_k_cut)."
    ),
    "apart_mean": Tag(
        "5 mixing/share apart", "Part of the images with a partner whose saliency lies apart (--action top_k_partner)."
    ),
    "picture": Tag("5 mixing/batch", "The last batch: images, partners, saliency, masks, mixed images."),
    "policy_entropy": Tag(
        "6 agent/policy entropy, nats", "Of the choice for one image; chance has the logarithm of the number of values."
    ),
    "approx_kl": Tag("6 agent/KL of the update, nats", "How far an update moved the policy, approximately."),
    "clip_fraction": Tag("6 agent/clipped share", "Share of the samples whose ratio PPO clipped."),
    "setting": Tag(
        "6 agent/setting of the epoch", "0: all choices alike; n: the n-th choice for every image (--algorithm epochs)."
    ),
    "validation_gain": Tag(
        "6 agent/validation gain, nats", "How much lower the validation loss is after the epoch (--algorithm epochs)."
    ),
    "explained_variance": Tag(
        "6 agent/explained variance", "Share of the rewards' variance that the value network tells; 1 is all."
    ),
    "policy_loss": Tag("6 agent/policy loss", "PPO's clipped objective, to be lowered."),
    "value_loss": Tag("6 agent/value loss", "Mean squared error of the value network; of DQN's, the smooth L1 error."),
    "epoch": Tag("7 progress/epoch", "Epochs done at this step: every other chart is over the classifier's steps."),
    "epoch_seconds": Tag("7 progress/time an epoch, s", "Seconds of training in the epoch, evaluation left out."),
}
"""By the name of a figure in metrics.jsonl or in :meth:`rlmix.training.run_folder.Run.log_steps`."""
RESULTS = {
    "top1": Tag("result/top-1, %", "Test top-1 after the last epoch."),
    "top1_median10": Tag("result/top-1 of the last 10 epochs, %", "Their median."),
    "seconds": Tag("result/time, s", "Seconds of training."),
    "seconds_per_epoch": Tag("result/time an epoch, s", "Seconds of training an epoch."),
}
"""Of result.json; another figure's is its name."""
LIVE = ("test_top1", "reward_mean", "train_loss")
"""Columns of the HPARAMS page that a running run fills."""
FIRST = ("method", "model", "data", "seed")
"""Hyperparameters that stand before all others."""
LAYOUT = {
    "RL-Mix beside R-Mix": {
        TAGS[name].name: ["Multiline", [TAGS[name].name]] for name in ("test_top1", "reward_mean", "top_k_mean", "policy_entropy")
    },
    "classifier": {
        title: ["Multiline", [TAGS[f"train_{name}"].name, TAGS[f"test_{name}"].name]]
        for title, name in (("loss, nats", "loss"), ("accuracy, %", "top1"), ("top-5 accuracy, %", "top5"))
    },
}
"""Custom-scalars layout. Every method logs under the same names: TensorBoard on the parent folder draws the runs in one chart."""


def tag_of(name: str) -> Tag:
    """A figure's; one that is not known is the agent's."""
    return TAGS.get(name) or Tag(f"6 agent/{name.replace('_', ' ')}", "Of the agent's update.")


def result_tag(name: str) -> Tag:
    """Of a figure of the result."""
    return RESULTS.get(name) or Tag(f"result/{name}", "Of the trained classifier (rlmix list metrics)." if name.islower() else "")


def scalar(tag: Tag, value: float) -> "Summary":
    """A point, with its description."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.scalar.metadata import create_summary_metadata

    about = create_summary_metadata(tag.name, tag.text)
    return Summary(value=[Summary.Value(tag=tag.name, simple_value=float(value), metadata=about)])


def explanation() -> str:
    """A Markdown table of what each tag is."""
    lines = ["Every chart is over the classifier's steps. The groups are numbered so that what is read most stands first.", ""]
    tags = (*TAGS.values(), *RESULTS.values())
    lines += ["| chart | what it shows |", "| --- | --- |", *(f"| {tag.name} | {tag.text} |" for tag in tags)]
    return "\n".join(lines)


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """One value a column: method, model, data and seed, then the others, those of the agent and of the method each by itself.

    What is not set has no value.
    """
    flat = {name: config[name] for name in FIRST if name in config} | spread(config)
    kept = {name: value for name, value in flat.items() if value not in (None, [], ())}
    return {
        name: value if isinstance(value, bool | int | float | str) else ", ".join(map(str, value)) for name, value in kept.items()
    }


def session_start(config: Mapping[str, Any], metrics: Sequence[str]) -> "list[Summary]":
    """What HPARAMS shows from the first step on: the columns, and the run's hyperparameters.

    Args:
        config: The run's, by flat option.
        metrics: Names of the result's figures.
    """
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    values = hyperparameters(config)
    start, infos = plugin_data_pb2.SessionStartInfo(), []
    for name, value in values.items():
        kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
        setattr(start.hparams[name], f"{kind}_value", value)
        types = {"bool": "DATA_TYPE_BOOL", "string": "DATA_TYPE_STRING", "number": "DATA_TYPE_FLOAT64"}
        # the page shows those before the others that are said to differ between runs
        infos.append(api_pb2.HParamInfo(name=name, type=api_pb2.DataType.Value(types[kind]), differs=name in FIRST))
    tags = [*(TAGS[name] for name in LIVE), *map(result_tag, metrics)]
    columns = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag.name), description=tag.text) for tag in tags]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=columns)
    return [
        _hparams(metadata.EXPERIMENT_TAG, experiment=experiment),
        _hparams(metadata.SESSION_START_INFO_TAG, session_start_info=start),
    ]


def session_end() -> "Summary":
    """What tells HPARAMS that the run is finished."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    done = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value("STATUS_SUCCESS"))
    return _hparams(metadata.SESSION_END_INFO_TAG, session_end_info=done)


def _hparams(tag: str, **content: Any) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    data = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)])
