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
# # 13 Does the attention collapse?
#
# An attention that gives one scale all the weight at every pixel has collapsed. It is then a network of one scale
# with more parameters. When does this happen?
#
# **It depends on how far the attention moves from its initialisation**, that is on its learning rate and on the number
# of steps. The paper gives the attention ten times the learning rate of the backbone (Sec. IV-A). With these settings
# the attention collapses in our experiments on synthetic images: the weight of scale 1 is
# {glue:text}`emoji_sgd_factor_10_weight:.2f` at every pixel. With AdamW and a tenth of the backbone's learning rate, our
# default, it does not collapse:
#
# | learning rate of the attention / backbone | weight of scale 1, synthetic images | weight of scale 1, 200 photographs |
# |---|---|---|
# | 1 | {glue:text}`emoji_factor_1_weight:.2f` | {glue:text}`photos_factor_1_weight:.2f` |
# | 0.3 | {glue:text}`emoji_factor_03_weight:.2f` | {glue:text}`photos_factor_03_weight:.2f` |
# | 0.1 (default) | {glue:text}`emoji_default_weight:.2f` | {glue:text}`photos_default_weight:.2f` |
#
# **It does not matter much for the result.** The mAP of the classifier is {glue:text}`emoji_factor_1_mAP:.1f`,
# {glue:text}`emoji_factor_03_mAP:.1f` and {glue:text}`emoji_default_mAP:.1f` % in the three rows on synthetic images.
# The maps have {glue:text}`emoji_default_maps:.1f` mIoU with the default, {glue:text}`emoji_factor_1_maps:.1f` when
# nearly all weight is on scale 1, and {glue:text}`emoji_one_scale_maps:.1f` with one scale alone. Average pooling has
# {glue:text}`emoji_average_maps:.1f`. One seed was trained for each setting, so differences of a point or two are noise.
#
# [Training SAFN](03_train_safn.ipynb) has the code of the attention, and [the method](../book/method.md) its equations.

# %% tags=["parameters", "hide-input"]
# parameters
sweep = "../results/attention.csv"  # rows of `python -m benchmarks.attention`

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd
from myst_nb import glue

from safn_book import archive, charts, display, provenance, tables
from safn_book.workflow import NOTEBOOKS

charts.use_style()

rows = pd.read_csv(NOTEBOOKS / sweep)
emoji = rows["data"].str.startswith("emoji")
rows["data"] = emoji.map({True: "synthetic images", False: "photographs"})
settings = {
    "attention_factor": "learning rate of the\nattention / backbone",
    "attention_start": "initialisation of\nthe attention",
    "momentum": "momentum\n(first beta of AdamW)",
    "epochs": "epochs",
    "crop": "crop (pixels)",
}
measures = {
    "weight 1": "weight of scale 1",
    "val mAP (%)": "val mAP (%)",
    "map mIoU (%)": "mIoU of the maps (%)",
}
grid = {"sharex": "col", "sharey": "row", "layout": "constrained"}
figure, axes = plt.subplots(3, 5, figsize=(8.6, 6), **grid)
ring = {"color": "white", "markersize": 3, "zorder": 3}
for column, setting in zip(axes.T, settings):
    chosen = rows["change"].str.fullmatch(f"default|{setting} = [^,]*")
    alone = rows[chosen].sort_values(setting)
    values = list(alone[setting].unique())
    for colour, data in zip(charts.SERIES, rows["data"].unique()):
        shown = alone[alone["data"] == data]
        x = shown[setting].map(values.index)
        default = shown["change"] == "default"
        for axis, measure in zip(column, measures):
            y = shown[measure]
            spread = shown["spread 1"] if measure == "weight 1" else None
            axis.errorbar(x, y, spread, marker="o", capsize=3, color=colour)
            axis.plot(x[default], y[default], "o", **ring)
    ticks = [value if isinstance(value, str) else f"{value:g}" for value in values]
    column[-1].set_xticks(range(len(values)), ticks, fontsize=8)
for axis, label in zip(axes[-1], settings.values()):
    axis.set_xlabel(label, fontsize=8)
for axis, label in zip(axes[:, 0], measures.values()):
    axis.set_ylabel(label)
lines, names = axes[1, 0].containers, list(rows["data"].unique())
figure.legend(lines, names, ncols=2, loc="outside upper center")
plt.close(figure)
caption = (
    "One setting at a time moved away from the default, which has a ring. Whiskers: "
    "standard deviation of the weight between the pixels of an image. 320 synthetic "
    "images and 200 photographs, EfficientNet-Lite0, one seed."
)
alt = (
    "Weight of scale 1, mAP and map mIoU against five settings. The weight of scale 1 "
    "grows with the learning rate of the attention and with the epochs, mAP and map "
    "mIoU do not."
)
display.figure(figure, caption, alt)

# %% tags=["hide-input"]
SGD = "optimizer = sgd, learning_rate = 0.005, new_layer_factor = 10, batch_size = 4"
GLUED = {  # names in the text below -> change
    "default": "default",
    "factor_03": "attention_factor = 0.3",
    "factor_1": "attention_factor = 1",
    "sgd": SGD,
    "sgd_factor_10": f"{SGD}, attention_factor = 10",
    "sgd_no_momentum": f"{SGD}, momentum = 0.0",
    "random": "attention_start = random",
    "no_momentum": "momentum = 0.0",
    "epochs_3": "epochs = 3",
    "epochs_12": "epochs = 12",
    "scaled": "input_scaling = True",
    "crop_96": "crop = 96",
    "crop_160": "crop = 160",
    "crop_192": "crop = 192",
    "crop_320": "crop = 320",
    "average": "aggregation = avg",
    "one_scale": "scales = (1,)",
}
COLUMNS = {
    "weight": "weight 1",
    "weight_075": "weight 0.75",
    "spread": "spread 1",
    "mAP": "val mAP (%)",
    "maps": "map mIoU (%)",
}
for data, group in rows.groupby("data"):
    short_data = {"synthetic images": "emoji", "photographs": "photos"}[data]
    found = group.set_index("change")
    for name, change in GLUED.items():
        for short, column in COLUMNS.items():
            if change in found.index:
                value = float(found.loc[change, column])
                glue(f"{short_data}_{name}_{short}", value, display=False)

# %% [markdown]
# ## Does it see the object, or the border?
#
# A weight that varies between pixels looks like a choice of scale for each object. Is it one? Convolutions see padding
# around the image, and could tell the border by it. We measure how much of the variance within an image the distance to
# the border explains. This share would be 100 % for weights that do not depend on what the image shows.

# %% tags=["hide-input"]
border = pd.read_csv(archive.RESULTS / "attention_border.csv").set_index("network")
shown = border[["explained", "spread 0", "spread 3", "mean 0", "mean 3"]].rename_axis(None)
shown["explained"] = [f"{100 * share:.0f} %" for share in shown["explained"]]
shown.columns = [
    "explained by the border",
    "spread",
    "spread, inner places",
    "mean",
    "mean, inner places",
]
tables.show(
    shown,
    "The weight of scale 1, and its standard deviation (spread) between the places of a"
    " map. Inner places are at least 3 away from the border. 743 photographs of VOC"
    " 2012 val with the network that ships with the package, 120 synthetic validation"
    " images with three seeds. EfficientNet-Lite0.",
    digits=2,
)

# %% tags=["hide-input"]
photo = border.loc["photographs, seed 0"]
synthetic = border.drop("photographs, seed 0")["explained"]
display.text(
    f"**Much of it is the border.** On photographs the distance to the border explains"
    f" {100 * photo['explained']:.0f} % of the variance. On synthetic images it explains"
    f" {100 * synthetic.min():.0f} to {100 * synthetic.max():.0f} %. Among the inner"
    f" places of photographs the spread is {photo['spread 3']:.2f} instead of"
    f" {photo['spread 0']:.2f}, and the mean weight of scale 1 is"
    f" {photo['mean 3']:.2f}. This fits what"
    " [the ablation of scales](09_scales.ipynb) finds on photographs: a constant weight"
    " does as well as the learned one. The maps of synthetic images have 8 by 8 places."
    " Only 4 of them are inner ones, too few to say more."
)

# %% [markdown]
# ## What else moves the weights
#
# **Longer training moves weight to scale 1.** After 3, 6 and 12 epochs its weight is
# {glue:text}`emoji_epochs_3_weight:.2f`, {glue:text}`emoji_default_weight:.2f` and
# {glue:text}`emoji_epochs_12_weight:.2f` on synthetic images. On photographs it is
# {glue:text}`photos_epochs_3_weight:.2f`, {glue:text}`photos_default_weight:.2f` and
# {glue:text}`photos_epochs_12_weight:.2f`. The maps gain nothing measurable from the last six epochs.
#
# **A random initialisation moves weight to scale 1, too.** Instead of {glue:text}`emoji_default_weight:.2f` the
# weight is {glue:text}`emoji_random_weight:.2f` on synthetic images. On photographs it is
# {glue:text}`photos_random_weight:.2f` instead of {glue:text}`photos_default_weight:.2f`.
#
# **Momentum matters to SGD alone.** A first beta of 0 in AdamW changes little: the weights are
# {glue:text}`emoji_no_momentum_weight:.2f` and {glue:text}`photos_no_momentum_weight:.2f`. SGD without momentum takes
# steps a tenth as large. Its mAP is {glue:text}`emoji_sgd_no_momentum_mAP:.1f` % instead of
# {glue:text}`emoji_sgd_mAP:.1f` %, and its weights stay nearly equal.
#
# **Scaling the input of the attention keeps it closer to the average.** The weight of scale 1 is
# {glue:text}`emoji_scaled_weight:.2f`. mAP and maps differ by no more than the noise.
#
# **The largest crop gives scale 0.75 the most weight.** On synthetic images it is
# {glue:text}`emoji_crop_96_weight_075:.2f`, {glue:text}`emoji_default_weight_075:.2f` and
# {glue:text}`emoji_crop_192_weight_075:.2f` at 96, 128 and 192 pixels. On photographs it is
# {glue:text}`photos_crop_160_weight_075:.2f`, {glue:text}`photos_default_weight_075:.2f` and
# {glue:text}`photos_crop_320_weight_075:.2f` at 160, 224 and 320 pixels. At 320 pixels the weights hardly vary
# between pixels: their standard deviation is {glue:text}`photos_crop_320_spread:.3f`. We do not know why.
#
# ## Takeaways
#
# - Look at the mean weights and at their spread between pixels before you believe an attention. Some of the spread is
#   the border.
# - A smaller learning rate for the attention, and a zero initialisation, keep it from collapsing.
# - An attention that has not collapsed is not yet one that helps. [What we learned](12_what_we_learned.ipynb) measures
#   this with three seeds.
#
# ## Exercises
#
# 1. What are the mean weight and the spread of an attention whose last layer is all zero?
#
# ````{dropdown} Solution
# The softmax of equal numbers: 1/3 at every pixel for three scales, with spread 0. This is average pooling, and it is
# where `attention_start="zero"` begins.
#
# ```python
# import torch
# from safn import SAFN
#
# network = SAFN("efficientnet_lite0", 20, (1, 0.75, 0.5), weights="none").eval()
# network(torch.rand(1, 3, 128, 128))
# network.scale_weights.mean((0, 2, 3)), network.scale_weights.std((2, 3))
# ```
# ````
#
# 2. Which setting of the sweep on synthetic images has the largest spread between pixels?
#
# ````{dropdown} Solution
# The first row of this table:
#
# ```python
# emoji = rows[rows["data"] == "synthetic images"]
# emoji.sort_values("spread 1", ascending=False)[["change", "weight 1", "spread 1"]].head()
# ```
# ````
#
# ## Next
#
# [The paper's figures](10_figures.ipynb) show what the weights do to the maps.
#
# ```{dropdown} All rows, and how to make them
# The synthetic images of this sweep are 320 scenes with coloured noise as background, and six epochs. Today's scenes are
# calmer, and the sweep has not been repeated on them.
#
# In the file below, `attention_factor` is the learning rate of the attention over that of the backbone, and
# `attention_start` its initialisation: `zero` begins at average pooling. `input_scaling` divides the input of the
# attention by its standard deviation. SGD has a learning rate of 0.005, batches of 4, and a factor of 10 for the new
# layers. mAP is that of validation images, the mIoU of the maps that of training images at the best threshold.
#
# `python -m benchmarks.attention runs/emoji` makes the rows that `results/attention.csv` does not have. For photographs
# it is `python -m benchmarks.attention runs/voc-subset --limit 200 --only attention_factor attention_start momentum
# epochs crop`.
# ```

# %% tags=["hide-input"]
weights = []
for name, records in provenance.experiments().items():
    for (stage, run), record in records.items():
        if stage == "03_train_safn" and "weight 1" in record["metrics"]:
            given, metrics = record["parameters"], record["metrics"]
            rate = given["learning_rate"] * given["attention_factor"]
            row = {"experiment": name, "run": run, "learning rate, attention": rate}
            found = {k: metrics[k] for k in metrics if k.startswith("weight")}
            weights.append(row | found)
weights = pd.DataFrame(weights)
display.downloads({"attention_sweep.csv": rows, "weights_of_runs.csv": weights})
