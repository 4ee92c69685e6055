"""The CRF of many images: what a failure says."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from safn import backbones, inference
from safn.files import DataError
from safn.images import load_mask
from safn.inference import predict


class Deleting(tiny.Brightest):
    """Deletes the photo it has just seen for the second time: the CRF of that photo cannot read it."""

    def __init__(self, path) -> None:
        super().__init__()
        self.path = path

    def forward(self, images):
        if self.seen == 1:
            self.path.unlink()
        return super().forward(images)


@pytest.mark.fault(16, "the CRF fails on an image", "its photo deleted between network and CRF")
def test_the_crf_writes_its_own_folder_and_its_failure_names_the_image(photos, tmp_path, happened):
    pytest.importorskip("pydensecrf.densecrf")
    plain, refined = tmp_path / "plain", tmp_path / "refined"
    two = {i: photos[i] for i in "ab"}
    with pytest.raises(DataError, match=r"CRF of image b failed: .*b.png cannot be read: .*No such file") as error:
        predict(Deleting(photos["b"]), backbones.IMAGENET, two, plain, refined=refined, processes=1)
    assert [p.name for p in sorted(plain.iterdir())] == ["a.png", "b.png"]
    np.testing.assert_array_equal(load_mask(refined / "a.png"), tiny.true_mask(0))
    assert not (refined / "b.png").exists()
    happened(error.value, "the CRF of that image; the masks before it are there")


@pytest.mark.fault(16, "a process of the CRF dies", "SIGKILL to it while it works on an image")
def test_a_crf_worker_that_dies_names_an_image_also_while_more_are_submitted(photos, tmp_path, monkeypatch, happened):
    kill = "import os, signal\n\n\ndef die(*_):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    (tmp_path / "dying.py").write_text(kill)
    monkeypatch.syspath_prepend(tmp_path)
    import dying

    monkeypatch.setattr(inference, "crf_mask", dying.die)

    class Waiting(tiny.Brightest):
        """Sees the third image only once the worker of the first has died."""

        def forward(self, images):
            if self.seen == 1:
                pool[0]._executor_manager_thread.join(60)
            return super().forward(images)

    pool, real = [], inference.ProcessPoolExecutor
    monkeypatch.setattr(inference, "ProcessPoolExecutor", lambda *a: pool.append(real(*a)) or pool[-1])
    plain, refined = tmp_path / "plain", tmp_path / "refined"
    with pytest.raises(DataError, match=r"CRF of image a failed: BrokenProcessPool") as error:
        predict(Waiting(), backbones.IMAGENET, photos, plain, refined=refined, processes=1)
    assert not list(refined.iterdir()) and (plain / "a.png").exists()
    happened(error.value, "the CRF of the images at work; the masks before are there")
