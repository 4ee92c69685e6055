"""Commands of the book: ``python -m safn_book COMMAND --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from json import JSONDecodeError
from pathlib import Path

from safn.data import DataError
from safn_book import archive, charts, conclusions
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

    return parser


def _export(given: argparse.Namespace) -> int:
    left_out = archive.export(given.runs, given.file, given.add)
    if left_out:
        print("left out: made from other files than those beside them, or without some of the runs that they compare:")
        print(*left_out, sep="\n")
    differences = conclusions.differences_table(archive.read(given.file))
    if len(differences):
        charts.save(charts.differences(differences), given.file.with_suffix(".svg"))
    return 0


def _restore(given: argparse.Namespace) -> int:
    print(*archive.restore(given.file, given.runs), "are restored", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
