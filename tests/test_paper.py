"""profiles/paper.yaml from end to end without weights: what each stage would really run with is what the paper says."""

from __future__ import annotations

import ast
import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from safn import backbones, dense_crf, training
from safn.baseline import PlainClassifier
from safn.data import VOCFolder
from safn.network import SAFN
from safn.segmentation import DeepLab
from safn_book import workflow

MAIN = "attention_1-0.75-0.5_seed0"
RESNET = f"{MAIN}@resnet101-aspp"


@pytest.fixture(scope="module")
def stages() -> dict[tuple[str, str], SimpleNamespace]:
    """All parameters of each job, notebook defaults included."""
    return {job.name: workflow.parameters(job) for job in workflow.jobs(workflow.load("paper", "somewhere"))}


def said(p: SimpleNamespace, **paper) -> None:
    assert {name: getattr(p, name) for name in paper} == paper


def test_classifier(stages):
    for run in ("attention_1-0.75-0.5_seed0", "max_1-0.75-0.5_seed1", "attention_1_seed2"):
        p = stages["03_train_safn", run]
        said(p, backbone="vgg16", weights="imagenet", freeze=0, epochs=15, iterations=0, batch_size=4, crop=448)
        said(p, learning_rate=0.01, new_layer_factor=10, attention_factor=10, schedule="poly", attention_start="random")
    said(stages["03_train_safn", MAIN], scales=(1, 0.75, 0.5), aggregation="attention", seed=0)
    said(stages["03_train_safn", "max_1-0.75-0.5_seed1"], scales=(1, 0.75, 0.5), aggregation="max", seed=1)
    said(stages["03_train_safn", "attention_1_seed2"], scales=(1,), seed=2)
    said(stages["02_baseline", "default"], backbone="vgg16", weights="imagenet", freeze=0, epochs=15, crop=448)


def test_pseudo_ground_truth(stages):
    said(stages["05_pseudo_ground_truth", MAIN], gamma=0.2, combine="harmonic")
    said(stages["05_pseudo_ground_truth", f"{MAIN}+maps"], gamma=0.2, combine="maps")


@pytest.mark.parametrize(
    "run, backbone, head", [(MAIN, "vgg16", "largefov"), (RESNET, "resnet101", "aspp"), ("masks_seed0", "vgg16", "largefov")]
)  # fmt: skip
def test_segmentation(stages, run, backbone, head):
    p = stages["06_train_segmentation", run]
    said(p, backbone=backbone, head=head, weights="imagenet", freeze=0, head_width=1024, head_dilation=12)
    said(p, iterations=6000, batch_size=20, accumulate=1, crop=321, learning_rate=0.001, schedule="step")
    said(p, momentum=0.9, weight_decay=0.0005, label_source="masks" if run[0] == "m" else "pseudo")


def test_test_protocol(stages):
    for run in (MAIN, RESNET):
        said(stages["07_evaluate", run], test_scales=(0.5, 0.75, 1, 1.25, 1.5), crf=True)
    named = {"bi_w": 4, "bi_xy_std": 67, "bi_rgb_std": 3, "pos_w": 3, "pos_xy_std": 1, "iterations": 10}
    assert {name: inspect.signature(dense_crf).parameters[name].default for name in named} == named


def test_the_schedules_at_steps_worked_by_hand(stages):
    p = stages["03_train_safn", MAIN]
    steps = 15 * (10582 // 4)  # 39,675; at a fifth of them 0.8 ** 0.9 = 0.818057
    found = [p.learning_rate * training.learning_rate(t, steps, p.schedule, p.power) for t in (0, 7935, 39674)]
    np.testing.assert_allclose(found, [0.01, 0.00818057, 0.01 * (1 / 39675) ** 0.9], rtol=1e-4)
    p = stages["06_train_segmentation", MAIN]
    at = (0, 1999, 2000, 3999, 4000, 5999)
    found = [p.learning_rate * training.learning_rate(t, p.iterations, p.schedule) for t in at]
    np.testing.assert_allclose(found, [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def groups(module: training.TrainingModule) -> dict[str, tuple[float, float, int]]:
    found = training.parameter_groups(module.network, module.options, module.bias_factor)
    return {g["name"]: (round(g["lr"], 6), g["weight_decay"], len(g["params"])) for g in found}


def test_every_parameter_of_vgg16_is_trained_at_its_rate(stages):
    p = stages["03_train_safn", MAIN]
    with torch.device("meta"):
        network = SAFN("vgg16", 20, p.scales, p.aggregation, weights="none", freeze=p.freeze)
    assert groups(training.Classifier(network, training.TrainingOptions.from_parameters(p))) == {
        "backbone weight": (0.01, 5e-4, 13), "backbone bias": (0.01, 0, 13),
        "head weight": (0.1, 5e-4, 3), "head bias": (0.1, 0, 3),
        "attention weight": (0.1, 5e-4, 2), "attention bias": (0.1, 0, 2),
    }  # fmt: skip
    p = stages["06_train_segmentation", MAIN]
    with torch.device("meta"):
        network = DeepLab(p.backbone, p.head, 21, weights="none", head_width=p.head_width, freeze=p.freeze)
    assert groups(training.Segmenter(network, training.TrainingOptions.from_parameters(p))) == {
        "backbone weight": (0.001, 5e-4, 13), "backbone bias": (0.002, 0, 13),
        "head weight": (0.01, 5e-4, 3), "head bias": (0.02, 0, 3),
    }  # fmt: skip


def test_resnet_trains_its_convolutions_and_the_four_branches(stages):
    p = stages["06_train_segmentation", RESNET]
    with torch.device("meta"):
        network = DeepLab(p.backbone, p.head, 21, weights="none", head_width=p.head_width, freeze=p.freeze)
    # 1 + 3 * (3 + 4 + 23 + 3) convolutions and 4 shortcuts, without bias; batch normalisation is fixed
    assert groups(training.Segmenter(network, training.TrainingOptions.from_parameters(p))) == {
        "backbone weight": (0.001, 5e-4, 104),
        "head weight": (0.01, 5e-4, 4), "head bias": (0.02, 0, 4),
    }  # fmt: skip


def test_plain_vgg16_is_trained_whole(stages):
    p = stages["02_baseline", "default"]
    with torch.device("meta"):
        network = PlainClassifier(p.backbone, 20, weights="none", freeze=p.freeze)
    found = groups(training.Classifier(network, training.TrainingOptions.from_parameters(p)))
    assert {name: n for name, (_, _, n) in found.items()} == {
        "backbone weight": 13, "backbone bias": 13, "head weight": 1, "head bias": 1,
    }  # fmt: skip


class Network(nn.Identity):
    """One that is never trained."""

    normalisation = backbones.IMAGENET


class Stopped(Exception):
    """Thrown in the place of the training."""


@pytest.fixture
def loaded(monkeypatch, tiny_voc):
    """Name of a job -> the augmentation, loader and options with which its training would start."""

    def start(p: SimpleNamespace, train):
        taken = {}

        def fit(module, batches, validation=None, **options):
            taken.update(batches=batches, options=module.options)
            raise Stopped

        monkeypatch.setattr(training, "fit", fit)
        folder = VOCFolder(tiny_voc)
        p = training.TrainingOptions.from_parameters({**vars(p), "workers": 0})
        with pytest.raises(Stopped):
            train(Network(), p, folder, folder.ids("train_aug"))
        return SimpleNamespace(**taken)

    return start


def test_photos_of_the_classifier_are_flipped_jittered_and_cropped_to_448(stages, loaded, tmp_path):
    def train(network, p, folder, ids):
        training.train_classifier(network, p, folder, ids, folder.ids("val"), tmp_path)

    run = loaded(stages["03_train_safn", MAIN], train)
    samples = run.batches.dataset
    assert run.batches.batch_size == 4 and run.options.epochs == 15 and run.options.precision == "16-mixed"
    assert samples.augmentation.jitter == (0.3, 0.3, 0.3, 0.1)
    assert samples[0, 0]["image"].shape == (3, 448, 448)
    assert samples.augmentation.resize == (256, 512)  # long side; what is drawn: test_loading.py


def test_photos_and_masks_of_the_segmentation_are_flipped_and_cropped_to_321(stages, loaded, tmp_path):
    def train(network, p, folder, ids):
        training.train_segmenter(network, p, folder, ids, None, tmp_path)

    for run in (MAIN, RESNET):
        begun = loaded(stages["06_train_segmentation", run], train)
        samples = begun.batches.dataset
        assert begun.batches.batch_size == 20 and begun.options.iterations == 6000
        assert samples.augmentation.jitter == (0, 0, 0, 0)
        assert (samples[0, 0]["image"].shape, samples[0, 0]["mask"].shape) == ((3, 321, 321), (321, 321))
        assert samples.augmentation.resize == (256, 512)


@pytest.mark.parametrize("stage, network", [("03_train_safn", SAFN), ("06_train_segmentation", DeepLab)])
def test_the_notebook_passes_each_parameter_to_the_network(stage, network):
    """The parameters above reach the networks: the notebooks' own calls, read from their source."""
    tree = ast.parse((workflow.ROOT / "notebooks" / f"{stage}.py").read_text())
    (call,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == network.__name__]
    wanted = inspect.signature(network).parameters.values()
    positional = [p.name for p in wanted if p.kind is p.POSITIONAL_OR_KEYWORD and not p.name.startswith("num_")]
    assert [a.attr for a in call.args if isinstance(a, ast.Attribute)] == positional
    named = {k.arg: ast.unparse(k.value) for k in call.keywords}
    assert named == {p.name: f"p.{p.name}" for p in wanted if p.kind is p.KEYWORD_ONLY}
