"""Speed, ours beside the alternative: ``make bench``, or ``python -m benchmarks --pairs 9 --only CRF``.

The two take turns in one process; the ratio is the median of the ratios of the pairs, its spread their quartiles. Writes
``results/bench.json`` with the machine; each row says of which commit it is and how busy the machine was. Rows that are not
measured this time stay as they were, unless they are of another machine or other versions.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pandas as pd
import torch

from benchmarks import growth, profiles
from benchmarks.cases import CASES, memory_of, row
from safn.files import write_json
from safn_book.environment import environment

OTHERS = {"growth": growth.measure, "profiles": profiles.measure}
PATH = Path(__file__).resolve().parent.parent / "results" / "bench.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="five or more")
    known = [*CASES, *OTHERS]
    parser.add_argument("--only", nargs="*", default=known, choices=known, metavar="CASE", help=", ".join(known))
    words = "what a second `make book` took, and how many stages it executed"
    parser.add_argument("--second-run", type=float, nargs="+", metavar=("SECONDS", "STAGES"), help=words)
    parser.add_argument("--out", type=Path, default=PATH)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--overlap", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        return print(memory_of(given.memory))
    if given.overlap:
        return print(json.dumps(CASES["evaluation"](given.overlap)))
    where = environment()
    measured = {"commit": where.pop("commit"), "load before": round(os.getloadavg()[0], 1), "pairs": given.pairs}
    head = {**where, "threads": torch.get_num_threads()}
    known = json.loads(given.out.read_text()) if given.out.exists() else {}
    known = known if {k: known.get(k) for k in head} == head else {}
    rows, head = {r["what"]: r for r in known.get("rows", [])}, {**head, **{k: known.get(k, []) for k in OTHERS}}
    if given.second_run:
        taken, *stages = given.second_run
        executed = f"{stages[0]:g} stages executed" if stages else "first run"
        made = row("make book, second run, seconds", executed, 10, {"value": taken}, most=True)
        rows[made["what"]] = made | {"commit": measured["commit"]}
    write_json(given.out, {**head, "rows": list(rows.values())})
    for name in given.only:
        if name in OTHERS:
            head[name] = OTHERS[name]()
        else:
            rows |= {r["what"]: r | measured for r in CASES[name](given.pairs)}
        write_json(given.out, {**head, "rows": list(rows.values())})
        print(f"{name} is measured", flush=True)
    columns = ["what", "against", "sense", "goal", "value", "reached"]
    print(pd.DataFrame(list(rows.values()), columns=columns).to_string(index=False))


if __name__ == "__main__":
    main()
