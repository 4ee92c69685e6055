"""Commands of the book: ``python -m safn_book COMMAND --help``."""

import argparse
import sys
from collections.abc import Sequence
from json import JSONDecodeError
from pathlib import Path

from safn.files import DataError
from safn_book import archive


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m safn_book", description="Scale-Aware Feature Networks, the book")
    commands = parser.add_subparsers(dest="command", required=True)
    words = "write the records of all stages into one JSON file, and the counts of each image beside it"
    export = commands.add_parser("export", help=words)
    export.add_argument("runs", help="runs/<profile>")
    export.add_argument("file", type=Path, help="to write, such as results/<profile>.json")
    words = "lay exported runs out in a folder of runs, to compare and to go on with"
    restore = commands.add_parser("restore", help=words)
    restore.add_argument("file", type=Path, help="results/<profile>.json")
    restore.add_argument("runs", help="runs/<profile>")
    given = parser.parse_args(arguments)
    try:
        if given.command == "export":
            left_out = archive.export(given.runs, given.file)
            if left_out:
                print("left out: made from other files than those beside them:", *left_out, sep="\n")
        else:
            print(*archive.restore(given.file, given.runs), "are restored", sep="\n")
    except (DataError, OSError, UnicodeDecodeError, JSONDecodeError) as error:
        print(f"python -m safn_book: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
