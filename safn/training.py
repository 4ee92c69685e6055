"""Training with lightning: modules, parameter groups, schedules, checkpoints, resume."""

from __future__ import annotations

import logging
import math
import os
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_average_precision

from safn import backbones, trained
from safn.data import DataError, VOCFolder
from safn.files import load_tensors, save_tensors, write_file
from safn.loading import Augmentation, PlainSet, TrainingSet, plain_loader, training_loader
from safn.network import SAFN, classification_loss
from safn.segmentation import DeepLab

VOID = 255


def learning_rate(step: int, steps: int, schedule: str, power: float = 0.9) -> float:
    """Factor on the initial learning rate before step ``step`` of ``steps``.

    ``poly``: (1 - step / steps) ** power, the classifier's (Sec. IV-A; the power is open, 0.9).
    ``step``: divided by 10 after each third: with 6,000 steps every 2,000, as in Sec. IV-A.
    """
    if schedule == "poly":
        return max(0.0, 1 - step / steps) ** power
    return 0.1 ** (3 * step // steps)


def parameter_groups(
    backbone: nn.Module,
    parts: dict[str, tuple[nn.Module | None, float]],
    rate: float,
    decay: float,
    bias_factor: float,
) -> list[dict[str, Any]]:
    """SGD groups: weights with decay, biases with ``bias_factor`` times the rate and none.

    ``parts``: name -> (module, factor on the learning rate) of the newly initialised parts.
    """
    groups = []
    for name, (module, factor) in {"backbone": (backbone, 1.0), **parts}.items():
        trained = [p for p in module.parameters() if p.requires_grad] if module is not None else []
        weights, biases = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        if weights:
            groups.append({"name": f"{name} weight", "params": weights, "lr": rate * factor, "weight_decay": decay})
        if biases:
            lr = rate * factor * bias_factor
            groups.append({"name": f"{name} bias", "params": biases, "lr": lr, "weight_decay": 0.0})
    return groups


class _Module(lightning.LightningModule):
    """What both trainings share: the optimiser, the schedule a step, reseeding a step, and the check of the loss."""

    def __init__(self, network: nn.Module, settings: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.settings = network.to(memory_format=torch.channels_last), settings
        self.unchecked: tuple[Tensor, str] | None = None  # the last loss, and where it was
        self.iterations = 0  # steps after which training ends, 0: the epochs decide

    def on_train_batch_start(self, batch: dict, index: int) -> None:
        # dropout, the same after a resume: lightning draws numbers before the first batch of a run, not of each epoch
        torch.manual_seed(hash((self.settings["seed"], self.current_epoch, index)))

    def on_train_batch_end(self, *_) -> None:
        if self.iterations and self.global_step >= self.iterations:
            self.trainer.should_stop = True

    def configure_optimizers(self):
        s = self.settings
        groups = parameter_groups(
            self.network.backbone, self.new_parts(), s["learning_rate"], s["weight_decay"], self.bias_factor
        )
        if s["optimizer"] == "sgd":
            optimizer = torch.optim.SGD(groups, momentum=s["momentum"])
        else:  # not the paper's: learns within the few hundred steps that a CPU affords
            optimizer = torch.optim.AdamW(groups, betas=(s["momentum"], 0.999))
        steps = self.iterations or self.trainer.estimated_stepping_batches
        factor = lambda step: learning_rate(step, steps, s["schedule"], s["power"])  # noqa: E731
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def require_finite(self) -> None:
        """Stop where the last loss was not finite. Looked at a step late, so that no step waits for a GPU."""
        loss, where = self.unchecked or (None, "")
        self.unchecked = None
        if loss is not None and not math.isfinite(loss.item()):
            raise FloatingPointError(
                f"the loss is {loss.item()} in {where}; the last good checkpoint is kept. Lower learning_rate."
            )

    def on_train_epoch_end(self) -> None:  # before the checkpoint is written
        self.require_finite()

    def logged(self, loss: Tensor, batch: dict) -> Tensor:
        """The loss, logged, and kept to be checked."""
        self.require_finite()
        where = f"epoch {self.current_epoch}, step {self.global_step}, images {', '.join(batch['id'])}"
        self.unchecked = loss.detach(), where
        self.log("loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch["id"]))
        return loss


class Classifier(_Module):
    """Trains SAFN with Eq. 3; validates by mean average precision over the classes."""

    bias_factor = 1.0

    def __init__(self, network: SAFN, settings: dict[str, Any]) -> None:
        super().__init__(network, settings)
        self.scores: list[Tensor] = []
        self.labels: list[Tensor] = []

    def new_parts(self):
        s = self.settings
        attention = getattr(self.network, "attention", None)
        return {
            "head": (self.network.head, s["new_layer_factor"]),
            "attention": (attention, s.get("attention_factor", s["new_layer_factor"])),
        }

    def training_step(self, batch: dict, _: int) -> Tensor:
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        loss = self.logged(classification_loss(self.network(images), batch["label"]), batch)
        weights = getattr(self.network, "scale_weights", None)
        if weights is not None:
            for scale, mean in zip(self.network.scales, weights.mean((0, 2, 3))):
                self.log(f"weight_{scale:g}", mean, on_step=False, on_epoch=True, batch_size=len(batch["id"]))
        return loss

    def validation_step(self, batch: dict, _: int) -> None:
        self.scores.append(self.network(batch["image"]).float().sigmoid().cpu())
        self.labels.append(batch["label"].cpu())

    def on_validation_epoch_end(self) -> None:
        scores, labels = torch.cat(self.scores), torch.cat(self.labels)
        self.scores.clear()
        self.labels.clear()
        self.log("val_mAP", mean_average_precision(scores, labels), prog_bar=True)


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Mean over the classes that occur of the average precision, 0..1; both ``(images, N)``. NaN where none occurs."""
    occurring = labels.sum(0) > 0
    if not occurring.any():
        return float("nan")
    scores, labels = scores[:, occurring], labels[:, occurring].long()
    return float(torch.stack([binary_average_precision(s, of) for s, of in zip(scores.T, labels.T)]).mean())


class Segmenter(_Module):
    """Trains DeepLab on masks with 255 ignored, ``shrunk`` to the logits."""

    bias_factor = 2.0

    def new_parts(self):
        return {"head": (self.network.head, self.settings["new_layer_factor"])}

    def training_step(self, batch: dict, _: int) -> Tensor:
        logits = self.network(batch["image"].contiguous(memory_format=torch.channels_last)).float()
        target = shrunk(batch["mask"], logits.shape[-2:])
        counted = (target != VOID).sum().clamp(min=1)  # a batch of ignored pixels only has loss 0, not NaN
        each = F.cross_entropy(logits, target, ignore_index=VOID, reduction="none")  # CUDA cannot repeat its own sum
        return self.logged(each.sum() / counted, batch)


def shrunk(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks ``(B, H, W)`` at the size of the logits, int64 ``(B, h, w)``: of each cell the pixel in its middle, where the test's
    enlarging (corners not aligned) puts the logit back. With the pixel in the corner every mask would move by half a cell."""
    return F.interpolate(masks[:, None].float(), size, mode="nearest-exact")[:, 0].long()


def fit(
    module: _Module,
    train,
    validation=None,
    *,
    folder: Path,
    classes: list[str],
    longest_side: int = 0,
    epochs: int,
    iterations: int = 0,
    precision: str = "32-true",
    accelerator: str = "auto",
    accumulate: int = 1,
) -> pd.DataFrame:
    """Train, or go on where an interrupted training of the same folder stopped; returns the log, one row an epoch.

    Writes ``last.ckpt`` after each epoch (atomically) and ``log.csv``; on success the network is saved (``trained.save``)
    and ``last.ckpt`` is gone. ``iterations`` > 0 stops after so many steps.
    """
    _quiet()
    checkpoint = folder / "last.ckpt"
    if trained.is_complete(folder):  # killed after the training, before the stage was complete
        trained.load_weights(module.network, folder)
        checkpoint.unlink(missing_ok=True)
        log = pd.read_csv(folder / "log.csv", dtype=str).astype(float)  # read as numbers, some lose their last digit
        return log.astype({"epoch": int, "step": int})
    history = History(folder / "log.csv")
    module.iterations = iterations
    if iterations:  # lightning's own max_steps loses count of the batches when it resumes
        epochs = math.ceil(iterations / math.ceil(len(train) / accumulate))
    trainer = lightning.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=precision,
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        logger=False,
        plugins=[WholeCheckpoints()],
        callbacks=[
            history,
            ModelCheckpoint(folder, filename="last", save_top_k=1, enable_version_counter=False),
            TQDMProgressBar(refresh_rate=10),
        ],
        num_sanity_val_steps=0,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    resume = str(checkpoint) if checkpoint.exists() else None
    if resume:
        print(f"continuing from {checkpoint}", flush=True)
        # lightning begins to load batches before it sets the epoch; workers would fetch those of the first
        train.sampler.set_epoch(load_tensors(checkpoint)["epoch"] + 1)
    trainer.fit(module, train, validation, ckpt_path=resume, weights_only=True)
    trained.save(module.network, folder, classes, longest_side)
    checkpoint.unlink(missing_ok=True)
    return pd.DataFrame(history.rows)


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear only when complete. Lightning's own are written to the system's temporary folder and
    moved, which is a copy where that is another file system: a kill or a full disk would truncate the last good one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        save_tensors(checkpoint, Path(path))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> Any:
        return load_tensors(Path(path))


class History(lightning.Callback):
    """One row of logged values an epoch, in ``log.csv`` and in the checkpoint, so that a resumed run keeps them."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]

    def on_train_epoch_end(self, trainer, module) -> None:
        values = {k: float(v) for k, v in trainer.callback_metrics.items()}
        rates = {g["name"]: g["lr"] for g in trainer.optimizers[0].param_groups}
        row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **values}
        self.rows.append({**row, "learning_rate": max(rates.values())})
        write_file(self.path, pd.DataFrame(self.rows).to_csv(index=False).encode())


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, and ask torch for reproducible kernels, as far as a GPU has them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    lightning.seed_everything(seed, verbose=False)
    torch.use_deterministic_algorithms(True, warn_only=True)


def _quiet() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # of a GPU: the run goes on, and the book would refuse the notebook
    warnings.filterwarnings("ignore", ".*does not have a deterministic implementation.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")  # lightning's own call of torch
    warnings.filterwarnings("ignore", ".*Checkpoint directory.*exists and is not empty.*")


def train_classifier(
    network: nn.Module, p: SimpleNamespace, folder: VOCFolder, train: list[str], val: list[str], out: Path
) -> pd.DataFrame:
    """Train a classifier with the parameters of its notebook; returns the log."""
    normalisation = backbones.BACKBONES[p.backbone].normalisation
    augmentation = Augmentation(p.crop, p.resize)
    batches = training_loader(TrainingSet(folder, train, augmentation, normalisation, p.seed), p.batch_size, p.workers)
    validation = plain_loader(PlainSet(folder, val, normalisation, p.size), p.workers, batch_size=4)
    return _fit(Classifier(network, vars(p)), batches, validation, p, folder, out)


def train_segmenter(
    network: DeepLab, p: SimpleNamespace, folder: VOCFolder, train: list[str], masks: Path | None, out: Path
) -> pd.DataFrame:
    """Train DeepLab on ``masks/<id>.png`` (``None``: the true masks) with the parameters of its notebook; returns
    the log.

    Raises:
        DataError: images without such a mask, of which some are named.
    """
    normalisation = backbones.BACKBONES[p.backbone].normalisation
    augmentation = Augmentation(p.crop, p.resize, jitter=(0, 0, 0, 0))  # flip and crop only (Sec. IV-A)
    paths = {i: folder.mask_path(i) if masks is None else masks / f"{i}.png" for i in train}
    if absent := [i for i, path in paths.items() if path is None or not path.exists()]:
        remedy = (
            "draw them, or leave the upper bound out" if masks is None else "run notebooks/05_pseudo_ground_truth.ipynb"
        )
        raise DataError(
            f"{len(absent)} of {len(paths)} training images have no mask ({', '.join(absent[:5])}, ...): {remedy}"
        )
    samples = TrainingSet(folder, train, augmentation, normalisation, p.seed, paths)
    return _fit(Segmenter(network, vars(p)), training_loader(samples, p.batch_size, p.workers), None, p, folder, out)


def _fit(module: _Module, batches, validation, p: SimpleNamespace, folder: VOCFolder, out: Path) -> pd.DataFrame:
    return fit(
        module,
        batches,
        validation,
        folder=out,
        classes=folder.classes,
        longest_side=max(p.resize),
        epochs=p.epochs,
        iterations=p.iterations,
        precision=p.precision,
        accelerator=p.accelerator,
        accumulate=getattr(p, "accumulate", 1),
    )
