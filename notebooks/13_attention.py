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
# # Does the attention collapse?
#
# An attention that gives one scale all the weight at every pixel has collapsed. It is then a network of one scale
# with more parameters. Whether this happens depends on how far the attention moves from its initialisation: on its
# learning rate and on the number of steps. Here one setting at a time is changed.

# %% tags=["parameters", "hide-input"]
# parameters
sweep = "../results/attention.csv"  # rows of `python -m benchmarks.attention`

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from myst_nb import glue

from safn_book import charts, provenance
from safn_book.tables import number, show

charts.use_style()

# %% mystnb={"figure": {"caption": "One setting at a time moved away from the default, which has a ring. Whiskers: standard deviation of the weight between the pixels of an image."}, "image": {"alt": "Weight of scale 1, mAP and map mIoU against five settings of the attention, for synthetic images and for photographs. The weight of scale 1 grows with the learning rate of the attention and with the epochs."}} tags=["hide-input"]
rows = pd.read_csv(sweep)
rows["data"] = ["synthetic images" if data.startswith("emoji") else "photographs" for data in rows["data"]]
settings = {
    "attention_factor": "learning rate of the\nattention / backbone",
    "attention_start": "initialisation of\nthe attention",
    "momentum": "momentum\n(first beta of AdamW)",
    "epochs": "epochs",
    "crop": "crop (pixels)",
}
measures = {"weight 1": "weight of scale 1", "val mAP (%)": "val mAP (%)", "map mIoU (%)": "mIoU of the maps (%)"}
figure, axes = plt.subplots(3, 5, figsize=(10, 6.3), sharex="col", sharey="row", layout="constrained")
for column, (setting, label) in zip(axes.T, settings.items()):
    alone = rows[rows["change"].str.fullmatch(f"default|{setting} = [^,]*")].sort_values(setting)
    values = list(alone[setting].unique())
    for colour, data in zip(charts.SERIES, rows["data"].unique()):
        shown = alone[alone["data"] == data]
        x = shown[setting].map(values.index)
        default = shown["change"] == "default"
        for axis, measure in zip(column, measures):
            spread = shown["spread 1"] if measure == "weight 1" else None
            axis.errorbar(x, shown[measure], spread, marker="o", capsize=3, color=colour)
            axis.plot(x[default], shown[measure][default], "o", color="white", markersize=3, zorder=3)
    ticks = [value if isinstance(value, str) else f"{value:g}" for value in values]
    column[-1].set_xticks(range(len(values)), ticks, fontsize=8)
    column[-1].set_xlabel(label, fontsize=9)
for axis, label in zip(axes[:, 0], measures.values()):
    axis.set_ylabel(label)
figure.legend(axes[1, 0].containers, list(rows["data"].unique()), ncols=2, loc="outside upper center")
plt.close(figure)
figure

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
                glue(f"{short_data}_{name}_{short}", float(found.loc[change, column]), display=False)

# %% [markdown]
# ## What was found
#
# One seed was trained for each setting. Differences of a point or two are noise.
#
# **The learning rate decides.** The paper trains with SGD and gives the attention ten times the learning rate of the
# backbone. On synthetic images that attention collapses: the weight of scale 1 is
# {glue:text}`emoji_sgd_factor_10_weight:.2f` at every pixel. With AdamW the weight depends on the factor between the
# two learning rates.
#
# | factor | weight of scale 1, synthetic images | weight of scale 1, 200 photographs |
# |---|---|---|
# | 1 | {glue:text}`emoji_factor_1_weight:.2f` | {glue:text}`photos_factor_1_weight:.2f` |
# | 0.3 | {glue:text}`emoji_factor_03_weight:.2f` | {glue:text}`photos_factor_03_weight:.2f` |
# | 0.1 (default) | {glue:text}`emoji_default_weight:.2f` | {glue:text}`photos_default_weight:.2f` |
#
# The mAP of the classifier hardly changes: it is {glue:text}`emoji_factor_1_mAP:.1f`,
# {glue:text}`emoji_factor_03_mAP:.1f` and {glue:text}`emoji_default_mAP:.1f` % on synthetic images. The profile
# `voc-subset` trains two and a half times as many steps, so its factor is 0.05.
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
# **Does an attention that has not collapsed give better maps?** This sweep does not show it. On synthetic images the
# maps have {glue:text}`emoji_default_maps:.1f` mIoU with the default, {glue:text}`emoji_factor_1_maps:.1f` when
# nearly all weight is on scale 1, and {glue:text}`emoji_one_scale_maps:.1f` with one scale. Average pooling is worse,
# with {glue:text}`emoji_average_maps:.1f`. [What we learned](12_what_we_learned.ipynb) answers it with three seeds.
#
# ## All rows
#
# mAP is that of the validation images. The mIoU of the maps is that of the best threshold on training images.
# `attention_factor` is the learning rate of the attention over that of the backbone. `attention_start` is its
# initialisation: `zero` begins at average pooling. `input_scaling` divides the input of the attention by its standard
# deviation. SGD has a learning rate of 0.005, batches of 4, and a factor of 10 for the new layers.

# %% tags=["hide-input"]
shown = ["change", "weight 1", "weight 0.75", "weight 0.5", "spread 1", "val mAP (%)", "map mIoU (%)"]
decimals = dict.fromkeys(shown[1:5], 2) | dict.fromkeys(shown[5:], 1)
for (data, images), group in rows.groupby(["data", "images"], sort=False):
    table = group[shown].reset_index(drop=True)
    for column, digits in decimals.items():
        table[column] = [number(value, digits) for value in table[column]]
    for text, words in {SGD: "SGD", "scales = (1,)": "one scale", "aggregation = avg": "average pooling"}.items():
        table["change"] = table["change"].str.replace(text, words)
    text = f"{data.capitalize()}, {images} for training: EfficientNet-Lite0 from ImageNet weights, seed 0."
    display(show(table.rename(columns={"change": "what is changed", "spread 1": "std of weight 1"}), text))

# %% [markdown]
# ## Weights of the recorded runs

# %% tags=["hide-input"]
weights = []
for name, records in provenance.experiments("../results").items():
    for (stage, _), record in records.items():
        parameters, metrics = record["parameters"], record["metrics"]
        if stage == "03_train_safn" and "weight 1" in metrics:
            row = {
                "experiment": name,
                "seed": parameters["seed"],
                "scales": len(parameters["scales"]),
                "crop": parameters["crop"],
            }
            row["learning rate of the attention"] = (
                f"{parameters['learning_rate'] * parameters['attention_factor']:.0e}"
            )
            row |= {f"weight {scale:g}": metrics[f"weight {scale:g}"] for scale in parameters["scales"]}
            weights.append(row | {"std of weight 1": metrics["weight spread 1"]})
show(
    pd.DataFrame(weights),
    "Mean weights of the scales on validation images, and the standard deviation between pixels.",
    digits=2,
)

# %% [markdown]
# `python -m benchmarks.attention runs/emoji` makes the rows that `results/attention.csv` does not have. For
# photographs it is `python -m benchmarks.attention runs/voc-subset --limit 200 --only attention_factor
# attention_start momentum epochs crop`.
