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
# # What we learned
#
# **Is scale attention worth it?** {glue:text}`answer`
#
# 1. {glue:text}`maps`
# 2. {glue:text}`pseudo_background`
# 3. {glue:text}`saliency`
# 4. {glue:text}`segmentation_crf`
# 5. {glue:text}`weights`
#
# These are results on {glue:text}`train_images` training and {glue:text}`val_images` validation images:
# {glue:text}`images`. They say nothing about other data. They cannot be compared in level with the
# [published numbers](../book/published.md), which come from other data, networks and saliency maps.

# %% tags=["parameters", "hide-input"]
# parameters
records = "../results/evidence.json"  # recorded runs: five configurations, three seeds
images = "photographs of VOC 2012"  # what they were trained on

# %% tags=["hide-input"]
from pathlib import Path

import pandas as pd
from IPython.display import display
from myst_nb import glue

from safn_book import archive, charts, conclusions, results
from safn_book.tables import number, show, with_short_names

charts.use_style()

recorded = archive.read(Path(records))
runs = results.runs_table(recorded)
main = runs["configuration"].iloc[0]
gaps = conclusions.against(conclusions.differences_table(recorded), main)

nouns = {"maps": "maps", "pseudo_background": "pseudo labels", "segmentation_crf": "segmentations"}
better = gaps[gaps["verdict"] == "better"]["measure"].value_counts()
counts = [f"{better.get(measure, 'none')} in the {noun}" for measure, noun in nouns.items()]
answer = f"{'In part' if len(better) else 'Not measurably'}. Of {gaps['second'].nunique()} alternatives, "
answer += f"scale attention is significantly better than {conclusions.listing(counts)}."
counted = recorded["00_data", "default"]["metrics"]
glue("answer", answer, display=False)
for measure, noun in nouns.items():
    glue(measure, conclusions.conclusion(gaps[gaps["measure"] == measure], noun), display=False)
glue("train_images", f"{counted['train_images']:,.0f}", display=False)
glue("val_images", f"{counted['val_images']:,.0f}", display=False)
glue("images", images, display=False)

# %% [markdown]
# ## Maps
#
# {glue:text}`maps`
#
# The maps are cut at their best threshold and scored on the training images. Runs of one seed share their initial
# weights and their batches. A difference is called significant if three seeds were trained, and if its interval over
# images and seeds excludes 0.
#
# The paper's Table 4 ranks attention above max pooling and average pooling. Its Table 6 ranks three scales above two, and two
# above one.

# %% tags=["hide-input"]
show(
    conclusions.comparison(runs, gaps, "maps"),
    "Localization maps on training images: mIoU in percent, and the points by which SAFN with 3 scales is ahead.",
)

# %% [markdown]
# The next table splits the same score by the size of the objects.

# %% tags=["hide-input"]
alone = runs[(runs["control"] == "") & ~runs["supervised"]]
show(
    with_short_names(results.by_size(alone)["maps"].T),
    "Localization maps: foreground IoU in percent, by the share of the image that an object covers. Means over the seeds.",
)

# %% [markdown]
# ## Pseudo labels
#
# {glue:text}`pseudo_background`
#
# Ignored pixels count as background here. The last section has the other two conventions.

# %% tags=["hide-input"]
show(
    conclusions.comparison(runs, gaps, "pseudo_background"),
    "Pseudo labels of the training images: mIoU in percent, and the points by which SAFN with 3 scales is ahead.",
)

# %% [markdown]
# ## Saliency
#
# {glue:text}`saliency`
#
# Two controls of seed 0 show it. One takes the foreground from the saliency alone and only the class from the maps.
# The other takes both from the maps, cut at the paper's threshold of 0.2. In both, saliency still decides which
# background pixels are ignored.

# %% tags=["hide-input"]
scores = runs[runs["seed"] == 0].set_index("configuration")["pseudo_miou_background"].mul(100)
changes = {control: scores[f"{main}+{control}"] - scores[main] for control in ("saliency", "maps")}
head = "The saliency does" if changes["saliency"] > changes["maps"] else "The localization maps do"
text = f"{head} most of the work. With the foreground of the saliency alone, the pseudo labels change by "
text += f"{number(changes['saliency'], sign=True)} points of mIoU. With that of the maps alone, they change by "
text += f"{number(changes['maps'], sign=True)} points."
glue("saliency", text, display=False)

first = runs[(runs["seed"] == 0) & runs["configuration"].isin([main, f"{main}+saliency", f"{main}+maps"])]
columns = {
    "pseudo_miou_background": "pseudo labels",
    "val_miou_single": "segmentation, single scale",
    "val_miou_multi": "multi-scale",
    "val_miou_crf": "multi-scale + CRF",
}
shown = first.set_index("configuration")[list(columns)].mul(100).rename(columns=columns).rename_axis(None)
show(with_short_names(shown), "Where the foreground comes from: mIoU in percent, seed 0.")

# %% [markdown]
# ## Segmentation
#
# {glue:text}`segmentation_crf`
#
# The table has the multi-scale test with CRF on the validation images. Training on ground-truth masks instead of
# pseudo labels gives the upper bound.

# %% tags=["hide-input"]
show(
    conclusions.comparison(runs, gaps, "segmentation_crf"),
    "Segmentation of the validation images, multi-scale + CRF: mIoU in percent, and the points by which SAFN is ahead.",
)

# %% tags=["hide-input"]
tests = {key: text for key, text in columns.items() if key.startswith("val")}
bound = results.over_seeds(runs[(runs["configuration"] == main) | runs["supervised"]], list(tests))
show(
    with_short_names(bound.rename(columns=tests).rename_axis(None)),
    "SAFN and the upper bound: mIoU in percent, validation images.",
)

# %% [markdown]
# ## Weights
#
# {glue:text}`weights`
#
# The table replaces the learned weights in Eq. 2 by others, in each trained network. Shuffling keeps the weights of
# an image and loses their place. A network is called worse or better if the 95 % interval over images excludes 0.

# %% tags=["hide-input"]
replaced = pd.DataFrame(recorded["09_scales", "default"]["replaced"])
weights = conclusions.replaced_table(replaced)
glue("weights", conclusions.weights_statement(weights, replaced["run"].nunique()), display=False)
weights["change"] = [number(change, 2, sign=True) for change in weights["change"]]
columns = {"worse": "networks worse", "better": "networks better"}
show(
    weights.rename(columns=columns),
    "Other weights instead of the learned ones: change of the map mIoU in points, training images.",
)

# %% [markdown]
# {glue:text}`correlation`

# %% tags=["hide-input"]
correlations = pd.DataFrame(recorded["09_scales", "default"]["correlations"])
glue("correlation", conclusions.correlation_statement(correlations), display=False)
wide = correlations.pivot(index="scale", columns="run", values="correlation").iloc[::-1]
wide.columns = [f"network {k}" for k in range(1, wide.shape[1] + 1)]
show(
    wide.rename_axis("scale").reset_index(),
    "Rank correlation of a weight on an object with the object's size.",
    digits=2,
)

# %% mystnb={"figure": {"caption": "Weights of the three scales on objects of different size: medians and quartiles, one line a network."}, "image": {"alt": "The weight of scale 1 lies far above those of the other two scales at all object sizes."}} tags=["hide-input"]
charts.weights_by_size(pd.DataFrame(recorded["09_scales", "default"]["weights_by_size"]))

# %% tags=["hide-input"]
glue("backbone", recorded["03_train_safn", runs["run"].iloc[0]]["parameters"]["backbone"], display=False)
glue("detector", recorded["01_saliency", "default"]["detector"], display=False)
glue("comparisons", len(gaps), display=False)

# %% [markdown]
# ## Limits
#
# - One small backbone was trained ({glue:text}`backbone`) with one saliency detector ({glue:text}`detector`).
# - Three seeds give wide intervals. A small difference can exist and stay undetected.
# - This page makes {glue:text}`comparisons` comparisons. At 95 %, one in twenty is a false alarm.
# - No ground-truth mask trains SAFN. Some settings were chosen with masks of training images: see [open
#   points](../book/open_points.md).
#
# [Recorded runs](../notebooks/15_records.ipynb) repeats the experiment on another machine. [Sets of
# scales](../notebooks/09_scales.ipynb) and [Aggregation methods](../notebooks/08_aggregation.ipynb) explain the
# intervals.
#
# ## All numbers
#
# The figure and the tables below hold every measure of every configuration.

# %% mystnb={"figure": {"caption": "Differences in points of mIoU with their 95 % intervals: thick over images, thin over images and seeds."}, "image": {"alt": "Differences between pairs of configurations, one panel for each measure. Most intervals contain 0."}} tags=["hide-input"]
charts.differences(conclusions.differences_table(recorded))

# %% mystnb={"figure": {"caption": "Each run (dots) and the mean over the seeds (lines). The axes do not begin at 0."}, "image": {"alt": "Scores of each configuration for maps, pseudo labels and segmentation. The runs of different seeds overlap."}} tags=["hide-input"]
panels = {
    "map_miou": "maps",
    "pseudo_miou_background": "pseudo labels",
    "val_miou_multi": "segmentation,\nmulti-scale",
    "val_miou_crf": "segmentation,\nmulti-scale + CRF",
}
charts.seeds(alone, panels)

# %% tags=["hide-input", "hide-output"]
measured = {column: title for column, title in results.COLUMNS.items() if runs[column].notna().any()}
every = results.over_seeds(runs, list(measured)).rename(columns=measured).rename_axis(None)
show(
    with_short_names(every).T,
    "Every measure: percent, mean ± standard deviation over the seeds. A value alone is one seed.",
)

# %% tags=["hide-input", "hide-output"]
listed = {f"{column}_train_list": title for column, title in results.COLUMNS.items() if f"{column}_train_list" in runs}
same = results.over_seeds(runs, list(listed)).rename(columns=listed).rename_axis(None)
show(with_short_names(same).T, "The same on the training images of the official train list: percent.")

# %% tags=["hide-input", "hide-output"]
for measure, sizes in results.by_size(alone).items():
    heading = results.MEASURES[measure].heading
    display(show(with_short_names(sizes.T), f"{heading}: foreground IoU in percent by object size."))

# %% tags=["hide-input", "hide-output"]
for stage, measure, caption in [
    ("05_pseudo_ground_truth", "precision", "Pseudo labels: precision in percent, training images."),
    ("05_pseudo_ground_truth", "recall", "Pseudo labels: recall in percent, training images."),
    ("07_evaluate", "crf", "Segmentation, multi-scale + CRF: IoU in percent, validation images."),
]:
    display(show(with_short_names(results.by_class(recorded, stage, measure)), caption))

# %% mystnb={"figure": {"caption": "The thresholds of the pseudo labels, moved one at a time, on up to 150 training images. Dashed: the setting."}, "image": {"alt": "mIoU of the pseudo labels against each of their three thresholds, with the share of ignored pixels below."}} tags=["hide-input"]
labels = recorded["05_pseudo_ground_truth", runs["run"].iloc[0]]
charts.sensitivity(pd.DataFrame(labels["thresholds"]), labels["parameters"])
