"""Other people's trainers mix as a plain loop does: the same losses, weights and learned policy."""

import pytest
import torch
from plain_loop import NUM_CLASSES, SIZE, drawing, make_batches, make_network, train
from torch.nn import functional as F

import rlmix
from rlmix import PPOConfig

MIXERS = {
    "rmix": lambda: rlmix.RMix(num_patches=(2, 4)),
    "cutmix": lambda: rlmix.mixer("cutmix"),
    "rlmix": lambda: rlmix.RLMix(learn=True, agent=PPOConfig(rollout_steps=2, passes=2), seed=3),
}


def assert_same(first, second):
    """Two models and their mixers, after the same batches."""
    (model, mixer), (other, another) = first, second
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)
    if hasattr(mixer, "feedback"):
        own, theirs = mixer.state_dict()["policy"], another.state_dict()["policy"]
        assert own.keys() == theirs.keys()
        for name, value in own.items():
            torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", MIXERS)
def test_accelerate(kind):
    accelerate = pytest.importorskip("accelerate")
    plain = make_network(), MIXERS[kind]()
    expected = train(*plain, make_batches())
    accelerator = accelerate.Accelerator(cpu=True)
    network, mixer, generator = make_network(), MIXERS[kind](), drawing()
    loader = torch.utils.data.DataLoader([pair for batch in make_batches() for pair in zip(*batch, strict=True)], 8)
    model, optimizer, loader = accelerator.prepare(network, torch.optim.SGD(network.parameters(), 0.1), loader)
    losses = []
    for images, labels in loader:
        mixed = mixer(model, images, labels, num_classes=NUM_CLASSES, generator=generator)
        loss = F.cross_entropy(model(mixed.images), mixed.targets)
        optimizer.zero_grad()
        accelerator.backward(loss)
        if kind == "rlmix":
            mixer.feedback()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses == pytest.approx(expected, rel=1e-5)
    assert_same(plain, (network, mixer))


@pytest.mark.parametrize("kind", MIXERS)
@pytest.mark.filterwarnings("ignore")  # of Lightning about workers and loggers
def test_lightning(kind, tmp_path):
    lightning = pytest.importorskip("lightning")

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network, self.mixer, self.generator = make_network(), MIXERS[kind](), drawing()
            self.losses = []

        def training_step(self, batch, index):
            mixed = self.mixer(self.network, *batch, num_classes=NUM_CLASSES, generator=self.generator)
            loss = F.cross_entropy(self.network(mixed.images), mixed.targets)
            self.losses.append(float(loss.detach()))
            return loss

        def on_after_backward(self):
            if kind == "rlmix":
                self.mixer.feedback()

        def configure_optimizers(self):
            return torch.optim.SGD(self.network.parameters(), 0.1)

    plain = make_network(), MIXERS[kind]()
    expected = train(*plain, make_batches())
    module = Classifier()
    loader = torch.utils.data.DataLoader([pair for batch in make_batches() for pair in zip(*batch, strict=True)], 8)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    lightning.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, **quiet).fit(module, loader)
    assert module.losses == pytest.approx(expected, rel=1e-5)
    assert_same(plain, (module.network, module.mixer))


@pytest.mark.parametrize("kind", MIXERS)
@pytest.mark.filterwarnings("ignore")  # of transformers about pinned memory
def test_vit_in_hugging_faces_trainer(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def make_vit():
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = transformers.ViTConfig(
            image_size=SIZE,
            patch_size=4,
            num_labels=NUM_CLASSES,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **sizes,
        )
        return transformers.ViTForImageClassification(config)

    class Mixing(transformers.Trainer):
        mixer, generator, losses = MIXERS[kind](), drawing(), []

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            mixed = self.mixer(model, inputs["pixel_values"], inputs["labels"], num_classes=NUM_CLASSES, generator=self.generator)
            loss = F.cross_entropy(model(pixel_values=mixed.images).logits, mixed.targets)
            self.losses.append(float(loss.detach()))
            return loss

        def training_step(self, *args, **options):
            loss = super().training_step(*args, **options)
            if kind == "rlmix":
                self.mixer.feedback()
            return loss

    plain = make_vit(), MIXERS[kind]()
    expected = train(*plain, make_batches())
    pairs = [{"pixel_values": image, "labels": label} for batch in make_batches() for image, label in zip(*batch, strict=True)]
    vit = make_vit()
    arguments = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=1, per_device_train_batch_size=8, max_grad_norm=0.0, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True, remove_unused_columns=False, train_sampling_strategy="sequential",
    )  # fmt: skip
    optimizer = torch.optim.SGD(vit.parameters(), 0.1)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer = Mixing(vit, arguments, train_dataset=pairs, optimizers=(optimizer, constant))
    trainer.train()
    assert trainer.losses == pytest.approx(expected, rel=1e-4)
    assert_same(plain, (vit, trainer.mixer))
