"""Training steps for a GPU: batches made there, bf16, one CUDA graph a step, and how long they take."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gpu_data import SAMPLE, Photographs, batch, epoch_of
from safn import backbones
from safn.fast_layers import PhasedConv, PointwiseConv, fold_batch_norm, speed_up
from safn.loading import Augmentation, Normalisation
from safn.network import SAFN, classification_loss
from safn.options import TrainingOptions
from safn.segmentation import DeepLab
from safn.training import downsample_masks, learning_rate, parameter_groups

WARM_UP = 4  # steps before the graph: cuDNN chooses its algorithms in them
TIMED = 10  # steps from which the end is predicted
STRIDE_8 = "efficientnet_lite0_stride8"


class OutOfTime(RuntimeError):
    """The training would end too late."""


class Diverged(FloatingPointError):
    """The loss is not finite."""


def register_stride_8() -> None:
    """Make EfficientNet-Lite0 with output stride 8 known as ``STRIDE_8``; its fourth reduction is a dilation too."""

    def build(weights: str, purpose: str) -> nn.Module:
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False, output_stride=8)
        if weights == "imagenet":
            network.load_state_dict(backbones.lite0_state(network.state_dict()))
        fold_batch_norm(network.eval())
        speed_up(network)
        return nn.Sequential(backbones.lite0_stages(network.train()))

    backbones.BACKBONES[STRIDE_8] = backbones.Backbone(build, 320, 8, backbones.HALF)


class ProductConv(nn.Conv2d):
    """Convolve by a product of matrices, which needs no plan of cuDNN for each new shape.

    Example:
        >>> ProductConv(3, 8, 3, padding=2, dilation=2)(torch.zeros(2, 3, 7, 9)).shape
        torch.Size([2, 8, 7, 9])
    """

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, C, h, w)`` to ``(B, K, h, w)``, smaller with a stride or without padding."""
        kernel, stride, padding, dilation = self.kernel_size, self.stride, self.padding, self.dilation
        if kernel == stride == (1, 1):
            columns, size = features.flatten(2), features.shape[-2:]
        else:
            columns = F.unfold(features, kernel, dilation, padding, stride)  # (B, C * kh * kw, h * w)
            reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
            size = [(side + 2 * p - r) // s + 1 for side, p, r, s in zip(features.shape[-2:], padding, reach, stride)]
        # typed first: autocast would make a tensor of each image's view of the weights
        weight = self.weight.flatten(1).to(columns.dtype).expand(len(features), -1, -1)
        product = torch.bmm(weight, columns)  # (B, K, h * w)
        if self.bias is not None:
            product = product + self.bias.to(product.dtype)[:, None]
        return product.unflatten(2, size)


def prepared(network: nn.Module, device: torch.device, ways: dict[str, bool]) -> nn.Module:
    """The network on the device, its convolutions as ``ways`` says: ``channels_last``, ``phased``, ``cudnn``."""
    if not ways["cudnn"]:
        without_cudnn(network)
    elif not ways["phased"]:
        exchange(network, {PhasedConv: nn.Conv2d})
    return network.to(device, memory_format=memory_format(ways))


def memory_format(ways: dict[str, bool]) -> torch.memory_format:
    return torch.channels_last if ways["channels_last"] else torch.contiguous_format


def without_cudnn(network: nn.Module) -> None:
    """Make the convolutions products of matrices, in place, and the depthwise ones PyTorch's own.

    The latter take PyTorch's own kernels where ``torch.backends.cudnn.enabled`` is off. cuDNN plans each layer anew for
    each shape, some 20 ms, and photographs have hundreds of shapes.
    """
    exchange(network, {PhasedConv: nn.Conv2d, PointwiseConv: ProductConv, nn.Conv2d: ProductConv})


def exchange(network: nn.Module, kinds: dict[type, type]) -> None:
    """Replace convolutions by those of another type with the same weights, in place; a depthwise one is no product."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            kind = kinds.get(type(layer))
            if kind is None or (kind is ProductConv and layer.groups > 1):
                continue
            sizes = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups
            made = kind(layer.in_channels, layer.out_channels, *sizes, layer.bias is not None, device="meta")
            made.weight, made.bias = layer.weight, layer.bias
            setattr(parent, name, made.train(layer.training))


def optimizer_of(network: nn.Module, s: dict[str, Any], bias_factor: float, device: torch.device):
    """SGD or AdamW with the groups of ``safn.training``; the learning rates are tensors, which a graph reads anew."""
    groups = parameter_groups(network, TrainingOptions.from_parameters(s), bias_factor)
    for group in groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=device)
    on_gpu = device.type == "cuda"
    if s["optimizer"] == "sgd":
        return torch.optim.SGD(groups, momentum=s["momentum"], fused=on_gpu)
    return torch.optim.AdamW(groups, betas=(s["momentum"], 0.999), fused=on_gpu, capturable=on_gpu)


class Step:
    """A training step: eager at first, then the replay of a CUDA graph of itself, or eager for ever where that fails.

    Attributes:
        total: the sum of the losses since it was last set to zero.
        kind: ``eager`` or ``CUDA graph``.
    """

    def __init__(
        self, loss: Callable[[Tensor], Tensor], optimizer, samples: int, device: torch.device, graph: bool
    ) -> None:
        """``loss``: of samples ``(B, SAMPLE)``, see ``gpu_data.draw``."""
        self.loss, self.optimizer, self.device = loss, optimizer, device
        self.samples = torch.zeros(samples, SAMPLE, device=device)
        self.total = torch.zeros((), device=device)
        self.graph = None
        self.left = WARM_UP if graph and device.type == "cuda" else math.inf

    @property
    def kind(self) -> str:
        return "eager" if self.graph is None else "CUDA graph"

    def __call__(self, samples: Tensor) -> None:
        self.samples.copy_(samples)
        if self.left == 0:
            self._capture()
        self.left -= 1
        if self.graph is None:
            self._eager()
        else:
            self.graph.replay()

    def wait(self) -> None:
        """Wait until the GPU has taken all steps."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _eager(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.loss(self.samples)
        loss.backward()
        self.optimizer.step()
        self.total += loss.detach()

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        try:
            with torch.cuda.graph(graph):
                self._eager()
            self.graph = graph
        except RuntimeError as error:  # slower without, but right
            print(f"no CUDA graph: {error}", flush=True)
            self.optimizer.zero_grad(set_to_none=True)


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        steps: that it will take; fewer than ``wanted`` where these would not end in time.
        an_epoch: steps of one.
        ms_per_step: since the warm-up; None before.
        warm: when the warm-up was over, in seconds of ``time.time``.
    """

    wanted: int
    steps: int
    an_epoch: int = 0
    done: int = 0
    loss: float | None = None
    ms_per_step: float | None = None
    warm: float = 0.0

    def advance(self, step: Step, deadline: float) -> bool:
        """Count a step; in the warm-up, and after every ``TIMED``, wait for it and predict the end.

        Returns:
            whether it waited.
        """
        self.done += 1
        timed = self.done - WARM_UP - 2  # the graph is taken after the warm-up, and played once
        if timed > 0 and timed % TIMED:
            return False
        step.wait()
        if timed == 0:
            self.warm = time.time()
        elif timed > 0:
            self.ms_per_step = 1e3 * (time.time() - self.warm) / timed
            if timed == TIMED and self.ends > deadline:
                self.shorten(deadline)
        return True

    @property
    def ends(self) -> float:
        """When the last step will be done, in seconds of ``time.time``."""
        return time.time() + (self.ms_per_step or 0) / 1e3 * (self.steps - self.done)

    def shorten(self, deadline: float) -> None:
        """Take as many whole epochs as nine tenths of the time allow, and at least the one that has begun.

        Raises:
            OutOfTime: this one would not end in time.
        """
        fit = self.done + 0.9 * 1e3 * (deadline - time.time()) / self.ms_per_step
        begun = -(-self.done // self.an_epoch)
        if self.done < begun * self.an_epoch > fit:
            raise OutOfTime(f"{self.done} of {self.steps} steps, {self.ms_per_step:.1f} ms each: no epoch fits")
        self.steps = min(self.steps, max(begun, int(fit // self.an_epoch)) * self.an_epoch)


def train(
    step: Step,
    epochs: Iterator[Tensor],
    steps: int,
    s: dict[str, Any],
    deadline: float,
    report: Callable[[Progress], None],
) -> dict[str, float]:
    """Train ``steps`` steps; ``epochs`` yields the samples of each epoch, float32 ``(steps, B, SAMPLE)``.

    After ``TIMED`` steps, and after each epoch, the end is predicted. Where it lies beyond ``deadline``, seconds of
    ``time.time``, fewer epochs are trained, and the schedule is that of these. ``report`` is called after each step of
    the warm-up, then after every ``TIMED``.

    Returns:
        the mean loss of the last epoch, milliseconds a step after the warm-up, seconds, and the epochs and steps trained.

    Raises:
        OutOfTime: not even one epoch fits.
        Diverged: the loss of an epoch is not finite.
    """
    rates = [group["lr"] for group in step.optimizer.param_groups]
    initial = [float(rate) for rate in rates]
    progress, began = Progress(steps, steps), time.time()
    side = torch.cuda.stream(torch.cuda.Stream()) if step.device.type == "cuda" else contextlib.nullcontext()
    with side, ThreadPoolExecutor(1) as drawing:
        coming = drawing.submit(next, epochs)
        while progress.done < progress.steps:
            chosen = coming.result()
            coming = drawing.submit(next, epochs)  # drawn while the GPU works
            progress.an_epoch = len(chosen)
            chosen = chosen[: progress.steps - progress.done].to(step.device)
            step.total.zero_()
            for samples in chosen:
                factor = learning_rate(progress.done, progress.steps, s["schedule"], s["power"])
                for rate, first in zip(rates, initial):
                    rate.fill_(first * factor)
                step(samples)
                if progress.advance(step, deadline):
                    report(progress)
            progress.loss = float(step.total) / len(chosen)
            if not math.isfinite(progress.loss):
                raise Diverged(f"the loss is {progress.loss} after {progress.done} of {progress.steps} steps")
            if progress.ms_per_step and progress.ends > deadline:
                progress.shorten(deadline)  # the steps became slower
    seconds = time.time() - began
    return {
        "loss": progress.loss,
        "ms_per_step": progress.ms_per_step or 1e3 * seconds / progress.done,
        "seconds_training": seconds,
        "steps_trained": progress.done,
        "epochs_trained": progress.done / progress.an_epoch,
        "shortened": progress.steps < progress.wanted,
    }


def epochs_of(photographs: Photographs, augmentation: Augmentation, seed: int, batch_size: int) -> Iterator[Tensor]:
    """Yield the samples of one epoch after the other."""
    epoch = 0
    while True:
        yield torch.from_numpy(epoch_of(photographs, augmentation, seed, epoch, batch_size))
        epoch += 1


def classifier_loss(
    network: SAFN, data: Photographs, crop: int, normalisation: Normalisation, ways: dict[str, bool]
) -> Callable[[Tensor], Tensor]:
    """Eq. 3 of a batch, as a function of its samples."""

    def loss(samples: Tensor) -> Tensor:
        images, _ = batch(data.photos, samples, crop, normalisation)
        scores = network(images.contiguous(memory_format=memory_format(ways)))
        return classification_loss(scores, data.labels[samples[:, 0].long()])

    return loss


def segmenter_loss(
    network: DeepLab,
    data: Photographs,
    masks: Tensor,
    crop: int,
    normalisation: Normalisation,
    ways: dict[str, bool],
) -> Callable[[Tensor], Tensor]:
    """Cross-entropy of a batch over the pixels that are not ignored, as a function of its samples."""

    def loss(samples: Tensor) -> Tensor:
        images, target = batch(data.photos, samples, crop, normalisation, masks)
        logits = network(images.contiguous(memory_format=memory_format(ways))).float()
        target = downsample_masks(target, logits.shape[-2:])
        each = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
        return each.sum() / (target != 255).sum().clamp(min=1)

    return loss
