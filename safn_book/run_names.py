"""Names of stages and runs: parsed and written here, and nowhere else."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Literal, Self, get_args

AGGREGATIONS = ("attention", "max", "avg")
Control = Literal["maps", "saliency"]  # pseudo labels from one of the two alone
CONTROLS = get_args(Control)
DEFAULT = "default"  # the run of a stage that a profile has once, such as the data


class Stage(StrEnum):
    """A stage: one notebook, and one folder of runs. The value is the name of both, the heading the title of its chapter."""

    heading: str

    DATA = "00_data", "Data"
    SALIENCY = "01_saliency", "Saliency maps"
    BASELINE = "02_baseline", "Baseline maps and Grad-CAM"
    TRAIN_SAFN = "03_train_safn", "Training SAFN"
    MAPS = "04_localization_maps", "Localization maps"
    PSEUDO_LABELS = "05_pseudo_ground_truth", "Pseudo labels"
    TRAIN_SEGMENTATION = "06_train_segmentation", "Training the segmentation network"
    EVALUATE = "07_evaluate", "Evaluation"
    AGGREGATION = "08_aggregation", "Aggregation methods"
    SCALES = "09_scales", "Sets of scales"
    FIGURES = "10_figures", "Figures"
    COMPARISON = "11_comparison", "Comparison"

    def __new__(cls, value: str, heading: str = "") -> Self:
        stage = str.__new__(cls, value)
        stage._value_, stage.heading = value, heading
        return stage


# From the classifier to the mIoU of a segmentation: the stages that each run has.
CHAIN = (Stage.TRAIN_SAFN, Stage.MAPS, Stage.PSEUDO_LABELS, Stage.TRAIN_SEGMENTATION, Stage.EVALUATE)
TRAINED = (Stage.TRAIN_SAFN, Stage.TRAIN_SEGMENTATION)  # those that leave a network
COMPARING = (Stage.AGGREGATION, Stage.SCALES)  # the chapters of Tables 4 and 6
CHAPTERS = (*COMPARING, Stage.FIGURES, Stage.COMPARISON)  # all that read several runs

_CLASSIFIER = rf"(?P<aggregation>{'|'.join(AGGREGATIONS)})_(?P<scales>\d+(?:\.\d+)?(?:-\d+(?:\.\d+)?)*)"
_NAME = re.compile(
    rf"(?:{_CLASSIFIER}|(?P<supervised>masks))(?:_seed(?P<seed>\d+))?"
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
    def parse(cls, text: str, seedless: bool = False) -> Self:
        """Read a name, or where ``seedless`` the ``configuration`` of one, whose seed is 0.

        Raises:
            ValueError: not a name of a run, or not the way in which it is written, with the right one.
        """
        match = _NAME.fullmatch(text)
        if not match:
            examples = "attention_1-0.5_seed0, attention_1-0.5_seed0+maps, masks_seed0@resnet101-aspp"
            raise ValueError(f"{text!r} is not the name of a run, such as {examples}")
        parts = match.groupdict(default="")
        scales = tuple(float(scale) for scale in parts["scales"].split("-") if scale)
        seed, supervised = int(parts["seed"] or 0), bool(parts["supervised"])
        run = cls(parts["aggregation"], scales, seed, parts["control"], parts["network"], supervised)
        written = run.configuration if seedless else str(run)
        if written != text:
            raise ValueError(f"{text!r} is written {written!r}")
        return run

    def __post_init__(self) -> None:
        if self.supervised and (self.aggregation or self.scales or self.control):
            raise ValueError("a supervised run has no aggregation, no scales and no control")

    def __str__(self) -> str:
        head = "masks" if self.supervised else f"{self.aggregation}_{format_scales(self.scales)}"
        control = f"+{self.control}" if self.control else ""
        network = f"@{self.network}" if self.network else ""
        return f"{head}_seed{self.seed}{control}{network}"

    @property
    def configuration(self) -> str:
        """The name without its seed, which repeated runs share."""
        return without_seeds(str(self))

    @property
    def base(self) -> Self:
        """The run of the classifier and the maps, which controls and second networks share."""
        return replace(self, control="", network="")

    @property
    def words(self) -> str:
        """The run in words, ``attention, scales 1 / 0.5, seed 0``, or ``baseline, 1 scale, seed 0``."""
        what = f"{self.aggregation}, scales {format_scales(self.scales, ' / ')}"
        if self.supervised:
            what = "ground-truth masks"
        elif len(self.scales) == 1:
            what = "baseline, 1 scale"
        control = f"{self.control} only" if self.control else ""
        return ", ".join(filter(None, [what, control, self.network, f"seed {self.seed}"]))

    def at(self, stage: Stage) -> Self:
        """The name under which a stage of this run lies: classifier and maps are those of ``base``, and all networks
        that learn from the same pseudo labels share them."""
        if stage in (Stage.TRAIN_SAFN, Stage.MAPS):
            return self.base
        return replace(self, network="") if stage is Stage.PSEUDO_LABELS else self

    def combined(self, combine: str) -> Self:
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
    """Stage and run of ``<stage>/<run>``, as records name their inputs, or of a path that begins with them."""
    stage, run, *_ = name.split("/")
    return Stage(stage), run


def without_seeds(text: str) -> str:
    """A text without the seeds of the runs that it names, so that repeated runs have the same."""
    return re.sub(r"_seed\d+", "", text)


def format_scales(scales: Iterable[float], between: str = "-") -> str:
    """Scales in decimal digits, as few as distinguish them, such as ``1-0.75-0.00001``."""
    texts = [format(Decimal(repr(float(scale))), "f") for scale in scales]
    return between.join(text.rstrip("0").rstrip(".") for text in texts)
