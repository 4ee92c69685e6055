from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from torch import nn

from safn import backbones, training
from safn.data import Augmentation, TrainingSet, VOCFolder, save_mask, training_loader
from safn.network import SAFN, load_network
from safn.segmentation import DeepLab
from safn.training import Classifier, Segmenter, learning_rate, parameter_groups

TESTS = Path(__file__).parent


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
    module = Segmenter(network, tiny.SETTINGS)
    groups = parameter_groups(network.backbone, module.new_parts(), 0.001, 5e-4, module.bias_factor)
    found = {g["name"]: (round(g["lr"] / 0.001), g["weight_decay"], len(g["params"])) for g in groups}
    assert found == {
        "backbone weight": (1, 5e-4, 1), "backbone bias": (2, 0, 1),
        "head weight": (10, 5e-4, 3), "head bias": (20, 0, 3),
    }  # fmt: skip
    assert all((p.ndim > 1) == (g["name"].endswith("weight")) for g in groups for p in g["params"])


def test_groups_of_the_classifier_have_no_bias_factor_and_a_factor_for_the_attention():
    network = SAFN("tiny", 3)
    module = Classifier(network, {**tiny.SETTINGS, "attention_factor": 3})
    groups = parameter_groups(network.backbone, module.new_parts(), 0.01, 5e-4, module.bias_factor)
    rates = {g["name"]: round(g["lr"], 6) for g in groups}
    assert rates == {
        "backbone weight": 0.01, "backbone bias": 0.01, "head weight": 0.1, "head bias": 0.1,
        "attention weight": 0.03, "attention bias": 0.03,
    }  # fmt: skip
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for p in network.parameters())


def test_what_is_frozen_or_absent_has_no_group():
    network = SAFN("tiny", 3, aggregation="avg", freeze=1)
    groups = parameter_groups(network.backbone, Classifier(network, tiny.SETTINGS).new_parts(), 1, 0, 1)
    assert [g["name"] for g in groups] == ["head weight", "head bias"]


class Watched(Segmenter):
    """Keeps the learning rates and the momentum that each step really takes."""

    def training_step(self, batch, index):
        groups = self.trainer.optimizers[0].param_groups
        self.taken = [*getattr(self, "taken", []), [g["lr"] for g in groups]]
        self.momentum = {g["momentum"] for g in groups}
        return super().training_step(batch, index)


def test_each_step_takes_its_rate_in_every_group_and_iterations_stop_the_training(tmp_path):
    settings = {**tiny.SETTINGS, "schedule": "step", "learning_rate": 0.001}
    module = Watched(DeepLab("tiny", "largefov", 3, head_width=8), settings)
    batches = tiny.training_batches(tiny.Samples())
    log = training.fit(module, batches, folder=tmp_path, epochs=99, iterations=6, accelerator="cpu")
    factors = np.array([1, 1, 0.1, 0.1, 0.01, 0.01])[:, None]
    np.testing.assert_allclose(module.taken, 0.001 * factors * [1, 2, 10, 20])
    assert module.momentum == {0.9} and log["step"].iloc[-1] == 6


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
    module = Segmenter(Logits(logits), tiny.SETTINGS)
    module.log = lambda *_, **__: None
    batch = {"id": ["a"] * len(mask), "image": torch.zeros(len(mask), 3, 1, 1), "mask": torch.from_numpy(mask)}
    return module.training_step(batch, 0), module.network


def test_segmentation_loss_is_the_mean_over_pixels_that_are_not_255():
    rng = np.random.default_rng(0)
    logits, mask = rng.normal(0, 2, (2, 4, 5, 6)).astype(np.float32), rng.integers(0, 4, (2, 40, 48))
    mask[rng.random(mask.shape) < 0.4] = 255
    loss, network = segmentation_loss(logits, mask)
    small = mask[:, ::8, ::8]  # nearest: the corner of each cell, never a mixture of ids
    shares = np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    each = [-shares[b, small[b, i, j], i, j] for b, i, j in np.argwhere(small != 255)]
    assert 0 < len(each) < small.size
    np.testing.assert_allclose(loss.item(), np.mean(each), rtol=1e-5)
    loss.backward()
    void = torch.from_numpy(small == 255)[:, None].expand(2, 4, 5, 6)
    assert not network.head.values.grad[void].any() and network.head.values.grad[~void].all()


def test_a_batch_of_ignored_pixels_only_has_loss_0():
    loss, network = segmentation_loss(np.ones((1, 3, 2, 2), np.float32), np.full((1, 16, 16), 255))
    loss.backward()
    assert loss.item() == 0 and not network.head.values.grad.any()


def test_a_loss_of_nan_stops_with_the_ids_and_the_last_checkpoint_stays(tmp_path):
    bad = {"samples": tiny.Samples(spoilt=(1, 5))}
    with pytest.raises(FloatingPointError, match=r"loss is nan in epoch 1, step \d, images .*\bimage_5\b") as error:
        tiny.train(tmp_path, **bad)
    assert str(error.value).count("image_") == 2  # the batch, no more
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["global_step"] == 4 and all(t.isfinite().all() for t in state["state_dict"].values())
    assert not (tmp_path / "model.ckpt").exists()
    log, network = tiny.train(tmp_path)  # with the image replaced, it goes on
    assert list(log["epoch"]) == [1, 2, 3]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import tiny
from pathlib import Path
from fsspec.implementations.local import LocalFileOpener

commit, commits = LocalFileOpener.commit, []

def killing(file):
    commits.append(file)
    if len(commits) == 3:  # the checkpoint of epoch 3 is written, but not yet under its name
        os.kill(os.getpid(), signal.SIGKILL)
    commit(file)

LocalFileOpener.commit = killing
tiny.train(Path(sys.argv[2]))
"""


def test_resume_after_a_kill_equals_the_uninterrupted_run(tmp_path, capsys):
    expected, whole = tiny.train(tmp_path / "whole")
    assert "continuing" not in capsys.readouterr().out
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}
    command = [sys.executable, "-c", KILLED, str(TESTS), str(tmp_path / "killed")]
    child = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    state = torch.load(tmp_path / "killed" / "last.ckpt", weights_only=True)
    assert state["epoch"] == 1 and state["global_step"] == 8
    log, resumed = tiny.train(tmp_path / "killed")
    assert "continuing from" in capsys.readouterr().out
    columns = ["epoch", "step", "loss", "val_mAP", "learning_rate"]
    assert list(log["epoch"]) == [1, 2, 3]
    np.testing.assert_allclose(log[columns], expected[columns], atol=1e-6, rtol=0)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, atol=1e-6, rtol=0)
    on_disk = pd.read_csv(tmp_path / "killed" / "log.csv")
    np.testing.assert_allclose(on_disk[columns], expected[columns], atol=1e-6)
    assert not (tmp_path / "killed" / "last.ckpt").exists()
    load_network(tiny.Net(), tmp_path / "killed" / "model.ckpt")


def test_one_seed_gives_one_result_and_another_seed_another(tmp_path):
    (first, a), (second, b), (third, c) = (tiny.train(tmp_path / str(k), seed=s) for k, s in enumerate((0, 0, 1)))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert all(torch.equal(t, b.state_dict()[n]) for n, t in a.state_dict().items())
    assert not np.allclose(first["loss"], third["loss"]) and not torch.equal(a.head[1].weight, c.head[1].weight)


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


def test_a_malicious_checkpoint_is_not_resumed(tmp_path):
    trace, folder = tmp_path / "trace", tmp_path / "run"
    folder.mkdir()
    torch.save({"state_dict": tiny.Payload(trace)}, folder / "last.ckpt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        tiny.train(folder)
    assert not trace.exists()


def test_mean_average_precision_over_the_classes_that_occur():
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.8, 0.4, 0.5], [0.7, 0.3, 0.5]])
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]])
    # class 0: (1/1 + 2/3) / 2, class 1: 1, class 2 does not occur
    assert training.mean_average_precision(scores, labels) == pytest.approx((5 / 6 + 1) / 2)


def parameters(**changed) -> SimpleNamespace:
    settings = {"backbone": "tiny", "crop": 32, "resize": (32, 48), "batch_size": 2, "workers": 0, "size": 40}
    run = {"epochs": 2, "iterations": 0, "precision": "32-true", "accelerator": "cpu", "learning_rate": 0.01}
    return SimpleNamespace(**{**tiny.SETTINGS, **settings, **run, **changed})


def test_the_classifier_trains_on_a_folder_and_logs_the_weight_of_each_scale(tmp_path, tiny_voc):
    folder, p = VOCFolder(tiny_voc), parameters(crop=64, resize=(64, 80))  # at 32, scale 0.5 is no other scale
    training.seed_everything(0)
    network = SAFN("tiny", 3, (1, 0.5))
    before = network.attention.conv2.weight.clone()
    log = training.train_classifier(network, p, folder, folder.ids("train_aug"), folder.ids("val"), tmp_path)
    assert log["step"].tolist() == [2, 4] and log["val_mAP"].between(0, 1).all()
    np.testing.assert_allclose(log["weight_1"] + log["weight_0.5"], 1, atol=1e-5)
    assert not torch.equal(before, network.attention.conv2.weight)
    assert (tmp_path / "model.ckpt").exists()


def test_the_segmenter_takes_the_masks_it_is_given(tmp_path, tiny_voc):
    folder, p = VOCFolder(tiny_voc), parameters(epochs=1)
    ids, losses = folder.ids("train_aug"), []
    void = tmp_path / "masks"
    void.mkdir()
    for i in ids:
        training_mask = np.full((32, 40), 255, np.uint8)
        save_mask(void / f"{i}.png", training_mask)
    for masks in (None, void):
        training.seed_everything(0)
        network = DeepLab("tiny", "largefov", 4, head_width=8)
        log = training.train_segmenter(network, p, folder, ids, masks, tmp_path)
        losses.append(log["loss"].iloc[0])
    assert losses[0] > 0.1 and losses[1] == 0
