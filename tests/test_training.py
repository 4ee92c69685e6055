from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from safn import backbones, trained, training
from safn.data import DataError, VOCFolder
from safn.images import save_mask
from safn.inference import multi_scale_maximum
from safn.loading import Augmentation, TrainingSet, training_loader
from safn.network import SAFN
from safn.segmentation import DeepLab
from safn.training import Classifier, Segmenter, learning_rate, parameter_groups


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)


def test_step_schedule_divides_by_10_every_2000_of_6000():
    rates = [0.001 * learning_rate(t, 6000, "step") for t in (0, 1999, 2000, 3999, 4000, 5999)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_poly_schedule():
    factors = [learning_rate(t, 6000, "poly", 0.9) for t in (0, 600, 3000, 6000, 6001)]
    np.testing.assert_allclose(factors, [1, 0.909533, 0.535887, 0, 0], atol=1e-6)  # 0.9^0.9, 0.5^0.9
    assert learning_rate(3000, 6000, "poly", 2) == 0.25


def test_groups_of_deeplab_are_x1_x2_x10_x20_and_decay_is_for_weights_only():
    network = DeepLab("tiny", "largefov", 4, head_width=8)
    groups = parameter_groups(network, tiny.options(learning_rate=0.001), Segmenter.bias_factor)
    found = {g["name"]: (round(g["lr"] / 0.001), g["weight_decay"], len(g["params"])) for g in groups}
    assert found == {
        "backbone weight": (1, 5e-4, 1), "backbone bias": (2, 0, 1),
        "head weight": (10, 5e-4, 3), "head bias": (20, 0, 3),
    }  # fmt: skip
    assert all((p.ndim > 1) == (g["name"].endswith("weight")) for g in groups for p in g["params"])


def test_groups_of_the_classifier_have_no_bias_factor_and_a_factor_for_the_attention():
    network = SAFN("tiny", 3)
    groups = parameter_groups(network, tiny.options(learning_rate=0.01, attention_factor=3), Classifier.bias_factor)
    rates = {g["name"]: round(g["lr"], 6) for g in groups}
    assert rates == {
        "backbone weight": 0.01, "backbone bias": 0.01, "head weight": 0.1, "head bias": 0.1,
        "attention weight": 0.03, "attention bias": 0.03,
    }  # fmt: skip
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for p in network.parameters())


def test_what_is_frozen_or_absent_has_no_group():
    network = SAFN("tiny", 3, aggregation="avg", freeze=1)
    groups = parameter_groups(network, tiny.options(), 1)
    assert [g["name"] for g in groups] == ["head weight", "head bias"]


class Watched(Segmenter):
    """Keeps the learning rates and the momentum that each step really takes."""

    def training_step(self, batch, index):
        groups = self.trainer.optimizers[0].param_groups
        self.taken = [*getattr(self, "taken", []), [g["lr"] for g in groups]]
        self.momentum = {g["momentum"] for g in groups}
        return super().training_step(batch, index)


def test_each_step_takes_its_rate_in_every_group_and_iterations_stop_the_training(tmp_path):
    options = tiny.options(schedule="step", learning_rate=0.001, epochs=99, iterations=6)
    module = Watched(DeepLab("tiny", "largefov", 3, head_width=8), options)
    log = training.fit(module, tiny.training_batches(tiny.Samples()), folder=tmp_path, classes=["cat", "dog"])
    factors = np.array([1, 1, 0.1, 0.1, 0.01, 0.01])[:, None]
    np.testing.assert_allclose(module.taken, 0.001 * factors * [1, 2, 10, 20])
    assert module.momentum == {0.9} and log[-1]["step"] == 6


class Logits(nn.Module):
    """A network whose logits ``(B, K, h, w)`` are its parameters."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.backbone = nn.Identity()
        self.head = nn.Module()
        self.head.values = nn.Parameter(torch.tensor(values))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head.values


def segmentation_loss(logits: np.ndarray, mask: np.ndarray) -> tuple[torch.Tensor, Logits]:
    module = Segmenter(Logits(logits), tiny.options())
    module.log = lambda *_, **__: None
    batch = {"id": ["a"] * len(mask), "image": torch.zeros(len(mask), 3, 1, 1), "mask": torch.from_numpy(mask)}
    return module.training_step(batch, 0), module.network


def test_segmentation_loss_is_the_mean_over_pixels_that_are_not_255():
    rng = np.random.default_rng(0)
    logits, mask = rng.normal(0, 2, (2, 4, 5, 6)).astype(np.float32), rng.integers(0, 4, (2, 40, 48))
    mask[rng.random(mask.shape) < 0.4] = 255
    loss, network = segmentation_loss(logits, mask)
    small = mask[:, 4::8, 4::8]  # nearest: the middle of each cell, never a mixture of ids
    shares = np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    each = [-shares[b, small[b, i, j], i, j] for b, i, j in np.argwhere(small != 255)]
    assert 0 < len(each) < small.size
    np.testing.assert_allclose(loss.item(), np.mean(each), rtol=1e-5)
    loss.backward()
    void = torch.from_numpy(small == 255)[:, None].expand(2, 4, 5, 6)
    assert not network.head.values.grad[void].any() and network.head.values.grad[~void].all()


@pytest.mark.parametrize("stride", [8, 16])
def test_what_training_asks_for_the_test_draws_at_the_same_place(stride):
    rows, columns = np.mgrid[:512, :640]
    disc = torch.from_numpy((rows - 200) ** 2 + (columns - 360) ** 2 < 120**2)
    asked = training.downsample_masks(disc[None], (512 // stride, 640 // stride))
    logits = 10 * torch.nn.functional.one_hot(asked, 2).permute(0, 3, 1, 2).float()
    drawn = multi_scale_maximum(lambda _: logits, torch.zeros(1, 3, 512, 640), (1.0,)).argmax(0)
    found = [axis[drawn.numpy() == 1].mean() for axis in (rows, columns)]
    assert np.abs(np.subtract(found, (200, 360))).max() < 1  # with corner pixels it would be half a stride


def test_a_batch_of_ignored_pixels_only_has_loss_0():
    loss, network = segmentation_loss(np.ones((1, 3, 2, 2), np.float32), np.full((1, 16, 16), 255))
    loss.backward()
    assert loss.item() == 0 and not network.head.values.grad.any()


def test_batches_do_not_depend_on_the_network(tiny_voc):
    folder, seen = VOCFolder(tiny_voc), []
    for aggregation in ("attention", "max", "avg"):
        training.seed_everything(0)
        SAFN("tiny", 3, aggregation=aggregation)
        samples = TrainingSet(folder, folder.ids("train"), Augmentation(32, (32, 48)), backbones.IMAGENET, 0)
        seen.append([(b["id"], b["image"]) for b in training_loader(samples, 2, 0)])
    for other in seen[1:]:
        assert [i for i, _ in other] == [i for i, _ in seen[0]]
        assert all(torch.equal(x, y) for (_, x), (_, y) in zip(other, seen[0]))


def test_mean_average_precision_over_the_classes_that_occur():
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.8, 0.4, 0.5], [0.7, 0.3, 0.5]])
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]])
    # class 0: (1/1 + 2/3) / 2, class 1: 1, class 2 does not occur
    assert training.mean_average_precision(scores, labels) == pytest.approx((5 / 6 + 1) / 2)
    assert math.isnan(training.mean_average_precision(scores, torch.zeros_like(labels)))
    assert training.mean_average_precision(scores[:, :1], labels[:, :1]) == pytest.approx(5 / 6)  # data of one class


def parameters(**changed) -> training.TrainingOptions:
    given = {"crop": 32, "resize": (32, 48), "batch_size": 2, "size": 40, "epochs": 2, "learning_rate": 0.01}
    return tiny.options(**{**given, **changed})


def test_the_classifier_trains_on_a_folder_and_logs_the_weight_of_each_scale(tmp_path, tiny_voc):
    folder, p = VOCFolder(tiny_voc), parameters(crop=64, resize=(64, 80))  # at 32, scale 0.5 is no other scale
    training.seed_everything(0)
    network = SAFN("tiny", 3, (1, 0.5))
    before = network.attention.conv2.weight.clone()
    log = training.train_classifier(network, p, folder, folder.ids("train_aug"), folder.ids("val"), tmp_path)
    assert [row["step"] for row in log] == [2, 4] and all(0 <= row["val_mAP"] <= 1 for row in log)
    np.testing.assert_allclose([row["weight_1"] + row["weight_0.5"] for row in log], 1, atol=1e-5)
    assert not torch.equal(before, network.attention.conv2.weight)
    assert trained.load(tmp_path).classes == folder.classes


def test_the_segmenter_takes_the_masks_it_is_given(tmp_path, tiny_voc):
    folder, p = VOCFolder(tiny_voc), parameters(epochs=1)
    ids, losses = folder.ids("train_aug"), []
    void = tmp_path / "void"
    void.mkdir()
    for i in ids:
        training_mask = np.full((32, 40), 255, np.uint8)
        save_mask(void / f"{i}.png", training_mask)
    for masks in (None, void):
        training.seed_everything(0)
        network = DeepLab("tiny", "largefov", 4, head_width=8)
        out = tmp_path / ("true" if masks is None else "given")
        out.mkdir()
        log = training.train_segmenter(network, p, folder, ids, masks, out)
        losses.append(log[0]["loss"])
    assert losses[0] > 0.1 and losses[1] == 0


def test_images_without_a_training_mask_are_named_before_any_work(tmp_path, tiny_voc):
    folder = VOCFolder(tiny_voc)
    folder.mask_path("a1").unlink()
    network, ids = DeepLab("tiny", "largefov", 4, head_width=8), folder.ids("train_aug")
    with pytest.raises(DataError, match=r"1 of 5 training images have no mask \(a1, ...\): draw them, or leave"):
        training.train_segmenter(network, parameters(), folder, ids, None, tmp_path)
    with pytest.raises(DataError, match=r"5 of 5 .*: make their pseudo labels first"):
        training.train_segmenter(network, parameters(), folder, ids, tmp_path, tmp_path)


def test_the_optimiser_is_the_one_that_is_named():
    for name, kind in (("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)):
        module = training.Classifier(tiny.Net(), tiny.options(optimizer=name))
        module.trainer = SimpleNamespace(estimated_stepping_batches=10)
        optimizer = module.configure_optimizers()["optimizer"]
        assert type(optimizer) is kind
        rates = {group["name"]: group["initial_lr"] for group in optimizer.param_groups}
        assert rates == pytest.approx({k: 0.1 if "backbone" in k else 1.0 for k in rates})
