"""One training with lightning: checkpoints, resume, the log, progress, and what an interrupt says."""

from __future__ import annotations

import csv
import logging
import math
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from safn import trained
from safn.files import load_tensors, save_tensors, write_csv

if TYPE_CHECKING:
    from safn.training import TrainingModule

Log = list[dict[str, float]]
HARMLESS = (  # warnings
    ".*does not have many workers",
    ".*does not have a deterministic implementation",  # on a GPU: the run goes on
    ".*isinstance.treespec, LeafSpec",  # lightning's own call of torch
    ".*Checkpoint directory.*exists and is not empty",
    "The .srun. command is available",  # on a login node: one process trains without it
    ".*fp16 .* not supported on CPU",  # which is an error here
)
LINE_SECONDS = 30  # between two lines of training.log


class TrainingInterrupted(KeyboardInterrupt):
    """A training was interrupted. The same call goes on where it stopped."""

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows in the place of a traceback."""
        return [str(self)]


def fit(
    module: TrainingModule, train: DataLoader, validation: DataLoader | None = None, *, folder: Path, classes: list[str]
) -> Log:
    """Train, or go on where an interrupted training of the same folder stopped.

    ``last.ckpt`` is written after each epoch, with ``log.csv``. At the end the network is saved (``safn.save``) and
    ``last.ckpt`` is gone. A folder with a saved network is not trained again. ``training.log`` tells how far it is.

    Returns:
        A row for each epoch: ``epoch``, ``step``, ``loss``, ``learning_rate`` (the highest), and what else is logged.

    Raises:
        ValueError: the device has not the precision that was asked for.
        FloatingPointError: the loss is not finite.
        TrainingInterrupted: by Ctrl-C or Jupyter's stop button.
    """
    options, checkpoint = module.options, folder / "last.ckpt"
    if trained.is_complete(folder):  # killed after the training, before the stage was complete
        trained.load_weights(module.network, folder)
        checkpoint.unlink(missing_ok=True)
        return read_log(folder / "log.csv")
    steps_per_epoch = math.ceil(len(train) / options.accumulate)
    # lightning's own max_steps loses count of the batches when it resumes
    epochs = math.ceil(options.iterations / steps_per_epoch) if options.iterations else options.epochs
    steps = options.iterations or epochs * steps_per_epoch
    history = History(folder / "log.csv")
    checkpoints = ModelCheckpoint(folder, filename="last", save_top_k=1, enable_version_counter=False)
    callbacks = [history, Progress(folder / "training.log", epochs, steps), checkpoints]
    with quiet_lightning():
        environment = LightningEnvironment()  # one process trains, whatever a cluster's variables say
        environment.set_global_rank(0)
        trainer = lightning.Trainer(
            accelerator=options.accelerator,
            devices=1,
            precision=options.precision,  # type: ignore[arg-type]
            max_epochs=epochs,
            accumulate_grad_batches=options.accumulate,
            logger=False,
            plugins=[environment, WholeCheckpoints()],
            callbacks=callbacks,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=False,
            use_distributed_sampler=False,
        )
        if trainer.precision != options.precision:
            raise ValueError(f"precision={options.precision!r} is not for this device, which has {trainer.precision!r}")
        _run(trainer, module, train, validation, checkpoint)
    trained.save(module.network, folder, classes, max(options.resize))
    checkpoint.unlink(missing_ok=True)
    return history.rows


def _run(trainer: lightning.Trainer, module: Any, train: DataLoader, val: DataLoader | None, checkpoint: Path) -> None:
    """Call ``trainer.fit``, from a checkpoint where there is one. Lightning makes ``SystemExit`` of an interrupt."""
    resume = str(checkpoint) if checkpoint.exists() else None
    if resume:
        print(f"continuing from {checkpoint}", flush=True)
        # lightning begins to load batches before it sets the epoch; workers would fetch those of the first
        train.sampler.set_epoch(load_tensors(checkpoint)["epoch"] + 1)  # type: ignore[attr-defined]
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, train, val, ckpt_path=resume, weights_only=True)
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)  # lightning has switched it off
        done = trainer.current_epoch
        follows = f"goes on after epoch {done}" if checkpoint.exists() else "begins again"
        text = f"Training stopped in epoch {done + 1} of {trainer.max_epochs}. Run the same cell again: it {follows}."
        raise TrainingInterrupted(text) from None


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence what lightning says of every training, and restore levels and filters afterwards."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for text in HARMLESS:
            warnings.filterwarnings("ignore", text)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)


class FiniteLoss:
    """Stops a training whose loss is not finite. Each loss is read once a GPU has copied it, so that no step waits."""

    def __init__(self) -> None:
        self.unchecked: deque[tuple[Tensor, torch.cuda.Event | None, str]] = deque()  # the oldest first

    def keep(self, loss: Tensor, place: str) -> None:
        """Keep a loss for a later check."""
        value, copied = loss.detach(), None
        if loss.is_cuda:
            value, copied = value.to("cpu", non_blocking=True), torch.cuda.Event()
            copied.record()
        self.unchecked.append((value, copied, place))

    def check(self, wait: bool = False) -> None:
        """Raise ``FloatingPointError`` for the first loss that is not finite, or ``wait`` for those under way as well."""
        while self.unchecked and (wait or has_arrived(self.unchecked[0][1])):
            value, copied, place = self.unchecked.popleft()
            if copied:
                copied.synchronize()
            if not math.isfinite(value):
                self.unchecked.clear()
                text = f"the loss is {value.item()} in {place}; the last good checkpoint is kept. Lower learning_rate."
                raise FloatingPointError(text)


def has_arrived(copied: torch.cuda.Event | None) -> bool:
    """Whether a loss can be read without waiting."""
    return copied is None or copied.query()


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear only when complete. Lightning's own may be truncated by a kill or a full disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        save_tensors(checkpoint, Path(path))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> Any:
        return load_tensors(Path(path))


class History(lightning.Callback):
    """One row of logged values an epoch, in ``log.csv`` and in the checkpoint, so that a resumed run keeps them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: Log = []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        row |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        row["learning_rate"] = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        self.rows.append(row)
        values = [["" if math.isnan(value) else value for value in line.values()] for line in self.rows]
        write_csv(self.path, [list(row), *values])


def read_log(path: Path) -> Log:
    """Read ``log.csv``, every value to its last digit."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows: Log = [{name: float(value or "nan") for name, value in line.items()} for line in lines]
    return [row | {"epoch": int(row["epoch"]), "step": int(row["step"])} for row in rows]


class Progress(lightning.Callback):
    """One line on the screen for the whole training, and readable lines in ``training.log``, for ``tail -f``."""

    def __init__(self, path: Path, epochs: int, steps: int) -> None:
        self.path, self.epochs, self.steps = path, epochs, steps

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.images, self.first, self.begun = 0, trainer.global_step, time.time()
        self.written = self.begun
        self.bar = tqdm(
            total=self.steps, initial=self.first, desc="training", unit="step", mininterval=2, file=sys.stdout
        )

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        self.images += len(batch["id"])
        self.bar.update(trainer.global_step - self.bar.n)
        if time.time() - self.written > LINE_SECONDS:
            self._write(trainer, f"loss {outputs['loss'].item():.3f}")

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        metrics = trainer.callback_metrics
        text = " ".join(f"{name} {metrics[name]:.3f}" for name in ("loss", "val_mAP") if name in metrics)
        self.bar.set_postfix_str(f"epoch {trainer.current_epoch + 1}/{self.epochs}, {text}", refresh=False)
        self._write(trainer, text)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.bar.close()

    def on_exception(self, trainer: lightning.Trainer, module: Any, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.close()

    def _write(self, trainer: lightning.Trainer, text: str) -> None:
        self.written = time.time()
        seconds, done = self.written - self.begun, trainer.global_step - self.first
        left = seconds / max(1, done) * (self.steps - trainer.global_step)
        epoch, step = f"{trainer.current_epoch + 1}/{self.epochs}", f"{trainer.global_step}/{self.steps}"
        speed = f"{self.images / max(seconds, 1e-3):.1f} img/s"
        with self.path.open("a") as file:
            file.write(f"epoch {epoch} step {step} {text} {speed}, {math.ceil(left / 60)} min left\n")
