"""The README: its library example runs, and its table holds the recorded numbers."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np

import safn
from safn.data import VOC_CLASSES
from safn.images import load_mask
from safn.metrics import VOID
from safn_book import archive
from safn_book.run_names import Stage

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs_as_it_stands(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(code, names)
    truth = load_mask(safn.free_photographs()["cat"].mask)
    found, drawn = names["mask"] == VOC_CLASSES.index("cat") + 1, truth == VOC_CLASSES.index("cat") + 1
    counted = truth != VOID
    assert (found & drawn).sum() > 0.6 * ((found | drawn) & counted).sum()
    assert ast.literal_eval(capsys.readouterr().out)["cat"] == f"{found.mean():.0%}"


def test_it_is_short_and_holds_few_decimals():
    prose = re.sub(r"```.*?```|\(http[^)]*\)", "", README, flags=re.DOTALL)
    assert len(README.splitlines()) <= 120
    assert len(re.findall(r"\d+\.\d+", prose)) <= 12


def recorded(stage: Stage, metric: str, *runs: str) -> str:
    """Mean over the runs in percent, with the standard deviation where there are several."""
    records = archive.read(ROOT / "results" / "evidence.json")
    values = [100 * records[stage, run]["metrics"][metric] for run in runs]
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def test_the_table_has_the_recorded_numbers():
    shown = re.findall(r"^\| .* \| \**([\d.]+(?: ± [\d.]+)?)\** \|$", README, re.MULTILINE)
    safn = [f"attention_1-0.75-0.5_seed{seed}" for seed in range(3)]
    *ours, paper = shown
    assert paper == "61.9"  # Table 1, val
    assert ours == [
        recorded(Stage.MAPS, "classifier_only_val_miou", *safn),
        recorded(Stage.EVALUATE, "val_miou_crf", "attention_1_seed0"),
        recorded(Stage.EVALUATE, "val_miou_crf", *safn),
        recorded(Stage.EVALUATE, "val_miou_crf", "masks_seed0"),
    ]
