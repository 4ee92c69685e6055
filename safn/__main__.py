"""Commands: ``python -m safn verify DIR`` names every problem of a data folder before any work starts."""

from __future__ import annotations

import argparse
import sys

from safn.data import DataError, VOCFolder


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m safn", description="Scale-Aware Feature Networks")
    commands = parser.add_subparsers(dest="command", required=True)
    checker = commands.add_parser("verify", help="print every problem of a data folder in the VOC layout")
    checker.add_argument("folder", help="holds VOCdevkit/VOC2012 and image_labels.csv")
    try:
        return verify(parser.parse_args(arguments).folder)
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
