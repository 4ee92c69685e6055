# ruff: noqa: E402 (the filter has to come before the imports that warn)
"""Scale-Aware Feature Networks: weakly supervised semantic segmentation from image-level labels."""

import warnings

# progress bars are plain text: they reach logs, executed notebooks and the book alike
warnings.filterwarnings("ignore", "IProgress not found")

from safn.crf import dense_crf
from safn.metrics import ConfusionMatrix
from safn.network import SAFN
from safn.pseudo import pseudo_ground_truth
from safn.segmentation import DeepLab
from safn.trained import load, save

__all__ = ["SAFN", "ConfusionMatrix", "DeepLab", "dense_crf", "load", "pseudo_ground_truth", "save"]
