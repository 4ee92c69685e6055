"""What the three aggregations cost (Table 5): time and memory, measured in turns within one process."""

import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from safn.network import SAFN, classification_loss
from safn_book import published

AGGREGATIONS = ("max", "avg", "attention")
TRAINING, MAPS, MEMORY = COLUMNS = ("training ms/img", "OLM extraction ms/img", "MB")


def random_networks(backbone: str, num_classes: int, scales: tuple[float, ...], freeze: int = 0) -> dict[str, SAFN]:
    """Build a network of each aggregation with random weights, which do not change the cost."""
    size = backbone, num_classes, scales
    return {a: SAFN(*size, a, weights="none", attention_start="random", freeze=freeze) for a in AGGREGATIONS}


def ratios(networks: dict[str, SAFN], crop: int, batch_size: int, steps: int) -> pd.DataFrame:
    """Measure the cost of each network divided by that of average pooling, with columns ``COLUMNS``: medians of the
    ratios within each of ``steps`` turns."""
    taken, memory = turns(networks, crop, batch_size, steps)
    table = pd.DataFrame(index=list(networks))
    for column in (TRAINING, MAPS):
        table[column] = taken[column].div(taken[column]["avg"], axis=0).median()
    table[MEMORY] = memory / memory["avg"]
    return table


def turns(networks: dict[str, SAFN], crop: int, batch_size: int, steps: int) -> tuple[pd.DataFrame, pd.Series]:
    """Time a training step and map extraction of each of ``networks`` in seconds an image, one row a turn, columns
    (``TRAINING`` or ``MAPS``, aggregation); and count its memory in MB. ``crop`` is in pixels.

    The networks take turns, so that whatever else the machine does affects all of them. A first turn warms up.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)  # images are noise, which does not change the cost either
    images = torch.randn(batch_size, 3, crop, crop, generator=generator).to(device, memory_format=torch.channels_last)
    num_classes: Any = networks["avg"].arguments["num_classes"]
    labels = (torch.rand(batch_size, num_classes, generator=generator) < 0.1).float().to(device)
    for network in networks.values():
        network.to(device).to(memory_format=torch.channels_last)
    optimizers = {aggregation: optimizer_of(network) for aggregation, network in networks.items()}
    taken = []
    for turn in range(steps + 1):
        row = {}
        first = turn % len(AGGREGATIONS)
        for aggregation in AGGREGATIONS[first:] + AGGREGATIONS[:first]:
            network, optimizer = networks[aggregation], optimizers[aggregation]
            row[TRAINING, aggregation] = seconds(train_step, network, optimizer, images, labels) / len(images)
            row[MAPS, aggregation] = seconds(extract_maps, network, images[:1], labels[:1])
        taken.append(row)
    memory = {aggregation: memory_megabytes(network, images, labels) for aggregation, network in networks.items()}
    columns = pd.MultiIndex.from_product([(TRAINING, MAPS), AGGREGATIONS])
    return pd.DataFrame(taken[1:], columns=columns), pd.Series(memory)


def optimizer_of(network: nn.Module) -> torch.optim.SGD:
    """Make the optimizer of a timed step."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, lr=1e-4, momentum=0.9, weight_decay=5e-4)


def train_step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    """Run forward pass, Eq. 3, backward pass and SGD."""
    optimizer.zero_grad(set_to_none=True)
    classification_loss(network.train()(images), labels).backward()
    optimizer.step()


@torch.inference_mode()
def extract_maps(network: SAFN, images: Tensor, labels: Tensor) -> None:
    """Make the localization maps of a batch."""
    network.eval().maps(images, labels).cpu()


def seconds(call: Callable[..., object], *arguments: object) -> float:
    """Measure wall-clock seconds of a call, the work of a GPU included."""
    _wait_for_gpu()
    started = time.perf_counter()
    call(*arguments)
    _wait_for_gpu()
    return time.perf_counter() - started


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def memory_megabytes(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Count what a training step has to hold at once, in MB: weights, their gradients and momentum, the images, and
    every tensor that the forward pass keeps for the backward pass."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    held = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = classification_loss(network.train()(images), labels)
    keep(images)
    kept = sum(size for pointer, size in held.items() if pointer not in weights)
    del loss  # only now, so that no address is given out twice
    fixed = sum(weight.nbytes * (3 if weight.requires_grad else 1) for weight in network.parameters())
    return (kept + fixed) / 1e6


def ratios_beside_paper(ratios: pd.DataFrame) -> pd.DataFrame:
    """Put the ``ratios`` of a run beside those of Table 5, whose GPU is not named: one row an aggregation."""
    paper = published.table(5).set_index("aggregation").rename(columns={"GPU MB": MEMORY})[ratios.columns]
    paper = (paper / paper.loc["avg"]).reindex(ratios.index)
    columns = {}
    for column, title in zip(COLUMNS, ("training", "maps", "memory")):
        columns[f"{title}, this run"] = ratios[column]
        columns[f"{title}, paper"] = paper[column]
    return pd.DataFrame(columns)
