from __future__ import annotations

import pandas as pd
import pytest
import tiny
import torch
from torch import nn

from safn import backbones
from safn_book import cost


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())


@pytest.fixture
def networks() -> dict:
    return cost.random_networks("tiny", 3, (1, 0.5))


def test_each_aggregation_is_measured_in_turn_and_the_first_turn_does_not_count(networks, monkeypatch):
    calls, trained = [], []

    def seconds(call, *arguments):
        calls.append((call, arguments))
        return 9.0 if len(calls) <= 6 else len(calls) / 1000  # the first turn is slow: it is left out

    monkeypatch.setattr(cost, "seconds", seconds)
    monkeypatch.setattr(cost, "train_step", lambda network, *_: trained.append(network.aggregation))
    ratios = cost.ratios(networks, 64, 2, 2)
    assert list(ratios.index) == ["max", "avg", "attention"] and list(ratios) == list(cost.COLUMNS)
    # turn 1 begins with avg, turn 2 with attention: calls 7-12 and 13-18, training first, two images a step
    training = {
        "max": pytest.approx((11 / 7 + 15 / 17) / 2),
        "avg": 1,
        "attention": pytest.approx((9 / 7 + 13 / 17) / 2),
    }
    assert ratios["training ms/img"].to_dict() == training
    maps = {"max": pytest.approx((12 / 8 + 16 / 18) / 2), "avg": 1, "attention": pytest.approx((10 / 8 + 14 / 18) / 2)}
    assert ratios["OLM extraction ms/img"].to_dict() == maps
    for call, arguments in calls[::2]:
        call(*arguments)
    assert trained == ["max", "avg", "attention", "avg", "attention", "max", "attention", "max", "avg"]


def test_a_step_trains_and_an_extraction_does_not(networks):
    taken, memory = cost.turns(networks, 64, 2, 1)
    assert (taken > 0).all().all()
    assert memory["attention"] > memory["avg"] > 0  # it has more weights and keeps more
    images, labels = torch.rand(2, 3, 64, 64), torch.ones(2, 3)
    network = networks["attention"]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    cost.extract_maps(network, images, labels)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    cost.train_step(network, cost.optimizer_of(network), images, labels)
    assert not any(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_memory_by_hand():
    """A 1x1 convolution 3 -> 5 and the mean over the image."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 5, 1)

        def forward(self, images):
            return self.layer(images).relu().mean((2, 3))

    images, labels = torch.rand(2, 3, 50, 50), torch.ones(2, 5)
    found = cost.memory_megabytes(Plain(), images, labels)
    weights, photo, relu = 3 * (3 * 5 + 5), 2 * 3 * 50 * 50, 2 * 5 * 50 * 50  # floats; convolution keeps its input
    least = 4 * (weights + photo + relu) / 1e6
    assert least <= found < least + 0.002  # and the few values that the loss keeps


def test_ratios_stand_beside_the_published_ones():
    ratios = pd.DataFrame([[1.25, 1, 2], [1, 1, 1], [1.5, 1.5, 1.2]], ["max", "avg", "attention"], cost.COLUMNS)
    row = cost.ratios_beside_paper(ratios).loc["attention"]
    paper = {"training, paper": 44.3 / 43.8, "maps, paper": 47.6 / 46.8, "memory, paper": 3475 / 3461}
    assert row[list(paper)].to_dict() == pytest.approx(paper, abs=0.001)
    assert row[["training, this run", "maps, this run", "memory, this run"]].to_list() == [1.5, 1.5, 1.2]
