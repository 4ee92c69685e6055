"""Commands: ``python -m safn_book COMMAND --help``. Each checks what it is given, and says every problem, before it works."""

from __future__ import annotations

import argparse
import sys
from json import JSONDecodeError
from pathlib import Path

from safn.data import DataError
from safn_book import archive, charts, results
from safn_book.settings import SettingsError
from safn_book.stages import StageError


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    given = _parser().parse_args(arguments)
    try:
        return given.call(given) or 0
    except (DataError, SettingsError, StageError, OSError, UnicodeDecodeError, JSONDecodeError) as error:
        print(f"python -m safn_book: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m safn_book", description="Scale-Aware Feature Networks")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, call, **positional: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        for argument, said in positional.items():
            added.add_argument(argument, help=said)
        added.set_defaults(call=call)
        return added

    added = command("export", "write the records of all stages into one JSON file, the counts of each image and a figure beside it",
                    _export,
                    runs="runs/<profile>", file="to write, such as results/<profile>.json")  # fmt: skip
    added.add_argument("--add", action="store_true", help="keep the runs of the file that this folder does not have")
    command("restore", "lay exported runs out in a folder of runs: records and counts, to compare and to go on with",
            lambda g: print(*archive.restore(Path(g.file), g.runs), "are restored", sep="\n"),
            file="results/<profile>.json", runs="runs/<profile>")  # fmt: skip
    return parser


def _export(given: argparse.Namespace) -> None:
    if left_out := archive.export(given.runs, Path(given.file), given.add):
        print(
            "left out, for they were made from other files than those beside them, or miss some of the runs:",
            *left_out,
            sep="\n",
        )
    differences = results.differences_table(results.load(given.file))
    if len(differences):
        charts.save(charts.differences(differences), Path(given.file).with_suffix(".svg"))


if __name__ == "__main__":
    sys.exit(main())
