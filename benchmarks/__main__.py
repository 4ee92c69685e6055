"""Speed, ours beside the alternative: ``make bench``, or ``python -m benchmarks --pairs 9 --only CRF``.

The two take turns in one process; the ratio is the median of the ratios of the pairs, its spread their quartiles. Writes
``results/bench.json`` with the machine and how busy it was; rows that are not measured this time stay as they were.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pandas as pd
import torch

from benchmarks import growth
from benchmarks.cases import CASES, memory_of, row
from safn.records import environment, write_json

PATH = Path(__file__).resolve().parent.parent / "results" / "bench.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="five or more")
    parser.add_argument("--only", nargs="*", default=[*CASES, "growth"], choices=[*CASES, "growth"], metavar="CASE",
                        help=", ".join([*CASES, "growth"]))  # fmt: skip
    parser.add_argument("--second-run", type=float, nargs="+", metavar=("SECONDS", "STAGES"),
                        help="what a second `make book` took, and how many stages it executed")  # fmt: skip
    parser.add_argument("--out", type=Path, default=PATH)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        return print(memory_of(given.memory))
    known = json.loads(given.out.read_text()) if given.out.exists() else {}
    rows = {r["what"]: r for r in known.get("rows", [])}
    head = {**environment(), "load before": round(os.getloadavg()[0], 1), "threads": torch.get_num_threads()}
    head |= {"pairs": given.pairs, "growth": known.get("growth", [])}
    if given.second_run:
        taken, *stages = given.second_run
        executed = f"{stages[0]:g} stages executed" if stages else "first run"
        made = row("make book, second run, seconds", executed, 10, {"value": taken}, most=True)
        rows[made["what"]] = made
    write_json(given.out, {**head, "rows": list(rows.values())})
    for name in given.only:
        if name == "growth":
            head["growth"] = growth.measure()
        else:
            rows |= {r["what"]: r for r in CASES[name](given.pairs)}
        write_json(given.out, {**head, "rows": list(rows.values())})
        print(f"{name} is measured", flush=True)
    print(pd.DataFrame(rows.values())[["what", "against", "sense", "goal", "value", "reached"]].to_string(index=False))


if __name__ == "__main__":
    main()
