"""Networks and samples small enough to train in a second; not a test."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from safn import backbones, trained
from safn.loading import EpochSampler


def backbone(channels: int = 6, stride: int = 8) -> backbones.Backbone:
    """One convolution in the place of VGG16."""

    def build(weights: str, purpose: str) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, channels, stride, stride), nn.ReLU())

    return backbones.Backbone(build, channels, stride, backbones.IMAGENET)


class Net(nn.Module):
    """A classifier with the two parts that training asks for, and dropout, which needs the random state."""

    arguments = {"num_classes": 3}
    normalisation = backbones.IMAGENET

    def __init__(self, num_classes: int = 3, weights: str = "none") -> None:
        super().__init__()
        self.initial_weights = weights
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(4, num_classes, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(images)).mean((2, 3))


trained.KINDS["Net"] = Net
CLASSES = ["cat", "dog", "car"]


class Samples(Dataset):
    """Random images and labels that depend on the index alone; ``spoilt`` = (epoch, index) of an image of NaN."""

    def __init__(self, length: int = 8, spoilt: tuple[int, int] | None = None, side: int = 8) -> None:
        self.length, self.spoilt, self.side = length, spoilt, side

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key):
        epoch, index = key if isinstance(key, tuple) else (None, key)
        rng = np.random.default_rng(index)
        image = torch.from_numpy(rng.standard_normal((3, self.side, self.side), np.float32))
        if (epoch, index) == self.spoilt:
            image[0, 0, 0] = float("nan")
        label = torch.tensor([index % 2, (index + 1) % 2, index % 3 == 0], dtype=torch.float32)
        mask = torch.from_numpy(rng.integers(0, 3, (self.side, self.side)))
        return {"id": f"image_{index}", "image": image, "label": label, "mask": mask}


class Brightest(nn.Module):
    """Class c + 1 where colour c is high, background elsewhere; counts what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.seen = nn.Parameter(torch.tensor(40.0)), 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        red_green_blue = images * torch.tensor((0.229, 0.224, 0.225))[:, None, None]
        red_green_blue = red_green_blue + torch.tensor((0.485, 0.456, 0.406))[:, None, None]
        return self.scale * torch.cat([torch.full_like(images[:, :1], 0.5), red_green_blue], 1)


def true_mask(c: int) -> np.ndarray:
    """The mask of a photo of the fixture ``photos``."""
    mask = np.zeros((33, 41), np.uint8)
    mask[:, :20] = c + 1
    return mask


def training_batches(samples: Samples, seed: int = 0, workers: int = 0) -> DataLoader:
    sampler = EpochSampler(len(samples), seed)
    return DataLoader(samples, 2, sampler=sampler, num_workers=workers, persistent_workers=workers > 0)


def plain_batches(samples: Samples) -> DataLoader:
    return DataLoader(samples, 1)


def forked(work: Callable[[], None]) -> int:
    """Do ``work`` in a fork of this process; returns its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks of processes with threads
        child = os.fork()
    if not child:
        try:
            work()
        finally:  # never back into pytest
            os._exit(1)
    return child


def ended(child: int) -> int:
    """Wait for a fork; returns its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(work: Callable[[], None]) -> None:
    """Do ``work`` in a fork of this process, which it must end with SIGKILL."""
    assert ended(forked(work)) == -signal.SIGKILL


def killed_while_writing(work: Callable[[], None]) -> None:
    """Do ``work`` in a fork that is killed when half of the first file is written."""

    def half(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    def writing() -> None:
        Path.write_bytes = half
        work()

    killed(writing)


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def options(**changed):
    """Options of a training on the CPU, three epochs of SGD unless changed."""
    from safn.training import TrainingOptions

    return TrainingOptions(**{"learning_rate": 0.1, "epochs": 3, "accelerator": "cpu", **changed})


def train_deeplab(folder: Path, steps: Path, pause: float = 0):
    """Train DeepLab, which has dropout, in ``folder`` on 12 steps; returns the log and the network.

    Each step adds a line to ``steps``: its number, the loss to the last digit, the images.
    """
    from safn import training
    from safn.segmentation import DeepLab

    class Told(training.Segmenter):
        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            with steps.open("a") as file:
                file.write(f"{self.global_step} {loss.item()!r} {' '.join(batch['id'])}\n")
            time.sleep(pause)
            return loss

    backbones.BACKBONES.setdefault("tiny", backbone())
    training.seed_everything(0)
    module = Told(DeepLab("tiny", "largefov", 3, head_width=8), options())
    folder.mkdir(parents=True, exist_ok=True)
    log = training.fit(module, training_batches(Samples()), folder=folder, classes=["cat", "dog"])
    return log, module.network


def train(folder: Path, seed: int = 0, samples: Samples | None = None, workers: int = 0, **changed):
    """Train ``Net`` on ``Samples`` in ``folder``; returns the log and the network."""
    from safn import training

    training.seed_everything(seed)
    module = training.Classifier(Net(), options(seed=seed, learning_rate=0.02, **changed))
    batches = training_batches(samples or Samples(), seed, workers)
    folder.mkdir(parents=True, exist_ok=True)
    log = training.fit(module, batches, plain_batches(Samples()), folder=folder, classes=CLASSES)
    return log, module.network


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(0))
    return e / e.sum(0)
