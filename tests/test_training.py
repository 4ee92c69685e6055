from __future__ import annotations

import math
import os
import random
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import disk
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from torch import nn

from safn import backbones, trained, training
from safn.data import DataError, VOCFolder, save_mask
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
    log = training.fit(
        module, batches, folder=tmp_path, classes=["cat", "dog"], epochs=99, iterations=6, accelerator="cpu"
    )
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
    asked = training.shrunk(disc[None], (512 // stride, 640 // stride))
    logits = 10 * torch.nn.functional.one_hot(asked, 2).permute(0, 3, 1, 2).float()
    drawn = multi_scale_maximum(lambda _: logits, torch.zeros(1, 3, 512, 640), (1.0,)).argmax(0)
    found = [axis[drawn.numpy() == 1].mean() for axis in (rows, columns)]
    assert np.abs(np.subtract(found, (200, 360))).max() < 1  # with corner pixels it would be half a stride


def test_a_batch_of_ignored_pixels_only_has_loss_0():
    loss, network = segmentation_loss(np.ones((1, 3, 2, 2), np.float32), np.full((1, 16, 16), 255))
    loss.backward()
    assert loss.item() == 0 and not network.head.values.grad.any()


@pytest.mark.fault(9, "the loss is not a number", "a NaN in an image of the second epoch")
def test_a_loss_of_nan_stops_with_the_ids_and_the_last_checkpoint_stays(tmp_path, happened):
    bad = {"samples": tiny.Samples(spoilt=(1, 5))}  # in the second epoch
    with pytest.raises(FloatingPointError, match=r"loss is nan in epoch 1, step \d, images .*\bimage_5\b") as error:
        tiny.train(tmp_path, **bad)
    assert str(error.value).count("image_") == 2  # the batch, no more
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["global_step"] == 4 and all(t.isfinite().all() for t in state["state_dict"].values())
    assert not trained.is_complete(tmp_path)
    log, network = tiny.train(tmp_path)  # with the image replaced, it goes on
    assert list(log["epoch"]) == [1, 2, 3]
    happened(error.value, "the epoch at work; with the image replaced, it goes on from the last checkpoint")


def killed_at_the_third_checkpoint(folder: Path, **options) -> None:
    """Train in this process, which dies when half of the checkpoint of epoch 3 is written."""
    write, checkpoints = Path.write_bytes, []

    def killing(path: Path, content: bytes) -> None:
        checkpoints.extend([path] if "last.ckpt" in path.name else [])
        if len(checkpoints) == 3:
            write(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    Path.write_bytes = killing
    tiny.train(folder, **options)


def resumed_and_whole(folder: Path, capsys, **options) -> float:
    """Train, once through and once killed at the third checkpoint; returns the largest difference of the weights."""
    expected, whole = tiny.train(folder / "whole", **options)
    assert "continuing" not in capsys.readouterr().out
    tiny.killed(lambda: killed_at_the_third_checkpoint(folder / "killed", **options))
    assert (folder / "killed" / "last.ckpt.partial").exists()
    state = torch.load(folder / "killed" / "last.ckpt", weights_only=True)
    assert state["epoch"] == 1 and state["global_step"] == 8
    log, resumed = tiny.train(folder / "killed", **options)
    assert "continuing from" in capsys.readouterr().out
    columns = ["epoch", "step", "loss", "val_mAP", "learning_rate"]
    assert list(log["epoch"]) == [1, 2, 3] and list(log["step"]) == [4, 8, options.get("iterations", 12)]
    np.testing.assert_allclose(log[columns], expected[columns], atol=1e-6, rtol=0)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, atol=1e-6, rtol=0)
    on_disk = pd.read_csv(folder / "killed" / "log.csv")
    np.testing.assert_allclose(on_disk[columns], expected[columns], atol=1e-6)
    assert not (folder / "killed" / "last.ckpt").exists()
    assert trained.load(folder / "killed").classes == tiny.CLASSES
    assert not list((folder / "killed").glob("*.partial"))
    return max((t - resumed.state_dict()[n]).abs().max().item() for n, t in whole.state_dict().items())


@pytest.mark.parametrize("options", [{"iterations": 11}, {"workers": 1}], ids=["iterations", "workers"])
def test_resume_equals_the_uninterrupted_run(tmp_path, capsys, options):
    resumed_and_whole(tmp_path, capsys, **options)


@pytest.mark.fault(
    7, "killed while a checkpoint is written", "SIGKILL when half of the third checkpoint is on the disk"
)
def test_resume_after_a_kill_equals_the_uninterrupted_run(tmp_path, capsys, happened):
    difference = resumed_and_whole(tmp_path, capsys)
    happened(
        f"the same command continues from the checkpoint before; losses and weights differ by {difference:g} from those "
        "of the uninterrupted run",
        "the epoch at work",
    )


@pytest.mark.fault(7, "killed at a random step", "SIGKILL from outside, three times, to a training with dropout")
def test_resume_after_kills_at_random_steps_repeats_losses_weights_and_order(tmp_path, happened):
    expected, whole = tiny.train_deeplab(tmp_path / "whole", tmp_path / "whole.txt")
    folder, steps = tmp_path / "killed", tmp_path / "killed.txt"
    steps.touch()
    for _ in range(3):
        wanted = len(steps.read_text().splitlines()) + random.randint(1, 3)
        child = tiny.forked(lambda: tiny.train_deeplab(folder, steps, pause=0.05))
        while len(steps.read_text().splitlines()) < wanted:
            time.sleep(0.002)
        time.sleep(random.random() * 0.05)
        os.kill(child, signal.SIGKILL)
        assert tiny.ended(child) == -signal.SIGKILL
    log, resumed = tiny.train_deeplab(folder, steps)
    pd.testing.assert_frame_equal(log, expected, check_exact=True)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, atol=1e-6, rtol=0)
    whole_steps, all_steps = ((tmp_path / f"{n}.txt").read_text().splitlines() for n in ("whole", "killed"))
    assert len(whole_steps) == 12 and set(all_steps) == set(
        whole_steps
    )  # loss and images of each step, also of those repeated
    happened(
        "every step has the loss, to the last digit, and the images of the uninterrupted run", "the epochs at work"
    )


def test_killed_between_training_and_the_end_of_its_stage_it_is_not_trained_again(tmp_path):
    log, network = tiny.train(tmp_path)
    (tmp_path / "last.ckpt").write_bytes(b"left by a kill right after the network was saved")
    again, restored = tiny.train(tmp_path, samples=tiny.Samples(spoilt=(0, 0)))  # any step would stop it
    pd.testing.assert_frame_equal(again, log, check_exact=True)
    assert all(torch.equal(t, restored.state_dict()[n]) for n, t in network.state_dict().items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.csv", "network.json", "network.safetensors"]


FULL = """
import json, sys
from pathlib import Path
import disk, tiny, torch
from safn import training

folder, save = Path(sys.argv[1]), training.WholeCheckpoints.save_checkpoint

def filling(*arguments, **options):
    save(*arguments, **options)
    disk.fill(folder, 4096)  # room for log.csv, not for another checkpoint

training.WholeCheckpoints.save_checkpoint = filling
try:
    tiny.train(folder)
except OSError as error:
    said = str(error)
state = torch.load(folder / "last.ckpt", weights_only=True)
files = sorted(p.name for p in folder.iterdir())
disk.free(folder)
training.WholeCheckpoints.save_checkpoint = save
log, _ = tiny.train(folder)
print(json.dumps({"said": said, "epoch": state["epoch"], "files": files, "loss": list(log["loss"])}))
"""


@pytest.mark.fault(8, "disk full during a training", "a file system of 8 MB, filled after the first checkpoint")
def test_a_full_disk_keeps_the_last_checkpoint_and_the_same_command_goes_on(tmp_path, happened):
    expected, _ = tiny.train(tmp_path / "whole")
    found = disk.run(FULL, tmp_path / "disk")
    assert re.fullmatch(r"\[Errno \d+\] (No space left on device|File too large): '.*/disk/last.ckpt'", found["said"])
    assert found["epoch"] == 0 and set(found["files"]) <= {"filler", "last.ckpt", "log.csv"}
    np.testing.assert_allclose(found["loss"], expected["loss"], atol=1e-6, rtol=0)
    happened(f"OSError: {found['said']}; the last checkpoint loads", "the epoch at work")


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


@pytest.mark.fault(
    10, "checkpoint of an interrupted training that would run code", "a pickle in last.ckpt whose payload makes a file"
)
def test_a_malicious_checkpoint_is_not_resumed(tmp_path, happened):
    trace, folder = tmp_path / "trace", tmp_path / "run"
    folder.mkdir()
    torch.save({"state_dict": tiny.Payload(trace)}, folder / "last.ckpt")
    with pytest.raises(ValueError, match="last.ckpt holds more than tensors, which could run code") as error:
        tiny.train(folder)
    assert not trace.exists()
    happened(error.value, "nothing: the payload left no trace")


def test_mean_average_precision_over_the_classes_that_occur():
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.8, 0.4, 0.5], [0.7, 0.3, 0.5]])
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]])
    # class 0: (1/1 + 2/3) / 2, class 1: 1, class 2 does not occur
    assert training.mean_average_precision(scores, labels) == pytest.approx((5 / 6 + 1) / 2)
    assert math.isnan(training.mean_average_precision(scores, torch.zeros_like(labels)))
    assert training.mean_average_precision(scores[:, :1], labels[:, :1]) == pytest.approx(5 / 6)  # data of one class


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
        losses.append(log["loss"].iloc[0])
    assert losses[0] > 0.1 and losses[1] == 0


def test_images_without_a_training_mask_are_named_before_any_work(tmp_path, tiny_voc):
    folder = VOCFolder(tiny_voc)
    folder.mask_path("a1").unlink()
    network, ids = DeepLab("tiny", "largefov", 4, head_width=8), folder.ids("train_aug")
    with pytest.raises(DataError, match=r"1 of 5 training images have no mask \(a1, ...\): draw them, or leave"):
        training.train_segmenter(network, parameters(), folder, ids, None, tmp_path)
    with pytest.raises(DataError, match=r"5 of 5 .*: run notebooks/05_pseudo_ground_truth.ipynb"):
        training.train_segmenter(network, parameters(), folder, ids, tmp_path, tmp_path)


def test_the_optimiser_is_the_one_that_is_named():
    for name, kind in (("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)):
        module = training.Classifier(tiny.Net(), {**tiny.SETTINGS, "optimizer": name})
        module.trainer = SimpleNamespace(estimated_stepping_batches=10)
        optimizer = module.configure_optimizers()["optimizer"]
        assert type(optimizer) is kind
        rates = {group["name"]: group["initial_lr"] for group in optimizer.param_groups}
        assert rates == pytest.approx({k: 0.1 if "backbone" in k else 1.0 for k in rates})
