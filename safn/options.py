"""The options of a training, checked all at once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("poly", "step"),
    "precision": ("32-true", "bf16-mixed", "16-mixed"),
    "accelerator": ("auto", "cpu", "gpu", "mps"),
}
WHOLE = {"epochs": 1, "batch_size": 1, "accumulate": 1, "crop": 1, "iterations": 0, "size": 0, "workers": 0, "seed": 0}
FROM_0 = ("momentum", "weight_decay", "power")


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
    def from_parameters(cls, parameters: Mapping[str, Any] | object) -> Self:
        """Pick the training options out of the parameters of a notebook, a mapping or an object with attributes."""
        values = parameters if isinstance(parameters, Mapping) else vars(parameters)
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


def _problem(name: str, value: Any) -> str:
    """What is wrong with an option, or an empty text."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and value < math.inf
    if name in CHOICES:
        right, valid = value in CHOICES[name], ", ".join(CHOICES[name])
    elif name == "resize":
        right, valid = len(value) == 2 and 1 <= value[0] <= value[1], "two whole numbers, 1 <= low <= high"
    elif name in WHOLE:
        right, valid = number and isinstance(value, int) and value >= WHOLE[name], f"whole numbers from {WHOLE[name]}"
    elif name in FROM_0:
        right, valid = number and value >= 0, "numbers from 0"
    else:
        right, valid = (name == "attention_factor" and value is None) or (number and value > 0), "numbers above 0"
    return "" if right else f"{name} is {value!r}; valid: {valid}"
