"""What all tests share: one thread (more slow tiny tensors down), no window for plots, real photographs."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the kernels of notebooks inherit it
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch

torch.set_num_threads(1)
VOC12 = Path(__file__).resolve().parents[2] / "shared" / "voc12"


@pytest.fixture(scope="session")
def voc12() -> Path:
    """The subset of VOC 2012 beside this checkout: 1,631 training and 743 validation photographs."""
    if not (VOC12 / "VOCdevkit").is_dir():
        pytest.skip("no real photographs: ../shared/voc12 is not beside this checkout")
    return VOC12
