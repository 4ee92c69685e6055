"""Commands of the book: ``python -m safn_book COMMAND --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from json import JSONDecodeError
from pathlib import Path

from safn.data import DataError
from safn_book import archive
from safn_book.settings import SettingsError
from safn_book.stages import StageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    given = _parser().parse_args(arguments)
    try:
        return given.call(given)
    except (DataError, SettingsError, StageError, OSError, UnicodeDecodeError, JSONDecodeError) as error:
        print(f"python -m safn_book: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m safn_book", description="Scale-Aware Feature Networks, the book")
    commands = parser.add_subparsers(dest="command", required=True)

    export = commands.add_parser(
        "export", help="write the records of all stages into one JSON file, and a figure beside it"
    )
    export.add_argument("runs", help="runs/<profile>")
    export.add_argument("file", type=Path, help="to write, such as results/<profile>.json")
    export.add_argument("--add", action="store_true", help="keep the runs of the file that this folder does not have")
    export.set_defaults(call=_export)

    restore = commands.add_parser(
        "restore", help="lay exported runs out in a folder of runs, to compare and to go on with"
    )
    restore.add_argument("file", type=Path, help="results/<profile>.json")
    restore.add_argument("runs", help="runs/<profile>")
    restore.set_defaults(call=_restore)

    rescore = commands.add_parser("rescore", help="score a recorded run once more, from the files of its stages")
    rescore.add_argument("runs", help="runs/<profile>")
    rescore.add_argument("run", help="such as attention_1-0.75-0.5_seed0")
    rescore.add_argument(
        "--within", type=float, default=1e-4, help="the largest difference that counts as none: 0.0001"
    )
    rescore.set_defaults(call=_rescore)

    smoke = commands.add_parser("smoke", help="two real steps of every network of the paper's profile: memory, time")
    smoke.add_argument("--profile", default="paper", help="a file in profiles/")
    smoke.add_argument("--out", type=Path, help="JSON file to write: results/smoke.json")
    smoke.add_argument("--steps", type=int, default=2, help="training steps of each network")
    smoke.set_defaults(call=_smoke)
    return parser


def _export(given: argparse.Namespace) -> int:
    from safn_book import evidence

    left_out = archive.export(given.runs, given.file, given.add)
    if left_out:
        print("left out: made from other files than those beside them, or without some of the runs that they compare:")
        print(*left_out, sep="\n")
    evidence.draw(given.file)
    return 0


def _restore(given: argparse.Namespace) -> int:
    print(*archive.restore(given.file, given.runs), "are restored", sep="\n")
    return 0


def _rescore(given: argparse.Namespace) -> int:
    from benchmarks import rescore

    table = rescore.rescore(given.runs, given.run)
    lost = table["now"].isna() & table["recorded"].notna()  # such as those of masks that are gone
    changed = table["now"].astype(str).str.startswith("changed")
    differs = (table["by"].abs() > given.within) | lost | changed
    print(table.to_string(index=False, na_rep="", float_format="{:.4f}".format))
    print(f"{differs.sum()} of {len(table)} differ")
    return int(differs.any())


def _smoke(given: argparse.Namespace) -> int:
    from benchmarks import paper_networks

    paper_networks.run(given.profile, given.out or paper_networks.PATH, given.steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
