"""Brings recorded results to the names of this version, once, and proves that no number changed.

    python -m benchmarks.migrate_results results/evidence.json            rewrites the file
    python -m benchmarks.migrate_results --compare OLD.json NEW.json      counts equal, different and missing numbers

What is renamed: the keys in ``RENAMED``. The keys of ``by_size`` become full configurations ("max" becomes
"max_1-0.75-0.5"). In ``differences`` the text "a - b" becomes ``first`` and ``second``, the sentence becomes a verdict,
and the differences of the seeds, once printed with one digit, become a list in full precision, computed from the
metrics of the same file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MEASURES = {
    "maps": "maps",
    "pseudo ground truth, 255 as background": "pseudo_background",
    "pseudo ground truth, 255 as wrong": "pseudo_wrong",
    "segmentation, single scale": "segmentation_single",
    "segmentation, multiple scales": "segmentation_multi",
    "segmentation, multiple scales + CRF": "segmentation_crf",
}
METRICS = {
    "maps": "map_miou",
    "pseudo_background": "pseudo_miou_background",
    "segmentation_single": "val_miou_single",
    "segmentation_multi": "val_miou_multi",
    "segmentation_crf": "val_miou_crf",
}
RENAMED = {
    **MEASURES,
    "images from": "images_from",
    "images to": "images_to",
    "all from": "all_from",
    "all to": "all_to",
    "each seed": "seeds",
    "95 % from": "from",
    "rank correlation with size": "correlation",
    "more than learned": "difference",
    "as it is": "pseudo labels",
    "true foreground, classes of the maps": "ground-truth foreground",
    "foreground of the saliency, true classes": "ground-truth classes",
}
TABLES = ("correlations", "replaced")
Record = dict[str, Any]
Path_ = tuple[Any, ...]


# --- rewriting -------------------------------------------------------------------------------------------------------


def migrate(records: list[Record]) -> list[Record]:
    """The records with the names of this version. Records that have these names already stay as they are."""
    metrics = metrics_by_run(records)
    return [migrate_record(record, metrics) for record in records]


def migrate_record(record: Record, metrics: dict[str, Record]) -> Record:
    """One record: only stage 05 and chapters 08 and 09 change."""
    changed = dict(record)
    if "limits" in record:
        changed["limits"] = {RENAMED.get(name, name): value for name, value in record["limits"].items()}
    if "differences" in record:
        changed["differences"] = [migrate_difference(row, record, metrics) for row in record["differences"]]
    if "by_size" in record:
        changed["by_size"] = {
            RENAMED.get(measure, measure): {configuration_of(name, record): values for name, values in groups.items()}
            for measure, groups in record["by_size"].items()
        }
    for table in TABLES:
        if table in record:
            changed[table] = [migrate_row(row) for row in record[table]]
    return changed


def migrate_difference(row: Record, record: Record, metrics: dict[str, Record]) -> Record:
    """One row of ``differences``."""
    if "verdict" in row:
        return row
    first, second = row["difference"].split(" - ")
    measure = MEASURES[row["measure"]]
    pair = configuration_of(first, record), configuration_of(second, record)
    return {
        "measure": measure,
        "first": pair[0],
        "second": pair[1],
        "points": row["points"],
        "seeds": seed_differences(row, record, metrics, METRICS[measure], pair),
        "images_from": row["images from"],
        "images_to": row["images to"],
        "all_from": row["all from"],
        "all_to": row["all to"],
        "verdict": verdict(row["what can be told"], first),
    }


def migrate_row(row: Record) -> Record:
    """One row of ``correlations`` or ``replaced``."""
    changed = {RENAMED.get(key, key): value for key, value in row.items()}
    if "correlation" in changed:
        changed["scale"] = changed["scale"].removeprefix("weight ")
    return changed


def verdict(sentence: str, first: str) -> str:
    """The verdict on ``first`` that a recorded sentence stands for."""
    if sentence == "nothing":
        return "undecided"
    if sentence == "nothing: fewer than three seeds":
        return "too_few_seeds"
    if sentence == "nothing: trained on unlike machines":
        return "different_machines"
    better, separator, _ = sentence.partition(" is better")
    if not separator:
        raise ValueError(f"no verdict is known for {sentence!r}")
    return "better" if better == first else "worse"


def configuration_of(name: str, record: Record) -> str:
    """The configuration among a chapter's experiments that has this aggregation or these scales."""
    known = dict.fromkeys(run.rsplit("_seed", 1)[0] for run in record["parameters"]["experiments"])
    matching = [configuration for configuration in known if name in (configuration, *configuration.split("_"))]
    if len(matching) != 1:
        raise ValueError(f"{name!r} is not one of the configurations {', '.join(known)}")
    return matching[0]


def seed_differences(
    row: Record, record: Record, metrics: dict[str, Record], metric: str, pair: tuple[str, str]
) -> list[float]:
    """Points of ``pair[0]`` minus ``pair[1]`` for each seed that both have, in the order of the experiments.

    Raises:
        ValueError: they are not those that the row printed, or their mean is not its ``points``.
    """
    order = [run.rsplit("_seed", 1) for run in record["parameters"]["experiments"]]
    values = []
    for seed in [seed for configuration, seed in order if configuration == pair[0]]:
        one, other = (metrics.get(f"{configuration}_seed{seed}", {}).get(metric) for configuration in pair)
        if one is not None and other is not None:
            values.append(100 * one - 100 * other)
    printed = ", ".join(f"{value:+.1f}" for value in values)
    if printed != row["each seed"] or abs(sum(values) / len(values) - row["points"]) > 1e-9:
        raise ValueError(f"{row}: the metrics give {printed}")
    return values


def metrics_by_run(records: list[Record]) -> dict[str, Record]:
    """Run -> the metrics of all its stages."""
    metrics: dict[str, Record] = {}
    for record in records:
        metrics.setdefault(record.get("run", ""), {}).update(record.get("metrics", {}))
    return metrics


# --- the proof -------------------------------------------------------------------------------------------------------


def compare(old: Any, new: Any) -> tuple[Counter[str], list[str]]:
    """Counts of equal, different, missing and added numbers (nulls included), and a line for each that is not equal.

    ``printed`` counts the differences of seeds that agree with the one digit that was printed before.
    """
    before = {renamed(path, old): value for path, value in numbers(old)}
    after = dict(numbers(new))
    counts: Counter[str] = Counter(equal=0, printed=0, different=0, missing=0, added=0)
    lines = []
    for path in [*before, *(path for path in after if path not in before)]:
        outcome = outcome_of(path, before, after)
        counts[outcome] += 1
        if outcome not in ("equal", "printed"):
            lines.append(f"{outcome}: {'/'.join(map(str, path))}: {before.get(path)} and {after.get(path)}")
    return counts, lines


def outcome_of(path: Path_, before: dict[Path_, Any], after: dict[Path_, Any]) -> str:
    """How the number of one place fared."""
    if path not in after:
        return "missing"
    if path not in before:
        return "added"
    one, other = before[path], after[path]
    if isinstance(one, str):
        return "printed" if f"{other:+.1f}" == one else "different"
    return "equal" if one == other and type(one) is type(other) else "different"


def numbers(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every number, truth value and null of a document with its path. Numbers printed for each seed come as text."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from numbers(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from numbers(part, (*path, index))
    elif path[-1:] == ("each seed",):
        for index, part in enumerate(value.split(", ")):
            yield (*path, index), part
    elif not isinstance(value, str):
        yield path, value


def renamed(path: Path_, old: Any) -> Path_:
    """The path of an old number in the new document."""
    if not isinstance(old, list):
        return path
    if len(path) > 4 and path[1] == "by_size":
        index, chapter, measure, name, *rest = path
        return (index, chapter, RENAMED.get(measure, measure), configuration_of(name, old[index]), *rest)
    if len(path) > 1 and path[1] in ("differences", "limits", *TABLES):
        return tuple(RENAMED.get(part, part) for part in path)
    return path


def main() -> None:
    """Rewrite files, or compare two."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.migrate_results", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="results/<name>.json")
    parser.add_argument("--compare", action="store_true", help="compare two files instead, the old one first")
    given = parser.parse_args()
    if given.compare:
        old, new = (json.loads(path.read_text()) for path in given.files)
        counts, lines = compare(old, new)
        print(", ".join(f"{outcome} {count}" for outcome, count in counts.items()), *lines, sep="\n")
        sys.exit(bool(lines))
    for path in given.files:
        path.write_text(json.dumps(migrate(json.loads(path.read_text())), indent=1) + "\n")


if __name__ == "__main__":
    main()
