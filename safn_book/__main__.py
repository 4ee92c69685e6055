"""Commands: ``python -m safn COMMAND --help``. Each checks what it is given, and says every problem, before it works."""

from __future__ import annotations

import argparse
import sys
from json import JSONDecodeError
from pathlib import Path

from benchmarks import paper_networks, rescore
from safn import inference
from safn.data import DataError, VOCFolder
from safn.datasets import own_images, voc, voc_server
from safn_book import archive, evidence, predicting
from safn_book.settings import SettingsError, parse_scales
from safn_book.stages import StageError


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    given = _parser().parse_args(arguments)
    try:
        return given.call(given) or 0
    except (DataError, SettingsError, StageError, OSError, UnicodeDecodeError, JSONDecodeError) as error:
        print(f"python -m safn: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m safn", description="Scale-Aware Feature Networks")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, call, **positional: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        for argument, said in positional.items():
            added.add_argument(argument, help=said)
        added.set_defaults(call=call)
        return added

    command("verify", "print every problem of a data folder in the VOC layout", lambda g: verify(g.folder),
            folder="holds VOCdevkit/VOC2012 and image_labels.csv")  # fmt: skip
    added = command("voc", "complete a download of VOC 2012 and SBD to the layout",
                    lambda g: voc.prepare(g.folder, g.download) or verify(g.folder),
                    folder="what torchvision calls root; SBD in its folder sbd")  # fmt: skip
    added.add_argument("--download", action="store_true", help="fetch both archives first")
    added = command("export", "write the records of all stages into one JSON file, the counts of each image and a figure beside it",
                    _export,
                    runs="runs/<profile>", file="to write, such as results/<profile>.json")  # fmt: skip
    added.add_argument("--add", action="store_true", help="keep the runs of the file that this folder does not have")
    command("restore", "lay exported runs out in a folder of runs: records and counts, to compare and to go on with",
            lambda g: print(*archive.restore(Path(g.file), g.runs), "are restored", sep="\n"),
            file="results/<profile>.json", runs="runs/<profile>")  # fmt: skip
    added = command("rescore", "score a recorded run once more, from the files of its stages", _rescore,
                    runs="runs/<profile>", run="such as attention_1-0.75-0.5_seed0")  # fmt: skip
    added.add_argument(
        "--within", type=float, default=1e-4, help="the largest difference that is none, 0.0001 unless given"
    )
    added = command("photos", "lay your own images and their labels out as a data folder", _photos,
                    images="folder of images", labels="CSV: id,<class>,..., a row of 0 and 1 an image",
                    out="the data folder to make")  # fmt: skip
    added.add_argument("--val-share", type=float, default=0.1, help="share kept for validation, 0.1 unless given")
    added = command("predict", "masks of a folder of images by a trained run", _predict,
                    run="runs/<profile>/06_train_segmentation/<run>", images="folder of images",
                    out="for masks: multi/<id>.png, crf/<id>.png")  # fmt: skip
    added.add_argument("--ids", help="a file of ids, to predict these images only")
    added.add_argument("--crf", action="store_true", help="refine the masks with the dense CRF as well")
    added.add_argument("--largest", type=int, help="long side in pixels to which larger photos are shrunk first (0: never), the "
                       "largest of the training unless given")  # fmt: skip
    added.add_argument("--scales", default=inference.TEST_SCALES, type=_scales,
                       help='of the multi-scale test, "[0.5,0.75,1,1.25,1.5]" unless given')  # fmt: skip
    command("archive", "the tar.gz of test predictions for the VOC evaluation server", _archive,
            predictions="folder of <id>.png", data="what torchvision calls root", out="such as safn.tar.gz")  # fmt: skip
    added = command("smoke", "two real steps of every network of the paper's profile: memory, time, estimate",
                    lambda g: paper_networks.run(g.profile, Path(g.out), g.steps))  # fmt: skip
    added.add_argument("--profile", default="paper", help="a file in profiles/")
    added.add_argument("--out", default=str(paper_networks.PATH), help="JSON file to write")
    added.add_argument("--steps", type=int, default=2, help="training steps of each network")
    return parser


def _scales(text: str) -> tuple[float, ...]:
    try:
        return parse_scales(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; valid: {parse_scales.valid}") from None


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


def _photos(given: argparse.Namespace) -> None:
    lists = own_images.prepare(given.images, given.labels, given.out, given.val_share)
    print(f"{given.out}: {', '.join(f'{split} {len(ids)} images' for split, ids in lists.items())}. Next:")
    print(f"make book PROFILE=photos DATA={given.out}")


def _export(given: argparse.Namespace) -> None:
    if left_out := archive.export(given.runs, Path(given.file), given.add):
        print(
            "left out, for they were made from other files than those beside them, or miss some of the runs:",
            *left_out,
            sep="\n",
        )
    evidence.draw(Path(given.file))


def _rescore(given: argparse.Namespace) -> int:
    table = rescore.rescore(given.runs, given.run)
    lost = table["now"].isna() & table["recorded"].notna()  # such as those of masks that are gone
    differs = (table["by"].abs() > given.within) | lost | table["now"].astype(str).str.startswith("changed")
    print(table.to_string(index=False, na_rep="", float_format="{:.4f}".format))
    print(f"{differs.sum()} of {len(table)} differ")
    return int(differs.any())


def _predict(given: argparse.Namespace) -> None:
    only = Path(given.ids).read_text().split() if given.ids else None
    made = predicting.predict_folder(
        given.run, given.images, given.out, given.scales, given.crf, only, largest=given.largest
    )
    print(f"{made}: {len(list(made.glob('*.png')))} masks")


def _archive(given: argparse.Namespace) -> None:
    print(f"{given.out}: {voc_server.of_test_set(Path(given.predictions), Path(given.data), Path(given.out))} masks")


if __name__ == "__main__":
    sys.exit(main())
