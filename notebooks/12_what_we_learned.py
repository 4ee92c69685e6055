# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-all
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12 What we learned
#
# **Is scale attention worth it?** {glue:text}`answer`
#
# Five statements say why. Each has one table or figure below, with its limits and a verdict.
#
# 1. {glue:text}`maps`
# 2. {glue:text}`pseudo_background`
# 3. {glue:text}`saliency`
# 4. {glue:text}`segmentation_crf`
# 5. {glue:text}`weights`
#
# They hold for {glue:text}`images`, {glue:text}`train_images` for training and {glue:text}`val_images` for validation,
# with the backbone {glue:text}`backbone` and the saliency maps of {glue:text}`detector`. They say nothing about other
# data, and their level cannot be compared with the [published numbers](../book/published.md).

# %% tags=["parameters", "hide-input"]
# parameters
records = "../results/evidence.json"  # recorded runs: five configurations, three seeds
images = "photographs of VOC 2012"  # what they were trained on

# %% tags=["hide-input"]
import pandas as pd
from myst_nb import glue

from safn_book import archive, charts, conclusions, display, results, statements
from safn_book.tables import number, show, with_short_names
from safn_book.workflow import NOTEBOOKS

charts.use_style()

recorded = archive.read(NOTEBOOKS / records)
runs = results.runs_table(recorded)
main = runs["configuration"].iloc[0]
differences = conclusions.differences_table(recorded)
gaps = conclusions.against(differences, main)
glue("answer", statements.answer(gaps), display=False)
nouns = {"maps": "maps", "pseudo_background": "pseudo labels"}
nouns["segmentation_crf"] = "segmentations"
for measure, noun in nouns.items():
    rows = gaps[gaps["measure"] == measure]
    glue(measure, statements.conclusion(rows, noun), display=False)
    glue(f"{measure}_verdict", statements.tally(rows), display=False)
counted = recorded["00_data", "default"]["metrics"]
glue("train_images", f"{counted['train_images']:,.0f}", display=False)
glue("val_images", f"{counted['val_images']:,.0f}", display=False)
glue("images", images, display=False)
network = recorded["03_train_safn", runs["run"].iloc[0]]["parameters"]
names = {"efficientnet_lite0": "EfficientNet-Lite0"}
glue("backbone", names.get(network["backbone"], network["backbone"]), display=False)
glue("crop", network["crop"], display=False)
glue("detector", recorded["01_saliency", "default"]["detector"], display=False)
glue("comparisons", len(gaps), display=False)
by_seed = runs[runs["configuration"] == main].sort_values("seed")["val_mAP"]
values = [f"{100 * value:.1f}" for value in by_seed.dropna()]
glue("by_seed", f"{', '.join(values[:-1])} and {values[-1]} %", display=False)

# %% [markdown]
# ## 1. Localization maps
#
# {glue:text}`maps`

# %% tags=["hide-input"]
training = f"the lead of SAFN in points. Training images, {images}"
caption = f"Localization maps: mIoU (%), and {training}."
show(statements.comparison(runs, gaps, "maps"), caption, best=["mIoU (%)"])

# %% [markdown]
# **Limits.** The localization maps are cut at the threshold that is best for the same images. This flatters all rows
# alike.
#
# **Verdict.** {glue:text}`maps_verdict` The paper's Table 4 ranks scale attention above pooling. Its Table 6 ranks
# three scales above two, and two above one. On object localization, {cite:t}`choe2020evaluation` put five methods to
# one test. None made a major improvement over class activation maps (CAM).
#
# ## 2. Pseudo labels
#
# {glue:text}`pseudo_background`

# %% tags=["hide-input"]
caption = f"Pseudo labels: mIoU (%), and {training}."
table = statements.comparison(runs, gaps, "pseudo_background")
show(table, caption, best=["mIoU (%)"])

# %% [markdown]
# **Limits.** An ignored pixel counts as background here. The CSV files have the other two conventions.
#
# **Verdict.** {glue:text}`pseudo_background_verdict`
#
# ## 3. Saliency
#
# {glue:text}`saliency`

# %% tags=["hide-input"]
first = runs[runs["seed"] == 0].set_index("configuration")
scores = first["pseudo_miou_background"].mul(100)
saliency = scores[f"{main}+saliency"] - scores[main]
maps = scores[f"{main}+maps"] - scores[main]
head = "saliency" if saliency > maps else "localization"
text = (
    f"The {head} maps do most of the work: outlines from the saliency maps alone "
    f"change the pseudo labels by {number(saliency, sign=True)} points of mIoU, "
    f"outlines from the localization maps alone by {number(maps, sign=True)} points."
)
glue("saliency", text, display=False)
between = runs.loc[runs["configuration"] == main, "pseudo_miou_background"].std()
text = (
    f"Without the saliency maps, the mIoU changes by {number(maps, sign=True)} points. "
    "Between seeds of SAFN it has a standard deviation of "
    f"{number(100 * between)} points."
)
glue("saliency_verdict", text, display=False)

sources = {main: "both", f"{main}+saliency": "saliency maps"}
sources[f"{main}+maps"] = "localization maps"
columns = {
    "pseudo_miou_background": "pseudo labels",
    "val_miou_single": "segmentation",
    "val_miou_multi": "multi-scale",
    "val_miou_crf": "with CRF",
}
shown = first.loc[list(sources), list(columns)].mul(100)
shown = shown.rename(index=sources, columns=columns).rename_axis(None)
caption = f"mIoU (%) by where the outlines come from, {images}, seed 0."
show(shown, caption, best=shown.columns)

# %% [markdown]
# **Limits.** There is one seed and one detector, which was trained on masks of other images. In all three rows,
# saliency decides which background pixels are ignored, and the maps decide the class.
#
# **Verdict.** {glue:text}`saliency_verdict` {cite:t}`kim2024rethinking` compare seven methods with several detectors
# (WSSS-BED). They find that much depends on the quality of the saliency maps, and that the thresholds matter.
#
# ## 4. Segmentation
#
# {glue:text}`segmentation_crf`

# %% tags=["hide-input"]
compared = statements.comparison(runs, gaps, "segmentation_crf")
bound = results.over_seeds(runs[runs["supervised"]], ["val_miou_crf"])
bound = with_short_names(bound.rename(columns={"val_miou_crf": "mIoU (%)"}))
caption = f"Segmentation, multi-scale + CRF: mIoU (%), and the lead of SAFN in points. Validation images, {images}."
show(pd.concat([compared, bound]).fillna("–"), caption)

# %% [markdown]
# **Limits.** *Fully supervised* is trained on ground-truth masks. It is meant as the upper bound of the same network. A
# value without ± is of one seed, and one seed of the upper bound can come out low by chance. The other rows use only the
# seeds that all of them have.
#
# **Verdict.** {glue:text}`segmentation_crf_verdict`
#
# ## 5. Weights
#
# {glue:text}`weights`

# %% tags=["hide-input"]
replaced = pd.DataFrame(recorded["09_scales", "default"]["replaced"])
table = statements.replaced_table(replaced)
networks = replaced["run"].nunique()
glue("weights", statements.weights_statement(table, networks), display=False)
correlations = pd.DataFrame(recorded["09_scales", "default"]["correlations"])
glue("correlation", statements.correlation_statement(correlations), display=False)
caption = (
    f"Other weights instead of the learned ones, in each of {networks} networks: "
    "change of the mIoU of the maps, in points, with 95 % intervals over images. "
    f"Training images, {images}."
)
alt = "One row a kind of weights, one dot with its interval a network. Left of 0: worse maps."
display.figure(charts.replaced(replaced, statements.WEIGHTS), caption, alt)

# %% [markdown]
# **Limits.** The weights are replaced in trained networks. A network trained with constant weights may differ.
#
# **Verdict.** {glue:text}`correlation`
#
# ## Limits of all five
#
# - Three seeds give wide intervals. A small difference can exist and stay undetected. The mAP of the classifier SAFN is
#   {glue:text}`by_seed` with seeds 0 to 2.
# - The classifiers saw crops of {glue:text}`crop` pixels. Those of the paper saw 448. Nobody has measured the
#   comparison at that size yet: [Speed and memory](14_speed.ipynb) has the commands.
# - This page makes {glue:text}`comparisons` comparisons. At 95 %, one in twenty is a false alarm.
# - No ground-truth mask trains SAFN, but some settings were chosen with masks. For photographs these were masks of
#   training images, and [Open points](../book/open_points.md) lists the settings. For synthetic images, the learning rate
#   of the segmentation was chosen with masks of the validation images. {cite:t}`choe2020evaluation` and
#   {cite:t}`murtaza2025realistic` warn of this: scores drop when models are selected without such annotations.
#
# ## Next
#
# [Does the attention collapse?](13_attention.ipynb) asks what decides whether the attention learns anything.
# [Chapter 8](08_aggregation.ipynb) explains the intervals. [Records](15_records.ipynb) repeats the experiment on
# photographs on another machine. [Tables 1, 2 and 3](11_comparison.ipynb) has the published numbers.
#
# ## Appendix: all numbers

# %% tags=["hide-input"]
caption = f"All differences in points of mIoU, {images}, with their 95 % intervals."
alt = "One panel a measure, one row a pair of configurations: a dot with its intervals."
display.figure(charts.differences(differences), caption, alt)

# %% tags=["hide-input"]
by_size = pd.DataFrame(recorded["09_scales", "default"]["weights_by_size"])
caption = (
    "Weights of the scales on objects of each size: medians and quartiles, one line a "
    f"network. Training images, {images}."
)
alt = "A line of medians with its quartiles for each scale, against the size of the objects."
display.figure(charts.weights_by_size(by_size), caption, alt)

# %% tags=["hide-input"]
labels = recorded["05_pseudo_ground_truth", runs["run"].iloc[0]]
thresholds = pd.DataFrame(labels["thresholds"])
caption = (
    "The three thresholds of the pseudo labels, moved one at a time. Dashed: the "
    f"setting. Up to 150 training images, {images}."
)
alt = "mIoU of the pseudo labels against each threshold, and below it the ignored share."
display.figure(charts.sensitivity(thresholds, labels["parameters"]), caption, alt)

# %% [markdown]
# These files hold every number of this page, and those that it leaves out: all runs and measures, the scores by object
# size and by class, and the weights.

# %% tags=["hide-input"]
alone = runs[(runs["control"] == "") & ~runs["supervised"]]
labelled = "05_pseudo_ground_truth"
classes = {
    "pseudo labels, precision": results.by_class(recorded, labelled, "precision"),
    "pseudo labels, recall": results.by_class(recorded, labelled, "recall"),
    "segmentation, CRF, IoU": results.by_class(recorded, "07_evaluate", "crf"),
}
sizes = pd.concat(results.by_size(alone), names=["measure", "size"])
metrics = [column for column in runs if runs[column].dtype == float]
tables = {
    "runs.csv": runs.set_index("run")[metrics],
    "differences.csv": differences,
    "by_object_size.csv": sizes.round(2),
    "by_class.csv": pd.concat(classes, names=["measure", "class"]).round(2),
    "replaced_weights.csv": replaced,
    "weight_and_size.csv": correlations,
    "thresholds.csv": thresholds,
}
display.downloads(tables)
