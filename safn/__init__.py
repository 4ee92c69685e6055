"""Scale-Aware Feature Networks: weakly supervised semantic segmentation from image-level labels."""

from safn.crf import dense_crf
from safn.datasets.free_photographs import free_photographs
from safn.files import DataError
from safn.masks import segment
from safn.metrics import ConfusionMatrix
from safn.network import SAFN
from safn.pseudo import pseudo_ground_truth
from safn.segmentation import DeepLab
from safn.trained import load, save

__all__ = [
    "SAFN",
    "ConfusionMatrix",
    "DataError",
    "DeepLab",
    "dense_crf",
    "free_photographs",
    "load",
    "pseudo_ground_truth",
    "save",
    "segment",
]
