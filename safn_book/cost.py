"""What the three aggregations cost (Table 5): time and memory, measured side by side in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import torch
from torch import Tensor

from safn.network import SAFN, classification_loss
from safn.training import Classifier, TrainingOptions, parameter_groups
from safn_book import published

AGGREGATIONS = ("max", "avg", "attention")
COLUMNS = ("training ms/img", "OLM extraction ms/img", "MB")


def measure(p: SimpleNamespace, num_classes: int, steps: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Median milliseconds an image of a training step and of map extraction, and the memory of a training step in MB.

    Args:
        p, num_classes, steps: of ``turns``.

    Returns:
        one row an aggregation, columns ``COLUMNS`` (memory: see ``memory_megabytes``), and their ratios to average
        pooling, the medians of the ratios of each turn.
    """
    taken, memory = turns(p, num_classes, steps)
    measured, ratios = pd.DataFrame(index=list(AGGREGATIONS)), pd.DataFrame(index=list(AGGREGATIONS))
    for column in COLUMNS[:2]:
        measured[column] = 1000 * taken[column].median()
        ratios[column] = taken[column].div(taken[column]["avg"], axis=0).median()
    return measured.assign(**{COLUMNS[2]: memory}), ratios.assign(**{COLUMNS[2]: memory / memory["avg"]})


def turns(p: SimpleNamespace, num_classes: int, steps: int) -> tuple[pd.DataFrame, pd.Series]:
    """Seconds an image of a training step and of map extraction, turn by turn.

    The three networks take turns, so that whatever else the machine does meets all of them; the first turn, a warm-up,
    does not count. Images are noise, weights random: neither changes the cost.

    Args:
        p: parameters of stage 03: backbone, scales, freeze, crop, batch_size, learning_rate, momentum, ....
        steps: turns that count.

    Returns:
        one row a turn, columns (one of the first two ``COLUMNS``, aggregation); and the memory of each aggregation, MB.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(p.batch_size, 3, p.crop, p.crop, generator=generator)
    images = images.to(device, memory_format=torch.channels_last)
    labels = (torch.rand(p.batch_size, num_classes, generator=generator) < 0.1).float().to(device)
    start = {"weights": "none", "attention_start": "random", "freeze": p.freeze}
    networks = {a: SAFN(p.backbone, num_classes, p.scales, a, **start) for a in AGGREGATIONS}
    networks = {a: network.to(device, memory_format=torch.channels_last) for a, network in networks.items()}
    optimizers = {a: _optimizer(network, p) for a, network in networks.items()}
    rows = []
    for turn in range(steps + 1):
        for aggregation in AGGREGATIONS[turn % 3 :] + AGGREGATIONS[: turn % 3]:
            network, optimizer = networks[aggregation], optimizers[aggregation]
            trained = seconds(lambda n=network, o=optimizer: train_step(n, o, images, labels)) / len(images)
            extracted = seconds(lambda n=network: extract(n, images[:1], labels[:1]))
            rows.append({"turn": turn, "aggregation": aggregation, **dict(zip(COLUMNS, (trained, extracted)))})
    taken = pd.DataFrame(rows).query("turn > 0").pivot(index="turn", columns="aggregation", values=list(COLUMNS[:2]))
    return taken, pd.Series({a: memory_megabytes(network, images, labels) for a, network in networks.items()})


def _optimizer(network: SAFN, p: SimpleNamespace) -> torch.optim.SGD:
    parts = Classifier(network, TrainingOptions.from_parameters(p)).new_parts()
    return torch.optim.SGD(parameter_groups(network.backbone, parts, 1e-4, p.weight_decay, 1), momentum=p.momentum)


def train_step(network: SAFN, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    """Forward, Eq. 3, backward, SGD."""
    optimizer.zero_grad(set_to_none=True)
    classification_loss(network.train()(images), labels).backward()
    optimizer.step()


@torch.inference_mode()
def extract(network: SAFN, images: Tensor, labels: Tensor) -> None:
    """Localization maps of one image."""
    network.eval().maps(images, labels).cpu()


def seconds(call: Callable[[], None]) -> float:
    """Wall-clock seconds of ``call``, the work of a GPU included."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    begun = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - begun


def memory_megabytes(network: SAFN, images: Tensor, labels: Tensor) -> float:
    """What a training step has to hold at once, in MB, counted and not sampled: weights, their gradients and momentum, the
    images, and every tensor that the forward pass keeps for the backward pass."""
    weights = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = classification_loss(network.train()(images), labels)
    held[images.untyped_storage().data_ptr()] = images.untyped_storage().nbytes()
    kept = sum(size for pointer, size in held.items() if pointer not in weights)
    del loss  # until here, so that no address is given out twice
    fixed = sum(t.nbytes * (3 if t.requires_grad else 1) for t in network.parameters())
    return (kept + fixed) / 1e6


def beside(measured: pd.DataFrame, ratios: pd.DataFrame) -> pd.DataFrame:
    """What ``measure`` returns, beside the published ratios to average pooling."""
    theirs = published.table(5).set_index("aggregation").rename(columns={"GPU MB": "MB"})[list(COLUMNS)]
    theirs = (theirs / theirs.loc["avg"]).reindex(measured.index)
    tables = {"this run": measured.round(1), "ratio to avg": ratios.round(3), "ratio, published": theirs.round(3)}
    return pd.concat(tables, axis=1)
