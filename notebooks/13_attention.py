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
# An attention that gives one scale all the weight at every pixel has collapsed. The network then works with one scale.
# When does this happen?
#
# **It depends on how far the attention moves from its initialisation.** Its learning rate and the number of steps
# decide. The paper trains with SGD. It gives the attention ten times the learning rate of the backbone (Sec. IV-A). We
# tried this on the synthetic images with one seed. There the weight of scale 1 is {glue:text}`sgd_factor_10_weight:.2f`
# on average. Its standard deviation between the pixels of an image is {glue:text}`sgd_factor_10_spread:.2f`.
#
# Our notebook trains with AdamW. It gives the attention a fifth of the backbone's learning rate. With three seeds the
# weight is {glue:text}`notebook_weight:.2f` on average, with a standard deviation of {glue:text}`notebook_spread:.2f`.
#
# Photographs show the same. The higher the learning rate of the attention, the more weight scale 1 gets.
#
# | learning rate of the attention / backbone | weight of scale 1 | mAP (%) | mIoU of the maps (%) |
# |---|---|---|---|
# | 1 | {glue:text}`factor_1_weight:.2f` | {glue:text}`factor_1_mAP:.1f` | {glue:text}`factor_1_maps:.1f` |
# | 0.3 | {glue:text}`factor_03_weight:.2f` | {glue:text}`factor_03_mAP:.1f` | {glue:text}`factor_03_maps:.1f` |
# | 0.1 | {glue:text}`default_weight:.2f` | {glue:text}`default_mAP:.1f` | {glue:text}`default_maps:.1f` |
#
# **It does not matter much for the result.** mAP and mIoU hardly change. One seed was trained for each row, so a
# difference of a point or two is noise. The networks have EfficientNet-Lite0 and were trained for six epochs of AdamW on
# 200 photographs of VOC 2012. The mIoU is scored on these photographs, and the mAP on 200 others.
#
# [Training SAFN](03_train_safn.ipynb) has the code of the attention, and [the method](../book/method.md) its equations.

# %% tags=["parameters", "hide-input"]
# parameters
sweep = "../results/attention.csv"  # rows of `python -m benchmarks.attention`

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd
from myst_nb import glue

from safn_book import archive, charts, display, results, tables
from safn_book.workflow import NOTEBOOKS

charts.use_style()

measured = pd.read_csv(NOTEBOOKS / sweep)
photographs = measured["data"].str.startswith("photographs")
rows = measured[photographs]
settings = {
    "attention_factor": "learning rate of the\nattention / backbone",
    "attention_start": "initialisation of\nthe attention",
    "momentum": "first beta\nof AdamW",
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
    chosen = rows["change"].str.fullmatch(f"default|{setting} = .*")
    shown = rows[chosen].sort_values(setting)
    x = range(len(shown))
    default = [k for k, change in enumerate(shown["change"]) if change == "default"]
    for axis, measure in zip(column, measures):
        y = shown[measure]
        spread = shown["spread 1"] if measure == "weight 1" else None
        axis.errorbar(x, y, spread, marker="o", capsize=3)
        axis.plot(default, y.iloc[default], "o", **ring)
    values = [v if isinstance(v, str) else f"{v:g}" for v in shown[setting]]
    column[-1].set_xticks(x, values, fontsize=8)
for axis, label in zip(axes[-1], settings.values()):
    axis.set_xlabel(label, fontsize=8)
for axis, label in zip(axes[:, 0], measures.values()):
    axis.set_ylabel(label)
plt.close(figure)
caption = (
    "One setting at a time moved away from the default, which has a ring. Whiskers: "
    "standard deviation of the weight between the pixels of an image. 200 photographs "
    "of VOC 2012 for training and 200 for validation, EfficientNet-Lite0, one seed."
)
alt = (
    "Weight of scale 1, mAP and map mIoU against five settings. The weight of scale 1 "
    "grows with the learning rate of the attention and with the epochs, mAP and map "
    "mIoU do not."
)
display.figure(figure, caption, alt)

# %% tags=["hide-input"]
CHANGES = {  # names in the text -> change, on photographs
    "default": "default",
    "factor_03": "attention_factor = 0.3",
    "factor_1": "attention_factor = 1",
    "random": "attention_start = random",
    "no_momentum": "momentum = 0.0",
    "epochs_3": "epochs = 3",
    "epochs_12": "epochs = 12",
    "crop_160": "crop = 160",
    "crop_320": "crop = 320",
}
COLUMNS = {
    "weight": "weight 1",
    "weight_075": "weight 0.75",
    "spread": "spread 1",
    "mAP": "val mAP (%)",
    "maps": "map mIoU (%)",
}
found = rows.set_index("change").loc[list(CHANGES.values())].set_axis(list(CHANGES))
(found.loc["sgd_factor_10"],) = measured[~photographs].to_dict("records")
for name, row in found.iterrows():
    for short, column in COLUMNS.items():
        glue(f"{name}_{short}", float(row[column]), display=False)
runs = results.runs_table(archive.experiments()["evidence-emoji"])
own = runs[runs["configuration"] == runs["configuration"].iloc[0]]
glue("notebook_weight", float(own["weight 1"].mean()), display=False)
glue("notebook_spread", float(own["weight spread 1"].mean()), display=False)

# %% [markdown]
# ## Does it see the object, or the border?
#
# A weight that varies between pixels looks like a choice of scale for each object. Is it one? Convolutions see padding
# around the image, which gives the border away. We measure how much of the variance within an image the distance to
# the border explains. It would be all of it for weights that ignore what the image shows.

# %% tags=["hide-input"]
border = pd.read_csv(archive.RESULTS / "attention_border.csv").set_index("network")
columns = ["explained", "spread 0", "spread 3", "mean 0", "mean 3"]
shown = border[columns].rename_axis(None)
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
ends = [f"{100 * share:.0f}" for share in (synthetic.min(), synthetic.max())]
explained = " to ".join(dict.fromkeys(ends))
display.text(
    f"**Much of it is the border.** On photographs the distance to the border explains"
    f" {100 * photo['explained']:.0f} % of the variance. On synthetic images it is"
    f" {explained} %. Among the inner"
    f" places of photographs the spread is {photo['spread 3']:.2f} instead of"
    f" {photo['spread 0']:.2f}, and the mean weight of scale 1 is"
    f" {photo['mean 3']:.2f}. This fits what"
    " the ablation of scales finds on photographs: a constant weight"
    " does as well as the learned one. The maps of synthetic images have 8 by 8 places."
    " Only 4 of them are inner ones, too few to say more."
)

# %% [markdown]
# ## What else moves the weights
#
# All of this was measured on the 200 photographs.
#
# **Longer training moves weight to scale 1.** After 3, 6 and 12 epochs its weight is
# {glue:text}`epochs_3_weight:.2f`, {glue:text}`default_weight:.2f` and {glue:text}`epochs_12_weight:.2f`. The maps gain
# nothing measurable from the last six epochs.
#
# **A random initialisation moves weight to scale 1, too.** The weight is {glue:text}`random_weight:.2f` instead of
# {glue:text}`default_weight:.2f`.
#
# **The momentum of AdamW hardly matters.** With a first beta of 0 the weight is {glue:text}`no_momentum_weight:.2f`.
#
# **The largest crop gives scale 0.75 the most weight.** At 160, 224 and 320 pixels that weight is
# {glue:text}`crop_160_weight_075:.2f`, {glue:text}`default_weight_075:.2f` and {glue:text}`crop_320_weight_075:.2f`. At
# 320 pixels the weight of scale 1 hardly varies between pixels: its standard deviation is
# {glue:text}`crop_320_spread:.3f`. We do not know why.
#
# ## Takeaways
#
# - Look at the mean weights and at their spread between pixels before you believe an attention.
# - Some of that spread is the border of the image. [The ablation of scales](09_scales.ipynb) puts other weights in the
#   place of the learned ones.
# - A smaller learning rate for the attention, and a zero initialisation, keep it from collapsing.
# - An attention that has not collapsed is not yet one that helps. [What we learned](12_what_we_learned.ipynb) measures
#   this with three seeds.
#
# ## Exercises
#
# 1. What are the mean weight and the spread of an attention whose last layer is all zero?
#
# <details><summary>Solution</summary>
#
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
#
# </details>
#
# 2. Which setting on photographs has the largest spread between pixels?
#
# <details><summary>Solution</summary>
#
# The random initialisation, the first row of this table:
#
# ```python
# rows.sort_values("spread 1", ascending=False)[["change", "weight 1", "spread 1"]].head()
# ```
#
# </details>
#
# ## Next
#
# [The paper's figures](10_figures.ipynb) show what the weights do to the maps.
#
# <details><summary>All rows, and how to make them</summary>
#
# In the file below, `attention_factor` is the learning rate of the attention over that of the backbone, and
# `attention_start` its initialisation: `zero` begins at average pooling. SGD has a learning rate of 0.005, batches of
# 4, and a factor of 10 for the new layers. mAP is that of validation images, the mIoU of the maps that of training
# images at the best threshold.
#
# `python -m benchmarks.attention runs/emoji` makes the rows that `results/attention.csv` does not have. For photographs
# it is `python -m benchmarks.attention runs/voc-subset --limit 200`.
#
# </details>

# %% tags=["hide-input"]
weights = []
for name, records in archive.experiments().items():
    for (stage, run), record in records.items():
        if stage == "03_train_safn" and "weight 1" in record["metrics"]:
            given, metrics = record["parameters"], record["metrics"]
            rate = given["learning_rate"] * given["attention_factor"]
            row = {"experiment": name, "run": run, "learning rate, attention": rate}
            found = {k: metrics[k] for k in metrics if k.startswith("weight")}
            weights.append(row | found)
weights = pd.DataFrame(weights)
display.downloads({"attention_sweep.csv": measured, "weights_of_runs.csv": weights})
