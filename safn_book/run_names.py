"""Names of stages and runs: parsed and written here, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

AGGREGATIONS = ("attention", "max", "avg")
CONTROLS = ("maps", "saliency")  # pseudo labels from one of the two alone
DEFAULT = "default"  # the run of a stage that a profile has once, such as the data


class Stage(StrEnum):
    """A stage: one notebook, and one folder of runs. The value is the name of both."""

    DATA = "00_data"
    SALIENCY = "01_saliency"
    BASELINE = "02_baseline"
    TRAIN_SAFN = "03_train_safn"
    MAPS = "04_localization_maps"
    PSEUDO_LABELS = "05_pseudo_ground_truth"
    TRAIN_SEGMENTATION = "06_train_segmentation"
    EVALUATE = "07_evaluate"
    AGGREGATION = "08_aggregation"
    SCALES = "09_scales"
    FIGURES = "10_figures"
    COMPARISON = "11_comparison"

    @property
    def heading(self) -> str:
        """The title of its chapter, such as ``Training SAFN``."""
        return TITLES[self]


TITLES = {
    Stage.DATA: "Data",
    Stage.SALIENCY: "Saliency maps",
    Stage.BASELINE: "Baseline maps and Grad-CAM",
    Stage.TRAIN_SAFN: "Training SAFN",
    Stage.MAPS: "Localization maps",
    Stage.PSEUDO_LABELS: "Pseudo labels",
    Stage.TRAIN_SEGMENTATION: "Training the segmentation network",
    Stage.EVALUATE: "Evaluation",
    Stage.AGGREGATION: "Aggregation methods",
    Stage.SCALES: "Sets of scales",
    Stage.FIGURES: "Figures",
    Stage.COMPARISON: "Comparison",
}
# From the classifier to the mIoU of a segmentation: the stages that each run has.
CHAIN = (Stage.TRAIN_SAFN, Stage.MAPS, Stage.PSEUDO_LABELS, Stage.TRAIN_SEGMENTATION, Stage.EVALUATE)
TRAINED = (Stage.TRAIN_SAFN, Stage.TRAIN_SEGMENTATION)  # those that leave a network
COMPARING = (Stage.AGGREGATION, Stage.SCALES)  # the chapters of Tables 4 and 6
CHAPTERS = (*COMPARING, Stage.FIGURES, Stage.COMPARISON)  # all that read several runs
ONCE = (Stage.DATA, Stage.SALIENCY, Stage.BASELINE, *CHAPTERS)  # stages whose only run is DEFAULT

_CLASSIFIER = rf"(?P<aggregation>{'|'.join(AGGREGATIONS)})_(?P<scales>\d+(?:\.\d+)?(?:-\d+(?:\.\d+)?)*)"
_NAME = re.compile(
    rf"(?:{_CLASSIFIER}|(?P<supervised>masks))_seed(?P<seed>\d+)"
    rf"(?:\+(?P<control>{'|'.join(CONTROLS)}))?(?:@(?P<network>\w+-\w+))?"
)


@dataclass(frozen=True)
class RunName:
    """The name of a run: what its stages were made with.

    Attributes:
        aggregation: ``attention``, ``max`` or ``avg``. Empty for a supervised run.
        scales: image scales in (0, 2]. Empty for a supervised run.
        seed: at least 0.
        control: ``maps`` or ``saliency`` where the pseudo labels come from one of the two alone, else empty.
        network: ``<backbone>-<head>`` of a second segmentation network on the same pseudo labels, else empty.
        supervised: the segmentation learns from ground-truth masks, without a classifier.

    Example:
        >>> run = RunName.parse("attention_1-0.5_seed2+maps")
        >>> run.scales, run.seed, run.control, run.configuration, str(run.base)
        ((1.0, 0.5), 2, 'maps', 'attention_1-0.5+maps', 'attention_1-0.5_seed2')
    """

    aggregation: str = ""
    scales: tuple[float, ...] = ()
    seed: int = 0
    control: str = ""
    network: str = ""
    supervised: bool = False

    @classmethod
    def of(cls, aggregation: str, scales: Iterable[float], seed: int) -> RunName:
        """The run of a classifier."""
        return cls(aggregation, tuple(float(scale) for scale in scales), seed)

    @classmethod
    def masks(cls, seed: int) -> RunName:
        """The fully supervised run, ``masks_seed<n>``."""
        return cls(seed=seed, supervised=True)

    @classmethod
    def parse(cls, text: str) -> RunName:
        """Read a name, such as ``attention_1-0.75-0.5_seed0``, ``max_1-0.5_seed1+saliency``,
        ``attention_1_seed0@resnet101-aspp`` or ``masks_seed0``.

        Raises:
            ValueError: not a name of a run, or not the way in which it is written, with the right one.
        """
        match = _NAME.fullmatch(text)
        if not match:
            raise ValueError(
                f"{text!r} is not the name of a run, such as attention_1-0.5_seed0, attention_1-0.5_seed0+maps, "
                "attention_1-0.5_seed0@resnet101-aspp or masks_seed0"
            )
        scales = tuple(float(scale) for scale in (match["scales"] or "").split("-") if scale)
        run = cls(
            aggregation=match["aggregation"] or "",
            scales=scales,
            seed=int(match["seed"]),
            control=match["control"] or "",
            network=match["network"] or "",
            supervised=bool(match["supervised"]),
        )
        if str(run) != text:
            raise ValueError(f"{text!r} is written {str(run)!r}")
        return run

    @classmethod
    def parse_configuration(cls, text: str) -> RunName:
        """Read a name without its seed, such as ``max_1-0.5+saliency``; the seed is 0.

        Raises:
            ValueError: not the ``configuration`` of a run.
        """
        head, *tail = re.split("(?=[+@])", text, maxsplit=1)
        return cls.parse("".join([f"{head}_seed0", *tail]))

    def __post_init__(self) -> None:
        if self.supervised and (self.aggregation or self.scales or self.control):
            raise ValueError("a supervised run has no aggregation, no scales and no control")

    def __str__(self) -> str:
        head, tail = self._parts()
        return f"{head}_seed{self.seed}{tail}"

    def _parts(self) -> tuple[str, str]:
        """What stands before and after the seed."""
        head = "masks" if self.supervised else f"{self.aggregation}_{format_scales(self.scales)}"
        control = f"+{self.control}" if self.control else ""
        network = f"@{self.network}" if self.network else ""
        return head, control + network

    @property
    def configuration(self) -> str:
        """The name without its seed, which repeated runs share."""
        return "".join(self._parts())

    @property
    def base(self) -> RunName:
        """The run of the classifier and the maps, which controls and second networks share."""
        return replace(self, control="", network="")

    @property
    def words(self) -> str:
        """For people: ``attention, 3 scales, seed 0``, or ``baseline, 1 scale, seed 0``."""
        if self.supervised:
            parts = ["ground-truth masks"]
        elif len(self.scales) == 1:
            parts = ["baseline, 1 scale"]
        else:
            parts = [f"{self.aggregation}, scales {' / '.join(map(format_scale, self.scales))}"]
        if self.control:
            parts.append(f"{self.control} only")
        if self.network:
            parts.append(self.network)
        return ", ".join([*parts, f"seed {self.seed}"])

    @property
    def backbone_and_head(self) -> tuple[str, str]:
        """Of the second segmentation network."""
        backbone, _, head = self.network.partition("-")
        return backbone, head

    def at(self, stage: Stage) -> RunName:
        """The name under which a stage of this run lies: classifier and maps are those of ``base``, and all networks
        that learn from the same pseudo labels share them."""
        if stage in (Stage.TRAIN_SAFN, Stage.MAPS):
            return self.base
        if stage is Stage.PSEUDO_LABELS:
            return replace(self, network="")
        return self

    def combined(self, combine: str) -> RunName:
        """The run whose pseudo labels combine maps and saliency in this way: itself for ``harmonic``, else its control."""
        return replace(self, control="" if combine == "harmonic" else combine)

    def check_segmentation(self, backbone: str, head: str, label_source: str, seed: int) -> None:
        """Compare the name with the parameters of its segmentation.

        Raises:
            ValueError: the name says another network, other labels or another seed, each of which is listed.
        """
        problems = []
        if self.network not in ("", f"{backbone}-{head}"):
            problems.append(f"it names the network {self.network}, the parameters say {backbone}-{head}")
        if self.supervised != (label_source == "masks"):
            problems.append(f"label_source is {label_source!r}, and masks_seed<n> is the name for ground-truth masks")
        if self.seed != seed:
            problems.append(f"it names the seed {self.seed}, the parameter is {seed}")
        if problems:
            raise ValueError("\n  - ".join([f"run {str(self)!r} contradicts its parameters:", *problems]))


def stage_and_run(name: str) -> tuple[Stage, str]:
    """Stage and run of ``<stage>/<run>``, as records name their inputs, or of a path that begins with them.

    Raises:
        ValueError: no such stage, or no run.
    """
    stage, run, *_ = name.split("/")
    return Stage(stage), run


def without_seeds(text: str) -> str:
    """A text without the seeds of the runs that it names, so that repeated runs have the same."""
    return re.sub(r"_seed\d+", "", text)


def format_scales(scales: Iterable[float]) -> str:
    """Scales as names hold them, such as ``1-0.75-0.5``."""
    return "-".join(format_scale(scale) for scale in scales)


def format_scale(scale: float) -> str:
    """A scale in decimal digits, as few as distinguish it: ``1``, ``0.75``, ``0.00001``."""
    text = format(Decimal(repr(float(scale))), "f")
    return text.rstrip("0").rstrip(".")
