"""Training steps for a GPU: batches made there, bf16, one CUDA graph a step. No step waits for the processor."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gpu_data import SAMPLE, Photographs, batch, epoch_of
from safn import backbones
from safn.fast_layers import PhasedConv, fold_batch_norm, speed_up
from safn.loading import Augmentation, Normalisation
from safn.network import SAFN, classification_loss
from safn.segmentation import DeepLab
from safn.training import learning_rate, parameter_groups, shrunk

WARM_UP = 4  # steps before the graph: cuDNN chooses its algorithms in them
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


def prepared(network: nn.Module, device: torch.device, channels_last: bool, phased: bool) -> nn.Module:
    """The network on the device; without ``phased`` its dilated convolutions are PyTorch's own."""
    if not phased:
        replace_phased(network)
    return network.to(device, memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def replace_phased(network: nn.Module) -> None:
    """Replace each ``PhasedConv`` below ``network``, in place."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, PhasedConv):
                setattr(parent, name, plain_conv(layer))


def plain_conv(layer: PhasedConv) -> nn.Conv2d:
    """PyTorch's own convolution with the parameters of ``layer``."""
    size = {"kernel_size": layer.kernel_size, "padding": layer.padding, "dilation": layer.dilation}
    plain = nn.Conv2d(layer.in_channels, layer.out_channels, **size, groups=layer.groups, device="meta")
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain.train(layer.training)


def optimizer_of(network: nn.Module, s: dict[str, Any], bias_factor: float, device: torch.device):
    """SGD or AdamW with the groups of ``safn.training``; the learning rates are tensors, which a graph reads anew."""
    parts = {"head": (network.head, s["new_layer_factor"])}
    if getattr(network, "attention", None) is not None:
        parts["attention"] = (network.attention, s["attention_factor"])
    groups = parameter_groups(network.backbone, parts, s["learning_rate"], s["weight_decay"], bias_factor)
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


def train(step: Step, epochs: Iterator[Tensor], steps: int, s: dict[str, Any], deadline: float) -> dict[str, float]:
    """Train ``steps`` steps; ``epochs`` yields the samples of each epoch, float32 ``(steps, B, SAMPLE)``.

    Returns:
        the mean loss of the last whole epoch, milliseconds a step after the warm-up, and seconds.

    Raises:
        OutOfTime: the steps so far say that the last would end after ``deadline``, seconds of ``time.time``.
        Diverged: the loss of an epoch is not finite.
    """
    rates = [group["lr"] for group in step.optimizer.param_groups]
    initial = [float(rate) for rate in rates]
    done, began, counted, measured, mean = 0, time.time(), 0, 0.0, float("nan")
    side = torch.cuda.stream(torch.cuda.Stream()) if step.device.type == "cuda" else contextlib.nullcontext()
    coming = next(epochs)
    with side:
        while done < steps:
            since, chosen = time.time(), coming[: steps - done].to(step.device)
            step.total.zero_()
            for samples in chosen:
                factor = learning_rate(done, steps, s["schedule"], s["power"])
                for rate, first in zip(rates, initial):
                    rate.fill_(first * factor)
                step(samples)
                done += 1
            coming = next(epochs) if done < steps else None  # drawn while the GPU works
            mean = float(step.total) / len(chosen)
            if not math.isfinite(mean):
                raise Diverged(f"the loss is {mean} after {done} of {steps} steps")
            if done > len(chosen):  # the first epoch has the warm-up in it
                measured, counted = measured + time.time() - since, counted + len(chosen)
                if time.time() + measured / counted * (steps - done) > deadline:
                    raise OutOfTime(f"{done} of {steps} steps, {1e3 * measured / counted:.1f} ms each")
            print(f"step {done}: loss {mean:.4f}, {time.time() - began:.1f} s", flush=True)
    each = measured / counted if counted else (time.time() - began) / steps
    return {"loss": mean, "ms_per_step": 1e3 * each, "seconds_training": time.time() - began}


def epochs_of(photographs: Photographs, augmentation: Augmentation, seed: int, batch_size: int) -> Iterator[Tensor]:
    """Yield the samples of one epoch after the other."""
    epoch = 0
    while True:
        yield torch.from_numpy(epoch_of(photographs, augmentation, seed, epoch, batch_size))
        epoch += 1


def classifier_loss(
    network: SAFN, data: Photographs, crop: int, normalisation: Normalisation, format: torch.memory_format
) -> Callable[[Tensor], Tensor]:
    """Eq. 3 of a batch, as a function of its samples."""

    def loss(samples: Tensor) -> Tensor:
        images, _ = batch(data.photos, samples, crop, normalisation)
        scores = network(images.contiguous(memory_format=format))
        return classification_loss(scores, data.labels[samples[:, 0].long()])

    return loss


def segmenter_loss(
    network: DeepLab,
    data: Photographs,
    masks: Tensor,
    crop: int,
    normalisation: Normalisation,
    format: torch.memory_format,
) -> Callable[[Tensor], Tensor]:
    """Cross-entropy of a batch over the pixels that are not ignored, as a function of its samples."""

    def loss(samples: Tensor) -> Tensor:
        images, target = batch(data.photos, samples, crop, normalisation, masks)
        logits = network(images.contiguous(memory_format=format)).float()
        target = shrunk(target, logits.shape[-2:])
        each = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
        return each.sum() / (target != 255).sum().clamp(min=1)

    return loss
