"""Round the weights of a saved network to 8 bits, in its folder: how the networks of the package were made small.

    python -m benchmarks.pack_weights FOLDER

``safn.trained`` describes the format, and ``benchmarks.shipped`` measures what is lost.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from safn.files import write_file, write_json
from safn.trained import DESCRIPTION, STEP, WEIGHTS


def to_8_bits(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Round tensors of two or more dimensions to int8 in -127..127 and a step for each output (dimension 0)."""
    packed = {}
    for name, tensor in tensors.items():
        packed[name] = tensor
        if tensor.dim() > 1:
            step = tensor.flatten(1).abs().amax(1) / 127
            step[step == 0] = 1  # an output without weights
            packed[name] = (tensor / step.view(-1, *[1] * (tensor.dim() - 1))).round().to(torch.int8)
            packed[name + STEP] = step
    return packed


def pack(folder: Path) -> None:
    """Round the weights of a folder of 32 bits; the description is written last, as ``safn.save`` does."""
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    (folder / DESCRIPTION).unlink()
    write_file(folder / WEIGHTS, tensor_bytes(to_8_bits(read_tensors((folder / WEIGHTS).read_bytes()))))
    description["weights"]["bits"] = 8
    write_json(folder / DESCRIPTION, description)


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
