"""Is anything lost when `make book` is killed? Run it undisturbed, run it again under kills, compare all metrics.

    python -m benchmarks.kills --kills 20 --profile emoji

Each kill is SIGKILL to the whole process group at a random moment, followed by the same command. The runs
and the kills so far stay in ``runs/kills-<profile>``: stopped, the script goes on where it was. It takes somewhat more
than twice the time of the profile.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from safn.files import write_json
from safn_book.environment import environment
from safn_book.records import RECORD

ROOT = Path(__file__).resolve().parent.parent
MEASURED = ("seconds", "peak_megabytes")  # what no run repeats


def start(profile: str, runs: Path, options: list[str]) -> subprocess.Popen:
    """`make book` in a process group of its own, with the Python that runs this script; output goes to ``<runs>.log``."""
    command = ["make", "book", f"RUN={sys.executable}", "INSTALLED=", f"PROFILE={profile}", f"RUNS={runs}", *options]
    with runs.with_suffix(".log").open("a") as log:
        return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=log, stderr=subprocess.STDOUT)


def records(runs: Path) -> dict[str, dict[str, Any]]:
    """``<stage>/<run>`` -> record of each finished stage."""
    return {f"{p.parts[-3]}/{p.parts[-2]}": json.loads(p.read_text()) for p in sorted(runs.glob(f"[01]*/*/{RECORD}"))}


def at_work(runs: Path) -> list[str]:
    """The stages that have begun and are not finished; ``book`` where all are."""
    begun = [f"{p.parent.name}/{p.name.removesuffix('.partial')}" for p in sorted(runs.glob("[01]*/*.partial"))]
    executing = sorted(runs.glob("executed/*/*.partial.ipynb"))
    executing = [f"{p.parent.name}/{p.name.removesuffix('.partial.ipynb')}" for p in executing]
    return sorted({*begun, *executing}) or ["between stages"]


def undisturbed(profile: str, runs: Path, options: list[str]) -> None:
    """Run to the end.

    Raises:
        SystemExit: the book was not built.
    """
    if start(profile, runs, options).wait():
        sys.exit(f"the undisturbed run failed: see {runs.with_suffix('.log')}")


def killed(folder: Path, profile: str, options: list[str], wanted: int, mean: float, until: float) -> list[dict]:
    """Run again and again, killed after a random time, until ``wanted`` kills are there, and then to the end.

    A run that ends before the last kill is followed by another one from the beginning, ``killed-2`` and so on.

    Returns:
        each kill: in which run, after how many seconds, what was at work, how many stages were finished.

    Raises:
        SystemExit: a run failed without a kill, or the time is over.
    """
    state = folder / "kills.json"
    kills = json.loads(state.read_text()) if state.exists() else []
    while time.time() < until:
        number = 1 + len(list(folder.glob("killed-*/book.built")))
        runs = folder / f"killed-{number}"
        if len(kills) >= wanted and not runs.exists():
            return kills
        process, begun = start(profile, runs, options), time.time()
        pause = random.uniform(0.2, 1.8) * mean if len(kills) < wanted else until - time.time()
        try:
            if process.wait(pause):
                sys.exit(f"a run failed without a kill: see {runs.with_suffix('.log')}")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            seconds = round(time.time() - begun, 1)
            kill = {"run": number, "seconds": seconds, "at work": at_work(runs), "finished": len(records(runs))}
            kills.append(kill)
            write_json(state, kills)
            print(f"kill {len(kills)}: {kill}", flush=True)
    sys.exit(f"{len(kills)} kills so far: the same command goes on")


def plain(value: Any) -> Any:
    """Without the numbers that no run repeats."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if not k.startswith(MEASURED)}
    return value


def differences(expected: dict[str, dict], found: dict[str, dict]) -> list[str]:
    """Every metric of every record that is not the same to the last digit, and every record that only one run has."""
    lines = [f"{name}: only in one run" for name in sorted(expected.keys() ^ found.keys())]
    for name in sorted(expected.keys() & found.keys()):
        for key in ("metrics", "per_class"):
            one, other = (plain(records.get(key) or {}) for records in (expected[name], found[name]))
            lines += [
                f"{name}: {key} {k} is {other.get(k)}, undisturbed {one.get(k)}"
                for k in sorted(one.keys() | other.keys())
                if one.get(k) != other.get(k)
            ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--profile", default="emoji", help="a name in profiles/, or a YAML file")
    parser.add_argument("--data", default="", help="the folder with the photographs, where the profile needs one")
    parser.add_argument("--jobs", default="all", help="cores to use")
    parser.add_argument("--mean", type=float, default=0, help="mean seconds to a kill (0: by the time of the profile)")
    parser.add_argument("--against", type=Path, help="a finished run of the same profile (none: one is made first)")
    parser.add_argument("--folder", type=Path, help="where the runs stay, runs/kills-<profile> unless given")
    parser.add_argument("--minutes", type=float, default=600, help="stop after so many; the same command goes on")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "kills.json")
    given = parser.parse_args()
    until = time.time() + 60 * given.minutes
    folder = (given.folder or ROOT / "runs" / f"kills-{Path(given.profile).stem}").resolve()
    options = [f"JOBS={given.jobs}", f"DATA={given.data}"]
    folder.mkdir(parents=True, exist_ok=True)
    if not given.against:
        undisturbed(given.profile, folder / "undisturbed", options)
    expected = records(given.against or folder / "undisturbed")
    seconds = sum(record["seconds"] for record in expected.values())
    mean = given.mean or max(15, 0.75 * seconds / given.kills)
    kills = killed(folder, given.profile, options, given.kills, mean, until)
    found = {path.name: records(path) for path in sorted(folder.glob("killed-*")) if path.is_dir()}
    pairs = [(record, expected[name]) for one in found.values() for name, record in one.items() if name in expected]
    result = {
        "profile": Path(given.profile).stem,
        "undisturbed seconds": round(seconds),
        "kills": kills,
        "records compared": len(pairs),
        "metrics compared": sum(len(plain(one["metrics"])) for one, _ in pairs),
        "folders with the same bytes": sum(one["fingerprint"] == other["fingerprint"] for one, other in pairs),
        "differences": {name: differences(expected, one) for name, one in found.items()},
        **environment(),
    }
    given.out.parent.mkdir(exist_ok=True)
    write_json(given.out, result)
    print(pd.DataFrame(kills).to_string())
    print(pd.Series({k: result[k] for k in result if "compared" in k or "bytes" in k}).to_string())
    different = [f"{name}: {line}" for name, lines in result["differences"].items() for line in lines]
    sys.exit("\n".join(different) or 0)


if __name__ == "__main__":
    main()
