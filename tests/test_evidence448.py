"""The scripts of the ablation on a GPU, on the processor: augmentation, scores, archives and the order of the jobs."""

from __future__ import annotations

import json
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import evidence448, gpu_data, gpu_scores, gpu_training, pack_photographs, probe448
from benchmarks.evidence448 import Job
from safn import backbones
from safn.data import VOC_CLASSES, VOCFolder
from safn.evaluation import SweepCounter
from safn.fast_layers import PhasedConv
from safn.images import palette
from safn.inference import multi_scale_maximum
from safn.loading import Augmentation, PlainSet, TrainingSet
from safn.map_files import save_saliency
from safn.metrics import ConfusionMatrix
from safn.network import SAFN
from safn.pseudo import pseudo_ground_truth
from safn.segmentation import DeepLab
from safn.verification import verify
from safn_book import workflow

SIZES = {"a": (90, 60), "b": (61, 88), "c": (90, 60), "d": (40, 96)}  # width, height
CPU = torch.device("cpu")


def scene(width: int, height: int, seed: int) -> tuple[Image.Image, Image.Image]:
    """A smooth photograph with a rectangle in it, and the mask of that."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 6, 3), np.uint8)
    photo = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).copy()
    mask = np.zeros((height, width), np.uint8)
    where = slice(height // 4, height // 2), slice(width // 3, width // 2)
    photo[where], mask[where], mask[0] = (200, 40, 90), 1 + seed % 20, 255
    indexed = Image.fromarray(mask)
    indexed.putpalette(palette())
    return Image.fromarray(photo), indexed


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A VOC-layout folder of four training images, two of which are the validation images too, with saliency maps."""
    root = tmp_path_factory.mktemp("photographs")
    base = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (base / name).mkdir(parents=True)
    rows = ["id," + ",".join(VOC_CLASSES)]
    for seed, (image_id, size) in enumerate(SIZES.items()):
        photo, mask = scene(*size, seed)
        photo.save(base / "JPEGImages" / f"{image_id}.jpg", quality=95)
        mask.save(base / "SegmentationClassAug" / f"{image_id}.png")
        rows.append(image_id + "," + ",".join(str(int(c == seed % 20)) for c in range(20)))
        (root / "saliency").mkdir(exist_ok=True)
        save_saliency(root / "saliency" / f"{image_id}.png", np.asarray(photo.convert("L"), np.float32) / 255)
    (root / "image_labels.csv").write_text("\n".join(rows))
    for split, ids in {"train_aug": "abcd", "val": "cd", "train": "ab"}.items():
        (base / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(ids))
    return root


@pytest.fixture(scope="module")
def work(root, tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("work")
    gpu_data.decode(root, work, 2, {"train_aug": 0, "val": 0})
    return work


def both(
    root: Path, work: Path, augmentation: Augmentation, index: int, seed: int
) -> tuple[dict, torch.Tensor, torch.Tensor]:
    """A sample of the CPU's data set, and image and mask that the batched augmentation makes of the same draw."""
    folder, data = VOCFolder(root), gpu_data.load(work, "train_aug", CPU)
    masks = {i: folder.mask_path(i) for i in data.ids}
    sample = TrainingSet(folder, data.ids, augmentation, backbones.HALF, seed, masks)[0, index]
    drawn = torch.from_numpy(gpu_data.draw(augmentation, index, tuple(data.sizes[index].tolist()), seed, 0))[None]
    images, _ = gpu_data.batch(data.photos, drawn, augmentation.crop, backbones.HALF)
    return sample, images[0], gpu_data.targets(data.masks, drawn, augmentation.crop)[0]


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("crop", [48, 112])
def test_resized_mirrored_and_cropped_as_pillow_does(root, work, crop, index):
    """Within one of 255 levels at every pixel, and a third of one on average: Pillow rounds to 8 bits in between."""
    augmentation = Augmentation(crop, (40, 130), jitter=(0, 0, 0, 0))
    for seed in range(6):
        sample, image, mask = both(root, work, augmentation, index, seed)
        levels = 127.5 * (image - sample["image"]).abs()
        assert levels.max() < 1.01 and levels.mean() < 0.35
        assert (
            mask != sample["mask"]
        ).float().mean() < 0.01  # a row or column where the middle falls between two pixels


@pytest.mark.parametrize("only", range(5))
def test_colours_change_as_pillow_changes_them(root, work, only):
    """Of one kind of change, or of all in the order drawn; the whole photograph is in the crop, so the means agree."""
    jitter = tuple(a if only in (k, 4) else 0 for k, a in enumerate((0.3, 0.3, 0.3, 0.1)))
    augmentation = Augmentation(136, (100, 130), jitter=jitter)
    for seed in range(4):
        sample, image, _ = both(root, work, augmentation, seed, seed)
        assert 127.5 * (image - sample["image"]).abs().mean() < 1.5


def test_an_epoch_has_every_image_once_in_the_order_of_the_sampler(work):
    data = gpu_data.load(work, "train_aug", CPU)
    samples = gpu_data.epoch_of(data, Augmentation(32, (40, 60)), seed=3, epoch=2, batch=2)
    order = np.random.default_rng((3, 2)).permutation(4)
    assert samples.shape == (2, 2, gpu_data.SAMPLE)
    assert samples[..., gpu_data.INDEX].ravel().tolist() == order.tolist()


@pytest.mark.parametrize("size", [0, 64])
def test_whole_photographs_are_those_of_plain_samples(root, work, size):
    data, seen = gpu_data.load(work, "train_aug", CPU), []
    plain = PlainSet(VOCFolder(root), data.ids, backbones.HALF, size)
    for chosen, images in gpu_data.whole(data, backbones.HALF, size, 8):
        for index, image in zip(chosen, images):
            assert image.shape == plain[index]["image"].shape
            assert 127.5 * (image - plain[index]["image"]).abs().max() < 1.01
            seen.append(index)
    assert sorted(seen) == [0, 1, 2, 3]


def test_a_sweep_of_batches_counts_what_the_sweep_of_arrays_counts():
    rng = np.random.default_rng(0)
    ours, theirs = gpu_scores.BatchSweep(3), SweepCounter(3)
    for _ in range(3):
        maps = (rng.random((2, 3, 9, 7)) * rng.integers(0, 2, (2, 3, 1, 1))).astype(np.float32)
        target = rng.choice([0, 1, 2, 3, 255], (2, 9, 7)).astype(np.uint8)
        ours.update(torch.from_numpy(maps), torch.from_numpy(target))
        for one, mask in zip(maps, target):
            theirs.update(one, mask)
    assert np.array_equal(ours.result().miou, theirs.result().miou)
    assert np.array_equal(ours.result().counts, theirs.result().counts)


@pytest.mark.parametrize("rules", [{}, {"ignore_saliency": 0.06}, {"gamma": 0.5, "ignore_confidence": 0.6}])
def test_pseudo_labels_and_their_counts_are_those_of_algorithm_1(rules):
    rng = np.random.default_rng(1)
    labels = np.array([[1, 0, 1], [1, 1, 1], [0, 0, 0]])
    maps = (rng.random((3, 3, 8, 8)) * labels[..., None, None]).astype(np.float32)
    saliency = np.where(rng.random((3, 8, 8)) < 0.3, 0, rng.random((3, 8, 8))).astype(np.float32)
    target = rng.choice([0, 1, 3, 255], (3, 8, 8)).astype(np.uint8)
    found = gpu_scores.pseudo_labels(torch.from_numpy(maps), torch.from_numpy(saliency), **rules)
    counts = gpu_scores.confusion(found, torch.from_numpy(target), 4).numpy()
    for k in range(3):
        expected = pseudo_ground_truth(maps[k], saliency[k], labels[k], **rules)
        assert np.array_equal(found[k].numpy(), expected)
        assert np.array_equal(counts[k], ConfusionMatrix(4).update(expected, target[k]))
    assert np.array_equal(gpu_scores.dense(**gpu_scores.sparse(counts)), counts)


@torch.inference_mode()
def test_the_multi_scale_test_of_a_batch_is_that_of_each_image():
    torch.manual_seed(0)
    network = DeepLab("efficientnet_lite0", num_outputs=4, weights="none", head_width=8, crop=65).eval()
    images = torch.randn(2, 3, 70, 60)
    found = gpu_scores.multi_scale(network, images, (0.5, 1, 1.5))
    for image, one in zip(images, found):
        assert torch.allclose(one, multi_scale_maximum(network, image[None], (0.5, 1, 1.5)), atol=1e-5)


def test_packed_and_unpacked_the_folder_is_the_same(root, tmp_path):
    parts = pack_photographs.pack(pack_photographs.contents(VOCFolder(root), root / "saliency"), tmp_path, [0.03] * 9)
    assert len(parts) > 1 and all(part.stat().st_size <= 30_000 for part in parts)
    for part in parts:
        with tarfile.open(part) as archive:
            archive.extractall(tmp_path / "out", filter="data")
    before, after = VOCFolder(root), VOCFolder(tmp_path / "out")
    assert verify(after) == verify(before) and after.ids("train") == ["a", "b"]
    for image_id in SIZES:
        assert np.array_equal(np.asarray(after.image(image_id)), np.asarray(before.image(image_id)))
        assert np.array_equal(after.mask(image_id), before.mask(image_id))
        maps = [
            np.asarray(Image.open(r / "saliency" / f"{image_id}.png").convert("L"), float)
            for r in (root, tmp_path / "out")
        ]
        assert np.abs(maps[0] - maps[1]).mean() < 2


def test_parts_that_are_too_small_are_refused(tmp_path):
    with pytest.raises(ValueError, match="do not fit"):
        pack_photographs.pack(iter([("large", bytes(50_000))]), tmp_path, [0.03])


@pytest.fixture
def trained(work):
    """A small network, its step, and how to train it for so many steps, two an epoch."""
    data = gpu_data.load(work, "train_aug", CPU)
    torch.manual_seed(0)
    network = SAFN("efficientnet_lite0", 20, (1, 0.5), weights="none")
    s = evidence448.CLASSIFIER | {"batch_size": 2, "attention_factor": 1}
    optimizer = gpu_training.optimizer_of(network, s, 1.0, CPU)
    loss = gpu_training.classifier_loss(network, data, 32, backbones.HALF, evidence448.WAYS["cuDNN"])
    step = gpu_training.Step(loss, optimizer, 2, CPU, graph=True)
    epochs = gpu_training.epochs_of(data, Augmentation(32, (32, 48)), 0, 2)

    def train(steps, deadline=float("inf"), report=lambda progress: None):
        return gpu_training.train(step, epochs, steps, s, deadline, report)

    return network, step, train


def test_a_step_learns_and_the_rates_follow_the_schedule(trained):
    network, step, train = trained
    before, said = network.head[0].weight.clone(), []
    found = train(3, report=lambda progress: said.append(progress.done))
    assert step.kind == "eager" and 0 < found["loss"] < 1 and said == [1, 2, 3]
    assert (found["steps_trained"], found["epochs_trained"], found["shortened"]) == (3, 1.5, False)
    assert not torch.equal(network.head[0].weight, before)
    rates = [float(g["lr"]) for g in step.optimizer.param_groups if g["name"] == "attention weight"]
    assert rates == pytest.approx([2e-4 * (1 - 2 / 3) ** 0.9])


def test_a_training_that_would_be_late_takes_whole_epochs_that_fit():
    """10 of 100 steps after the warm-up took 1 s: of 10 s, nine hold 90 steps, with those 106, and 10 epochs of 10."""
    progress = gpu_training.Progress(wanted=200, steps=200, an_epoch=10, done=16, ms_per_step=100)
    progress.shorten(gpu_training.time.time() + 10)
    assert progress.steps == 100 and progress.wanted == 200
    progress.shorten(gpu_training.time.time() + 1000)
    assert progress.steps == 100  # never longer
    with pytest.raises(gpu_training.OutOfTime, match="16 of 100 steps, 100.0 ms each"):
        progress.shorten(gpu_training.time.time() + 0.1)
    progress.done = 20
    progress.shorten(gpu_training.time.time() - 5)
    assert progress.steps == 20  # an epoch that is over counts


def test_the_end_is_predicted_once_the_warm_up_is_over(trained, monkeypatch):
    _, _, train = trained
    monkeypatch.setattr(gpu_training, "TIMED", 2)
    monkeypatch.setattr(gpu_training.Progress, "shorten", lambda self, deadline: setattr(self, "steps", 10))
    found = train(10**5, deadline=gpu_training.time.time() + 60)
    assert found["steps_trained"] == 10 and found["shortened"] and found["ms_per_step"] > 0


@pytest.mark.parametrize("options", [
    {"kernel_size": 1}, {"kernel_size": 3, "padding": 1}, {"kernel_size": 3, "padding": 4, "dilation": 4, "bias": False},
    {"kernel_size": (3, 5), "stride": (2, 1)}, {"kernel_size": 1, "stride": 2},
])  # fmt: skip
def test_a_product_is_the_convolution_and_has_its_gradients(options):
    torch.manual_seed(0)
    theirs = torch.nn.Conv2d(3, 4, **options).double()
    ours = gpu_training.ProductConv(3, 4, **options).double()
    ours.load_state_dict(theirs.state_dict())
    images = [torch.randn(2, 3, 9, 11, dtype=torch.float64).requires_grad_()]
    images.append(images[0].detach().clone().requires_grad_())
    found = [layer(x) for layer, x in zip((ours, theirs), images)]
    torch.testing.assert_close(*found)
    upstream = torch.randn_like(found[0])
    for output in found:
        output.backward(upstream)
    torch.testing.assert_close(images[0].grad, images[1].grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


@torch.inference_mode()
def test_networks_without_cudnn_compute_the_same():
    torch.manual_seed(0)
    networks = [SAFN("efficientnet_lite0", 4, (1, 0.5), weights="none", attention_start="random")]
    networks.append(DeepLab("efficientnet_lite0", num_outputs=4, weights="none", head_width=8, crop=65))
    for network in networks:
        images = torch.randn(2, 3, 65, 65)
        expected, weights = network.eval()(images), network.state_dict()
        gpu_training.without_cudnn(network)
        kinds = {type(layer).__name__ for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)}
        assert kinds == {"Conv2d", "Conv2dSame", "ProductConv"}
        assert all(m.groups > 1 for m in network.modules() if type(m) is torch.nn.Conv2d)
        torch.testing.assert_close(network(images), expected, atol=1e-5, rtol=1e-4)
        assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_operations_and_traffic_by_hand(monkeypatch):
    """A frozen 1x1 layer 3 -> 8, then a depthwise 3x3 layer of 8 channels, on 4000 x 4000 pixels."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)).to("meta")
    network[0].requires_grad_(False)
    monkeypatch.setattr(probe448.evidence448, "classifier_network", lambda *_: network)
    found = probe448.counted({"crop": 4000})
    pixels = 16e6
    assert found["GFLOP"] == pytest.approx(2 * pixels * (3 * 8 + 9 * 8) / 1e9, abs=0.01)
    assert found["trained GFLOP"] == found["depthwise GFLOP"] == pytest.approx(2 * pixels * 9 * 8 / 1e9, abs=0.01)
    assert found["depthwise MB"] == pytest.approx(2 * pixels * (8 + 8) / 1e6)
    assert found["MB"] == pytest.approx(2 * pixels * (3 + 8 + 8 + 8) / 1e6)


def test_the_fastest_way_is_left_for_the_ablation(tmp_path):
    notes = tmp_path / "notes.json"
    parts = {"a": {"step": {"ms": 9}, "CUDA graph": {"ms": 5}}, "b": {"step": {"ms": 6}}, "c": {"begun": {}}}
    notes.write_text(json.dumps(parts))
    probe448.choose(notes, tmp_path)
    assert evidence448.chosen_way(tmp_path) == "a"
    assert evidence448.chosen_way(tmp_path / "elsewhere") == "without cuDNN"


def test_the_main_comparison_is_first_and_its_needs_come_before():
    names = [job.name for job in evidence448.jobs()]
    assert len(names) == len(set(names))
    assert names[:2] == ["classifier:attention_1-0.75-0.5:adamw:seed0", "classifier:attention_1:adamw:seed0"]
    left = set()
    for job in evidence448.jobs():
        assert job.needs is None or job.needs in left
        left |= {"classifier": {job.pseudo}, "segmentation": {job.probabilities}, "crf": set()}[job.kind]
    assert evidence448.chosen_jobs(["crf:masks", "classifier:avg"])[0] == Job("crf", "masks")
    with pytest.raises(ValueError, match="no job begins with"):
        evidence448.chosen_jobs(["classifier:median"])


SMALL = {"crop": 32, "resize": [32, 48], "size": 32, "weights": "none", "freeze": 0}
COMMON = ["--device", "cpu", "--slots", "2", "--processes", "2", "--no-crf"]


def small(root: Path, tmp_path: Path, *more: str, **changed) -> list[str]:
    """Arguments of a run of seconds on the processor."""
    folders = ["--data", str(root), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    settings = json.dumps(SMALL | {"batch_size": 2, "epochs": 1, **changed})
    return [*folders, *COMMON, "--classifier", settings, *more]


def rows_in(tmp_path: Path) -> list[dict]:
    return json.loads((tmp_path / "out" / "evidence-448.json").read_text())


def test_a_classifier_becomes_a_row(root, tmp_path):
    evidence448.main(small(root, tmp_path, "--jobs", "classifier:attention_1:adamw:seed0", "--seconds", "120"))
    (row,) = rows_in(tmp_path)
    assert "unfinished" not in row and "failure" not in row
    assert row["metrics"]["steps_trained"] == 2 and 0 <= row["metrics"]["pseudo_miou_background"] <= 1
    assert row["ways"] == {"channels_last": False, "phased": False, "cudnn": False}


def test_the_command_of_a_row_runs_what_the_row_needs(root, tmp_path):
    job = Job("crf", "attention_1", seed=0)
    command = evidence448.not_measured(job)["command"].split()
    segmenter = {"crop": 33, "resize": [32, 48], "weights": "none", "freeze": 0, "head_width": 8}
    more = ["--least", "1", "--segmenter", json.dumps(segmenter | {"batch_size": 2, "iterations": 2})]
    arguments = small(root, tmp_path, *command[command.index("--jobs") :], *more)
    if find_spec("pydensecrf"):
        arguments.remove("--no-crf")
    evidence448.main(arguments)
    rows = {row["kind"]: row["metrics"] for row in rows_in(tmp_path)}
    assert rows["segmentation"]["steps_trained"] == 2 and 0 <= rows["segmentation"]["val_miou_multi"] <= 1
    assert not find_spec("pydensecrf") or 0 <= rows["crf"]["val_miou_crf"] <= 1


JOB = ["--jobs", "classifier:attention_1:adamw:seed0", "--least", "1"]


def test_a_training_too_long_is_shortened_and_ends(root, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(evidence448, "TAIL", {"classifier": 6})
    evidence448.main(small(root, tmp_path, *JOB, "--seconds", "20", epochs=10**6))
    (row,) = rows_in(tmp_path)
    found = row["metrics"]
    assert found["shortened"] and 1 <= found["epochs_trained"] < 10**5 and "val_mAP" in found
    assert row["settings"]["epochs"] == 10**6
    (log,) = (tmp_path / "out").glob("*.log")
    assert "(2000000 wanted)" in log.read_text() and "ms each" in capfd.readouterr().out


def test_a_job_that_has_to_be_ended_leaves_its_training(root, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence448, "validated", lambda *_: evidence448.time.sleep(60))
    monkeypatch.setattr(evidence448, "TAIL", {"classifier": 0})
    evidence448.main(small(root, tmp_path, *JOB, "--seconds", "8"))
    (row,) = rows_in(tmp_path)
    assert row["unfinished"].startswith("trained") and row["metrics"]["steps_trained"] == 2
    assert not evidence448.Results(tmp_path / "out", None).done(Job("classifier", "attention_1"))


def test_a_job_that_fails_says_why(root, tmp_path):
    evidence448.main(small(root, tmp_path, *JOB, backbone="?"))
    (row,) = rows_in(tmp_path)
    assert "?" in row["failure"] and row["unfinished"].startswith("failed")


def test_each_job_that_was_not_run_has_the_command_that_runs_it(root, tmp_path):
    (tmp_path / "out").mkdir()
    measured = {"job": "classifier:attention_1:adamw:seed0", "kind": "classifier", "metrics": {"val_mAP": 0.5}}
    (tmp_path / "out" / "evidence-448.json").write_text(json.dumps([measured]))
    evidence448.main(["--rows", "--out", str(tmp_path / "out")])
    rows = {row["job"]: row for row in rows_in(tmp_path)}
    assert list(rows) == [job.name for job in evidence448.jobs()] and rows.pop(measured["job"]) == measured
    for row in rows.values():
        command = row["command"].split()
        asked = evidence448.chosen_jobs(command[command.index("--jobs") + 1 :])
        assert asked[-1].name == row["job"] and asked[0].needs is None
        assert not evidence448.Results(tmp_path / "out", None).done(asked[-1])


def test_weights_against_size_worked_out_by_hand():
    rows = [[k, 0, share, weight, 1 - weight] for k, (share, weight) in enumerate([(0.1, 0.2), (0.5, 0.9), (0.3, 0.4)])]
    found = evidence448.by_size(np.array(rows, np.float32))
    assert found["correlation"] == pytest.approx([1, -1])
    assert found["share"] == pytest.approx([0.1, 0.3, 0.5]) and [w[0] for w in found["weight"]] == pytest.approx(
        [0.2, 0.4, 0.9]
    )
    weights, target = torch.tensor([[[[0.2, 0.4, 0.9]], [[0.8, 0.6, 0.1]]]]), torch.tensor([[[1, 1, 255]]])
    objects = gpu_scores.weights_of_classes(weights, target.to(torch.uint8), 2).numpy()
    (row,) = evidence448.rows_of_objects(objects, np.ones((1, 2)))
    assert row == pytest.approx([0, 0, 1, 0.3, 0.7])  # image, class, share of the pixels that count, weights


def test_rows_measured_before_are_kept_and_their_arrays(tmp_path):
    job = Job("classifier", "attention_1")
    (tmp_path / f"{job.name}.row").write_text(json.dumps({"job": job.name, "metrics": {}}))
    np.savez(tmp_path / f"{job.name}.npz", x=np.arange(3))
    out = tmp_path / "out"
    out.mkdir()
    evidence448.Results(out, None).collect(tmp_path, job)
    again = evidence448.Results(out, None)
    assert list(again.rows) == [job.name] and again.arrays[f"{job.name}/x"].tolist() == [0, 1, 2]


def test_the_script_and_the_profile_have_the_same_settings():
    found = {(job.stage, job.run): job for job in workflow.jobs(workflow.load("evidence-448", data_folder="somewhere"))}
    run = "attention_1-0.75-0.5_seed0"
    for stage, own in {"03_train_safn": evidence448.CLASSIFIER, "06_train_segmentation": evidence448.SEGMENTER}.items():
        taken = vars(workflow.parameters(found[stage, run]))
        assert {name: taken[name] for name in own} == own
    taken = vars(workflow.parameters(found["05_pseudo_ground_truth", run]))
    assert {name: taken[name] for name in evidence448.PSEUDO} == evidence448.PSEUDO
    assert tuple(vars(workflow.parameters(found["07_evaluate", run]))["test_scales"]) == evidence448.TEST_SCALES


def test_a_network_without_phases_computes_the_same():
    torch.manual_seed(0)
    network = DeepLab("efficientnet_lite0", weights="none", num_outputs=3, head_width=4).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(images)
        plain = gpu_training.prepared(network, CPU, evidence448.WAYS["cuDNN"])
        torch.testing.assert_close(plain(images), expected, rtol=1e-4, atol=1e-6)
    assert not any(isinstance(layer, PhasedConv) for layer in plain.modules())
