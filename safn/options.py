"""The options of a training, checked all at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("poly", "step"),
    "precision": ("32-true", "bf16-mixed", "16-mixed"),
    "accelerator": ("auto", "cpu", "gpu", "mps"),
}
FROM_1 = ("epochs", "batch_size", "accumulate", "crop")
FROM_0 = ("iterations", "size", "workers", "seed", "momentum", "weight_decay", "power")
ABOVE_0 = ("learning_rate", "new_layer_factor", "attention_factor")


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained. The defaults are those of the paper's classifier (Sec. IV-A).

    Raises:
        ValueError: listing every option that is wrong.

    Example:
        >>> TrainingOptions(optimizer="sdg", epochs=0)
        Traceback (most recent call last):
        ValueError: 2 wrong training options:
          - epochs is 0; valid: whole numbers from 1
          - optimizer is 'sdg'; valid: sgd, adamw
    """

    epochs: int = 15  #: passes over the training images
    iterations: int = 0  #: stop after so many steps (0: the epochs decide)
    batch_size: int = 4  #: images a batch
    accumulate: int = 1  #: batches a step
    crop: int = 448  #: side of the training crop in pixels
    resize: tuple[int, int] = (256, 512)  #: long side in pixels before the crop, uniform
    learning_rate: float = 0.01  #: of the pretrained layers
    new_layer_factor: float = 10  #: learning rate of the new layers, as a multiple
    attention_factor: float | None = None  #: that of the scale attention (``None``: as of other new layers)
    optimizer: str = "sgd"  #: ``sgd``, or ``adamw``, which learns within the few hundred steps that a CPU affords
    momentum: float = 0.9  #: of SGD, and the first beta of AdamW
    weight_decay: float = 5e-4  #: of weights, not of biases
    schedule: str = "poly"  #: ``poly`` or ``step``, see ``safn.training.learning_rate``
    power: float = 0.9  #: of the polynomial schedule
    size: int = 0  #: long side of validation images in pixels (0: as they are)
    precision: str = "32-true"  #: or ``bf16-mixed``, ``16-mixed``
    accelerator: str = "auto"  #: or ``cpu``, ``gpu``, ``mps``
    workers: int = 0  #: processes that load images
    seed: int = 0  #: of order, augmentation and dropout (``seed_everything`` seeds the initial weights)

    def __post_init__(self) -> None:
        problems = [p for name, value in vars(self).items() if (p := _problem(name, value))]
        if problems:
            raise ValueError("\n  - ".join([f"{len(problems)} wrong training options:", *problems]))

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any] | object) -> TrainingOptions:
        """Pick the training options out of the parameters of a notebook, a mapping or an object with attributes."""
        values = parameters if isinstance(parameters, Mapping) else vars(parameters)
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


def _problem(name: str, value: Any) -> str:
    """What is wrong with an option, or an empty text."""
    if name in CHOICES:
        return "" if value in CHOICES[name] else f"{name} is {value!r}; valid: {', '.join(CHOICES[name])}"
    if name == "resize":
        low, high = value if len(value) == 2 else (0, 0)
        return "" if 1 <= low <= high else f"resize is {value!r}; valid: two whole numbers, 1 <= low <= high"
    if name == "attention_factor" and value is None:
        return ""
    whole = isinstance(getattr(TrainingOptions, name), int) and name not in ABOVE_0
    valid = "above 0" if name in ABOVE_0 else f"from {int(name in FROM_1)}"
    right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool) and value < math.inf
    right = right and (value > 0 if name in ABOVE_0 else value >= int(name in FROM_1))
    return "" if right else f"{name} is {value!r}; valid: {'whole ' if whole else ''}numbers {valid}"
