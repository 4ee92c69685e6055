"""One training with lightning: checkpoints, resume, the log, progress, and what an interrupt says."""

import csv
import logging
import math
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
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
    module: "TrainingModule",
    train: DataLoader,
    validation: DataLoader | None = None,
    *,
    folder: Path,
    classes: list[str],
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
    checkpoint = folder / "last.ckpt"
    if trained.is_complete(folder):  # killed after the training, before the stage was complete
        trained.load_weights(module.network, folder)
    else:
        with quiet_lightning():
            _train(module, train, validation, checkpoint)
        trained.save(module.network, folder, classes, max(module.options.resize))
    checkpoint.unlink(missing_ok=True)
    return read_log(folder / "log.csv")


def _train(module: "TrainingModule", train: DataLoader, validation: DataLoader | None, checkpoint: Path) -> None:
    options = module.options
    steps_per_epoch = math.ceil(len(train) / options.accumulate)
    # lightning's own max_steps loses count of the batches when it resumes
    epochs = math.ceil(options.iterations / steps_per_epoch) if options.iterations else options.epochs
    environment = LightningEnvironment()  # one process trains, whatever a cluster's variables say
    environment.set_global_rank(0)
    progress = Progress(checkpoint.parent)
    trainer = lightning.Trainer(
        accelerator=options.accelerator,
        devices=1,
        precision=options.precision,  # type: ignore[arg-type]
        max_epochs=epochs,
        accumulate_grad_batches=options.accumulate,
        logger=False,
        plugins=[environment, WholeCheckpoints()],
        callbacks=[
            progress,
            ModelCheckpoint(checkpoint.parent, filename="last", save_top_k=1, enable_version_counter=False),
        ],
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    if trainer.precision != options.precision:
        raise ValueError(f"precision={options.precision!r} is not for this device, which has {trainer.precision!r}")
    resume, first = None, 0
    if checkpoint.exists():
        print(f"continuing from {checkpoint}", flush=True)
        resume = str(checkpoint)
        epoch, first = itemgetter("epoch", "global_step")(load_tensors(checkpoint))
        # lightning begins to load batches before it sets the epoch; workers would fetch those of the first
        train.sampler.set_epoch(epoch + 1)  # type: ignore[attr-defined]
    steps = options.iterations or epochs * steps_per_epoch
    bar = tqdm(total=steps, initial=first, desc="training", unit="step", mininterval=2, file=sys.stdout)
    with interrupts_explained(trainer, checkpoint), bar as progress.bar:
        trainer.fit(module, train, validation, ckpt_path=resume, weights_only=True)


@contextmanager
def interrupts_explained(trainer: lightning.Trainer, checkpoint: Path) -> Iterator[None]:
    """Raise ``TrainingInterrupted`` for the ``SystemExit`` that lightning makes of an interrupt."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
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
    """Silence what lightning says of every training, and restore its level and the filters afterwards."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    with warnings.catch_warnings():
        for text in HARMLESS:
            warnings.filterwarnings("ignore", text)
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear only when complete. Lightning's own may be truncated by a kill or a full disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        save_tensors(checkpoint, Path(path))


class Progress(lightning.Callback):
    """A row an epoch in ``log.csv``, and one line on the screen, which ``training.log`` keeps for ``tail -f``."""

    bar: tqdm

    def __init__(self, folder: Path) -> None:
        self.table, self.text, self.rows = folder / "log.csv", folder / "training.log", Log()

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.written = time.time()
        if self.table.exists():  # it may be a row ahead of the checkpoint
            self.rows = [row for row in read_log(self.table) if row["step"] <= trainer.global_step]

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        self.bar.update(trainer.global_step - self.bar.n)
        if time.time() - self.written > LINE_SECONDS:
            self._write(trainer, {"loss": outputs["loss"]})

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        row |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        row["learning_rate"] = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        self.rows.append(row)
        write_csv(self.table, [list(row), *(list(line.values()) for line in self.rows)])
        self._write(trainer, row)

    def _write(self, trainer: lightning.Trainer, row: Mapping[str, Any]) -> None:
        values = "".join(f", {name} {row[name]:.3f}" for name in ("loss", "val_mAP") if name in row)
        self.bar.set_postfix_str(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}{values}", refresh=False)
        with self.text.open("a", encoding="utf-8") as file:
            file.write(f"{self.bar}\n")
        self.written = time.time()


def read_log(path: Path) -> Log:
    """Read ``log.csv``, every value to its last digit."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    # an earlier version left the cell of a NaN empty
    rows: Log = [{name: float(value or "nan") for name, value in line.items()} for line in lines]
    return [row | {"epoch": int(row["epoch"]), "step": int(row["step"])} for row in rows]
