from __future__ import annotations

from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import pytest

from safn.options import TrainingOptions


def test_every_wrong_option_is_listed_at_once():
    wrong = {
        "epochs": 0, "batch_size": 2.5, "crop": "448", "workers": -1, "seed": True, "learning_rate": 0, "power": -1,
        "new_layer_factor": float("nan"), "attention_factor": float("inf"), "resize": (5, 4), "optimizer": "adam",
        "schedule": "cosine", "precision": "16", "accelerator": "tpu",
    }  # fmt: skip
    with pytest.raises(ValueError) as error:
        TrainingOptions(**wrong)
    head, *lines = str(error.value).split("\n  - ")
    assert head == "14 wrong training options:" and {line.split()[0] for line in lines} == set(wrong)
    assert "optimizer is 'adam'; valid: sgd, adamw" in lines and "epochs is 0; valid: whole numbers from 1" in lines


def test_options_are_picked_out_of_parameters_of_any_kind():
    parameters = {"epochs": 3, "resize": (4, 5), "runs": "elsewhere", "attention_factor": 0.1}
    options = TrainingOptions.from_parameters(parameters)
    assert options == TrainingOptions.from_parameters(SimpleNamespace(**parameters))
    assert (options.epochs, options.resize, options.attention_factor) == (3, (4, 5), 0.1)
    assert options.accumulate == 1 and not hasattr(options, "runs")
    with pytest.raises(FrozenInstanceError):
        options.epochs = 4
