"""What is trained and how: options, losses, learning rates (Sec. IV-A). ``safn.fitting`` runs it with lightning."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.classification import multilabel_average_precision

from safn.arguments import require_one_of, require_shape
from safn.baseline import PlainClassifier
from safn.data import VOCFolder
from safn.files import DataError
from safn.fitting import Log, fit
from safn.loading import Augmentation, PlainSet, TrainingSet, plain_loader, training_loader
from safn.metrics import VOID
from safn.network import SAFN, classification_loss
from safn.options import CHOICES, TrainingOptions
from safn.segmentation import DeepLab

UNCHECKED = {"cuda": 50}  # losses that wait for a check, by device: each check waits for a GPU


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, and ask torch for reproducible kernels, as far as a GPU has them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    lightning.seed_everything(seed, verbose=False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # nothing reads such memory, and to fill it takes 3 to 7 % of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def learning_rate(step: int, steps: int, schedule: str, power: float = 0.9) -> float:
    """Return the factor on the initial learning rate before step ``step`` of ``steps``.

    ``poly``: (1 - step / steps) ** power, the classifier's (Sec. IV-A; the power is open, 0.9).
    ``step``: divided by 10 after each third. Of 6,000 steps that is every 2,000, as in Sec. IV-A.

    Example:
        >>> learning_rate(2000, 6000, "step")
        0.1
    """
    require_one_of("schedule", schedule, CHOICES["schedule"])
    return max(0.0, 1 - step / steps) ** power if schedule == "poly" else 0.1 ** (3 * step // steps)


def parameter_groups(network: nn.Module, options: TrainingOptions, bias_factor: float) -> list[dict[str, Any]]:
    """Group the parameters of each part of a network for an optimiser, by the factor on the learning rate.

    Weights decay. Biases do not, and their learning rate is ``bias_factor`` times that of the weights.
    """
    o = options
    attention = o.new_layer_factor if o.attention_factor is None else o.attention_factor
    factors = {"backbone": 1.0, "head": o.new_layer_factor, "attention": attention}
    groups = []
    for name, part in network.named_children():
        rate = o.learning_rate * factors[name]
        trained = [p for p in part.parameters() if p.requires_grad]
        weights = [p for p in trained if p.ndim > 1]
        biases = [p for p in trained if p.ndim <= 1]
        if weights:
            groups.append({"name": f"{name} weight", "params": weights, "lr": rate, "weight_decay": o.weight_decay})
        if biases:
            groups.append({"name": f"{name} bias", "params": biases, "lr": rate * bias_factor, "weight_decay": 0.0})
    return groups


class TrainingModule(lightning.LightningModule):
    """What both trainings share: the optimiser, a learning rate and a random seed for each step, a finite loss."""

    bias_factor = 1.0  # learning rate of biases, as a multiple

    def __init__(self, network: nn.Module, options: TrainingOptions) -> None:
        super().__init__()
        self.network: Any = network.to(memory_format=torch.channels_last)
        self.options = options
        self.losses: list[tuple[Tensor, str]] = []  # not checked yet, and where each is from

    def configure_optimizers(self) -> Any:
        o = self.options
        groups = parameter_groups(self.network, o, self.bias_factor)
        # on a GPU one kernel for all weights: a step of float16 that overflowed is skipped without asking the processor
        fused = True if any(p.is_cuda for p in self.network.parameters()) else None
        if o.optimizer == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(groups, momentum=o.momentum, fused=fused)
        else:
            optimizer = torch.optim.AdamW(groups, betas=(o.momentum, 0.999), fused=fused)
        steps = int(o.iterations or self.trainer.estimated_stepping_batches)
        factor = partial(learning_rate, steps=steps, schedule=o.schedule, power=o.power)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch: dict, index: int) -> None:
        # dropout must not depend on a resume: lightning draws numbers before the first batch of a run, not of each epoch
        torch.manual_seed(hash((self.options.seed, self.current_epoch, index)))

    def on_train_batch_end(self, *_: Any) -> None:
        if self.options.iterations and self.global_step >= self.options.iterations:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        self.require_finite_losses()  # before the checkpoint is written

    def log_loss(self, loss: Tensor, batch: dict) -> Tensor:
        """Log the loss of a step, and check it now or later."""
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["id"]))
        place = f"epoch {self.current_epoch}, step {self.global_step}, images {', '.join(batch['id'])}"
        self.losses.append((loss.detach(), place))
        if len(self.losses) > UNCHECKED.get(loss.device.type, 0):
            self.require_finite_losses()
        return loss

    def require_finite_losses(self) -> None:
        """Raise ``FloatingPointError`` for the first loss that is not finite."""
        for loss, place in self.losses:
            if not loss.isfinite():
                text = f"the loss is {loss.item()} in {place}; the last good checkpoint is kept. Lower learning_rate."
                raise FloatingPointError(text)
        self.losses.clear()


class Classifier(TrainingModule):
    """Trains SAFN with Eq. 3 and validates it by the mean average precision over the classes."""

    def __init__(self, network: nn.Module, options: TrainingOptions) -> None:
        super().__init__(network, options)
        self.scores: list[Tensor] = []
        self.labels: list[Tensor] = []

    def training_step(self, batch: dict, _: int) -> Tensor:
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        loss = self.log_loss(classification_loss(self.network(images), batch["label"]), batch)
        weights = getattr(self.network, "scale_weights", None)
        if weights is not None:
            for scale, mean in zip(self.network.scales, weights.mean((0, 2, 3))):
                self.log(f"weight_{scale:g}", mean, on_step=False, on_epoch=True, batch_size=len(batch["id"]))
        return loss

    def validation_step(self, batch: dict, _: int) -> None:
        self.scores.append(self.network(batch["image"]).float().sigmoid().cpu())
        self.labels.append(batch["label"].cpu())

    def on_validation_epoch_end(self) -> None:
        self.log("val_mAP", mean_average_precision(torch.cat(self.scores), torch.cat(self.labels)))
        self.scores.clear()
        self.labels.clear()


class Segmenter(TrainingModule):
    """Trains DeepLab on masks whose pixels of 255 are ignored."""

    bias_factor = 2.0

    def training_step(self, batch: dict, _: int) -> Tensor:
        logits = self.network(batch["image"].contiguous(memory_format=torch.channels_last)).float()
        target = downsample_masks(batch["mask"], logits.shape[-2:])
        counted = (target != VOID).sum().clamp(min=1)  # all ignored: the loss is 0, not NaN
        # summed below: CUDA cannot repeat its own sum
        each = F.cross_entropy(logits, target, ignore_index=VOID, reduction="none")
        return self.log_loss(each.sum() / counted, batch)


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Average the precision over the classes that occur; both ``(images, N)``, result in 0..1, NaN where none occurs.

    Example:
        >>> mean_average_precision(torch.tensor([[0.9], [0.1]]), torch.tensor([[1], [0]]))
        1.0
    """
    require_shape("scores", scores.shape, ("images", "N"))
    require_shape("labels", labels.shape, scores.shape)
    occurring = labels.sum(0) > 0
    if not occurring.any():
        return float("nan")
    scores, labels = scores[:, occurring], labels[:, occurring].long()
    return float(multilabel_average_precision(scores, labels, labels.shape[1], validate_args=False))


def downsample_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize masks ``(B, H, W)`` to the logits, int64 ``(B, h, w)``, by the pixel in the middle of each cell.

    The test puts each logit back there when it enlarges them (corners not aligned). With the pixel in the corner every
    mask would move by half a cell.
    """
    return F.interpolate(masks[:, None].float(), size, mode="nearest-exact")[:, 0].long()


def train_classifier(
    network: SAFN | PlainClassifier,
    options: TrainingOptions,
    folder: VOCFolder,
    train: list[str],
    val: list[str],
    out: Path,
) -> Log:
    """Train a classifier on the image labels of the ids in ``train`` and save it in ``out``: see ``fit``."""
    augmentation = Augmentation(options.crop, options.resize)
    samples = TrainingSet(folder, train, augmentation, network.normalisation, options.seed)
    batches = training_loader(samples, options.batch_size, options.workers)
    validation = plain_loader(PlainSet(folder, val, network.normalisation, options.size), options.workers, batch_size=4)
    return fit(Classifier(network, options), batches, validation, folder=out, classes=folder.classes)


def train_segmenter(
    network: DeepLab, options: TrainingOptions, folder: VOCFolder, train: list[str], masks: Path | None, out: Path
) -> Log:
    """Train DeepLab on the masks of the ids in ``train`` and save it in ``out``: see ``fit``.

    Args:
        masks: folder of ``<id>.png``. ``None``: the ground-truth masks of the data folder.

    Raises:
        DataError: images have no such mask. Some are named.
    """
    paths = {i: folder.mask_path(i) if masks is None else masks / f"{i}.png" for i in train}
    there = {i: path for i, path in paths.items() if path and path.exists()}
    if absent := [i for i in train if i not in there]:
        remedy = "draw them, or leave the upper bound out" if masks is None else "make their pseudo labels first"
        named = ", ".join(absent[:5])
        raise DataError(f"{len(absent)} of {len(train)} training images have no mask ({named}, ...): {remedy}")
    augmentation = Augmentation(options.crop, options.resize, jitter=(0, 0, 0, 0))  # flip and crop only (Sec. IV-A)
    samples = TrainingSet(folder, train, augmentation, network.normalisation, options.seed, there)
    batches = training_loader(samples, options.batch_size, options.workers)
    return fit(Segmenter(network, options), batches, folder=out, classes=folder.classes)
