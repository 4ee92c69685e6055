"""Commands of the book: ``python -m safn_book COMMAND --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from json import JSONDecodeError
from pathlib import Path

from safn.files import DataError
from safn_book import archive, charts, conclusions
from safn_book.settings import SettingsError
from safn_book.stages import StageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m safn_book", description="Scale-Aware Feature Networks, the book")
    commands = parser.add_subparsers(dest="command", required=True)
    words = "write the records of all stages into one JSON file, and a figure beside it"
    export = commands.add_parser("export", help=words)
    export.add_argument("runs", help="runs/<profile>")
    export.add_argument("file", type=Path, help="to write, such as results/<profile>.json")
    export.add_argument("--add", action="store_true", help="keep the runs of the file that this folder does not have")
    words = "lay exported runs out in a folder of runs, to compare and to go on with"
    restore = commands.add_parser("restore", help=words)
    restore.add_argument("file", type=Path, help="results/<profile>.json")
    restore.add_argument("runs", help="runs/<profile>")
    given = parser.parse_args(arguments)
    try:
        if given.command == "export":
            _export(given.runs, given.file, given.add)
        else:
            print(*archive.restore(given.file, given.runs), "are restored", sep="\n")
    except (DataError, SettingsError, StageError, OSError, UnicodeDecodeError, JSONDecodeError) as error:
        print(f"python -m safn_book: {error}", file=sys.stderr)
        return 1
    return 0


def _export(runs: str, file: Path, add: bool) -> None:
    left_out = archive.export(runs, file, add)
    if left_out:
        print("left out: made from other files than those beside them, or without some of the runs that they compare:")
        print(*left_out, sep="\n")
    differences = conclusions.differences_table(archive.read(file))
    if len(differences):
        charts.save(charts.differences(differences), file.with_suffix(".svg"))


if __name__ == "__main__":
    sys.exit(main())
