"""Training with lightning: resume, interrupts, logs, and whatever machine it runs on."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import disk
import numpy as np
import pytest
import tiny
import torch

from safn import backbones, fitting, trained, training
from safn.fitting import Log, TrainingInterrupted, read_log


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)


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
    assert [row["epoch"] for row in log] == [1, 2, 3]
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


def table(log: Log) -> list[list[float]]:
    return [list(row.values()) for row in log]


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
    assert [(row["epoch"], row["step"]) for row in log] == [(1, 4), (2, 8), (3, options.get("iterations", 12))]
    assert set(log[0]) == {"epoch", "step", "loss", "val_mAP", "learning_rate"}
    np.testing.assert_allclose(table(log), table(expected), atol=1e-6, rtol=0)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, atol=1e-6, rtol=0)
    assert read_log(folder / "killed" / "log.csv") == log
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
    assert log == expected
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
    assert again == log
    assert all(torch.equal(t, restored.state_dict()[n]) for n, t in network.state_dict().items())
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "log.csv",
        "network.json",
        "network.safetensors",
        "training.log",
    ]


FULL = """
import json, sys
from pathlib import Path
import disk, tiny, torch
from safn import fitting

folder, save = Path(sys.argv[1]), fitting.WholeCheckpoints.save_checkpoint

def filling(*arguments, **options):
    save(*arguments, **options)
    disk.fill(folder, 4096)  # room for log.csv, not for another checkpoint

fitting.WholeCheckpoints.save_checkpoint = filling
try:
    tiny.train(folder)
except OSError as error:
    said = str(error)
state = torch.load(folder / "last.ckpt", weights_only=True)
files = sorted(p.name for p in folder.iterdir())
disk.free(folder)
fitting.WholeCheckpoints.save_checkpoint = save
log, _ = tiny.train(folder)
print(json.dumps({"said": said, "epoch": state["epoch"], "files": files, "loss": [row["loss"] for row in log]}))
"""


@pytest.mark.fault(8, "disk full during a training", "a file system of 8 MB, filled after the first checkpoint")
def test_a_full_disk_keeps_the_last_checkpoint_and_the_same_command_goes_on(tmp_path, happened):
    expected, _ = tiny.train(tmp_path / "whole")
    found = disk.run(FULL, tmp_path / "disk")
    assert re.fullmatch(r"\[Errno \d+\] (No space left on device|File too large): '.*/disk/last.ckpt'", found["said"])
    assert found["epoch"] == 0 and set(found["files"]) <= {"filler", "last.ckpt", "log.csv", "training.log"}
    np.testing.assert_allclose(found["loss"], [row["loss"] for row in expected], atol=1e-6, rtol=0)
    happened(f"OSError: {found['said']}; the last checkpoint loads", "the epoch at work")


def test_one_seed_gives_one_result_and_another_seed_another(tmp_path):
    (first, a), (second, b), (third, c) = (tiny.train(tmp_path / str(k), seed=s) for k, s in enumerate((0, 0, 1)))
    assert first == second
    assert all(torch.equal(t, b.state_dict()[n]) for n, t in a.state_dict().items())
    assert not np.allclose(table(first), table(third)) and not torch.equal(a.head[1].weight, c.head[1].weight)


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


@pytest.mark.parametrize("name", ["network.safetensors", "network.json"])
def test_killed_while_the_network_is_saved_it_is_saved_by_the_next_call(tmp_path, name):
    def dying() -> None:
        write = Path.write_bytes

        def killing(path: Path, content: bytes) -> None:
            if path.name.startswith(name):
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, content)

        Path.write_bytes = killing
        tiny.train(tmp_path / "killed")

    expected, whole = tiny.train(tmp_path / "whole")
    tiny.killed(dying)
    assert not trained.is_complete(tmp_path / "killed")
    log, network = tiny.train(tmp_path / "killed")
    assert log == expected and trained.load(tmp_path / "killed").classes == tiny.CLASSES
    assert all(torch.equal(t, network.state_dict()[n]) for n, t in whole.state_dict().items())
    assert not (tmp_path / "killed" / "last.ckpt").exists()


class Interrupting(tiny.Samples):
    """Presses Ctrl-C when an image of this epoch is loaded."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def __getitem__(self, key):
        if isinstance(key, tuple) and key == (self.epoch, 5):
            os.kill(os.getpid(), signal.SIGINT)
        return super().__getitem__(key)


@pytest.mark.parametrize("epoch, follows", [(0, "it begins again."), (1, "it goes on after epoch 1.")])
def test_an_interrupt_says_where_it_stopped_and_the_same_call_goes_on(tmp_path, request, epoch, follows):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores the signal
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with pytest.raises(TrainingInterrupted) as stop:
        tiny.train(tmp_path / "stopped", samples=Interrupting(epoch))
    assert str(stop.value) == f"Training stopped in epoch {epoch + 1} of 3. Run the same cell again: {follows}"
    assert stop.value._render_traceback_() == [str(stop.value)] and isinstance(stop.value, KeyboardInterrupt)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    expected, whole = tiny.train(tmp_path / "whole")
    log, network = tiny.train(tmp_path / "stopped")
    assert log == expected
    assert all(torch.equal(t, network.state_dict()[n]) for n, t in whole.state_dict().items())


def test_another_exit_is_not_taken_for_an_interrupt(tmp_path):
    class Leaving(tiny.Samples):
        def __getitem__(self, key):
            raise SystemExit(3)

    with pytest.raises(SystemExit) as end:
        tiny.train(tmp_path, samples=Leaving())
    assert end.value.code == 3


def test_the_whole_training_is_one_line_and_a_log_that_can_be_followed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fitting, "LINE_SECONDS", 0)
    tiny.train(tmp_path)
    out, err = capsys.readouterr()
    assert err == "" and out.endswith("\n") and out.count("\n") == 1
    last = out.split("\r")[-1]
    assert last.startswith("training: 100%") and "12/12" in last and "epoch 3/3, loss 0." in last
    lines = (tmp_path / "training.log").read_text().splitlines()
    assert len(lines) == 12 + 3  # every step, and the end of every epoch
    pattern = r"training: .* (\d+)/12 \[.*, epoch (\d)/3, loss \d\.\d{3}(, val_mAP \d\.\d{3})?\]"
    found = [re.fullmatch(pattern, line) for line in lines]
    assert [(int(m[2]), int(m[1])) for m in found if m[3]] == [(1, 4), (2, 8), (3, 12)]


def test_training_leaves_filters_and_levels_of_its_caller_as_they_were(tmp_path):
    import logging

    levels = [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")]
    with warnings.catch_warnings():
        before = list(warnings.filters)
        tiny.train(tmp_path)
        assert warnings.filters == before
    assert [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")] == levels


ON_A_CLUSTER = """
import sys, warnings
from pathlib import Path
import tiny
tiny.train(Path(sys.argv[1]))
"""


@pytest.mark.fault(
    25, "srun on the PATH, and the variables of a cluster", "a training on a login node, and as one of four tasks"
)
@pytest.mark.parametrize("task", [None, 1], ids=["on the login node", "as the second of four tasks"])
def test_a_cluster_changes_nothing(tmp_path, task, happened):
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    tests = Path(__file__).parent
    environment = {**os.environ, "PATH": f"{srun.parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, (tests, tests.parent))), "OMP_NUM_THREADS": "1"}
    if task is not None:
        environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "job", "SLURM_NTASKS": "4", "SLURM_PROCID": str(task)}
        environment |= {"SLURM_LOCALID": str(task), "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "4"}
    command = [sys.executable, "-c", ON_A_CLUSTER, tmp_path / "run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    log, _ = tiny.train(tmp_path / "here")
    assert read_log(tmp_path / "run" / "log.csv") == log
    files = [sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("run", "here")]
    assert files[0] == files[1]
    happened("no message: one process trains, as elsewhere")


def test_a_loss_that_is_checked_late_stops_before_the_checkpoint_and_names_the_first_bad_step(tmp_path, monkeypatch):
    monkeypatch.setitem(training.UNCHECKED, "cpu", 50)
    with pytest.raises(FloatingPointError, match=r"loss is nan in epoch 1, step \d, images .*\bimage_5\b"):
        tiny.train(tmp_path, samples=tiny.Samples(spoilt=(1, 5)))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 4


def test_a_log_of_an_earlier_version_with_an_empty_cell_is_read(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,step,val_mAP\n1,4,\n2,8,0.5\n")
    rows = read_log(tmp_path / "log.csv")
    assert np.isnan(rows[0]["val_mAP"]) and rows[1] == {"epoch": 2, "step": 8, "val_mAP": 0.5}


@pytest.mark.fault(25, "precision that the device has not", "16-mixed on a CPU, which lightning replaces by bf16-mixed")
def test_a_precision_that_would_be_replaced_is_an_error(tmp_path, happened):
    with pytest.raises(
        ValueError, match="precision='16-mixed' is not for this device, which has 'bf16-mixed'"
    ) as error:
        tiny.train(tmp_path, precision="16-mixed")
    assert not list(tmp_path.iterdir())
    happened(error.value)
