"""Commands: ``python -m safn verify DIR`` names every problem of a data folder before any work starts;
``python -m safn voc DIR --download`` makes one from VOC 2012 and SBD; ``python -m safn export RUNS FILE`` writes the
records of all stages into one file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from safn import results, voc
from safn.data import DataError, VOCFolder


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m safn", description="Scale-Aware Feature Networks")
    commands = parser.add_subparsers(dest="command", required=True)
    checker = commands.add_parser("verify", help="print every problem of a data folder in the VOC layout")
    checker.add_argument("folder", help="holds VOCdevkit/VOC2012 and image_labels.csv")
    maker = commands.add_parser("voc", help="complete a download of VOC 2012 and SBD to the layout")
    maker.add_argument("folder", help="what torchvision calls root; SBD in its folder sbd")
    maker.add_argument("--download", action="store_true", help="fetch both archives first")
    exporter = commands.add_parser("export", help="write the records of all stages into one JSON file")
    exporter.add_argument("runs", help="runs/<profile>")
    exporter.add_argument("file")
    given = parser.parse_args(arguments)
    try:
        if given.command == "voc":
            return voc.prepare(given.folder, given.download) or verify(given.folder)
        if given.command == "export":
            return results.export(given.runs, Path(given.file)) or 0
        return verify(given.folder)
    except (DataError, OSError, UnicodeDecodeError) as error:
        print(f"python -m safn: {error}", file=sys.stderr)
        return 1


def verify(root: str) -> int:
    """Print every problem of a data folder, one a line, or its counts; returns 1 where there is a problem."""
    folder = VOCFolder(root)
    problems = folder.verify()
    if problems:
        print(*problems, sep="\n")
        return 1
    ids = {split: folder.ids(split) for split in ("train_aug", "val")}
    counts = [
        f"{split} {len(of)} images ({sum(map(bool, map(folder.mask_path, of)))} masks)" for split, of in ids.items()
    ]
    print(f"no problem found: {', '.join(counts)}, {len(folder.classes)} classes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
