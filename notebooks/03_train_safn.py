# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3 Training SAFN
#
# A classifier that learns from image labels looks at the most telling part: the head of a dog, the wheel of a car.
# Shrink the image, and the same filters see more of the object. But small objects blur. Which scale should we trust?
#
# SAFN lets the network decide at each pixel. We build that choice (Eq. 1), apply it (Eq. 2) and train it with image
# labels alone (Eq. 3).
#
# Paper: Sec. III-A and Fig. 1. Method: [the network](../book/method.md#network). Code:
# [`safn.network`](../book/api_safn.md#the-network).

# %% tags=["hide-cell"]
import pandas as pd

from safn import SAFN, inference, loading, training
from safn.network import ScaleAttention, aggregate, classification_loss
from safn_book import (
    charts,
    checks,
    display,
    galleries,
    photographs,
    settings,
    stages,
    statements,
    studies,
    tables,
)
from safn_book.run_names import RunName, Stage

charts.use_style()

# %% tags=["parameters", "hide-input"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
scales = [1, 0.75, 0.5]  # factors of the rescaled inputs, in (0, 2]
aggregation = "attention"  # attention (Eq. 1 and 2), max or avg pooling (Table 4)
backbone = "efficientnet_lite0"  # vgg16 (the paper's), resnet101 or efficientnet_lite0
weights = "imagenet"  # initial weights of the backbone: imagenet or none
freeze = 3  # first stages of the backbone that are not trained
attention_start = "zero"  # initial weights of the scales: zero (all equal) or random
epochs = 5  # number of epochs (paper: 15)
iterations = 0  # training steps (0: as many as the epochs have)
batch_size = 8  # images a step (paper: 4)
crop = 128  # side of the training crop in pixels (paper: 448)
resize = [112, 176]  # long side before the crop, drawn uniformly from this range
learning_rate = 1e-4  # of the pretrained layers (paper: 0.01, SGD)
new_layer_factor = 2  # factor on the learning rate of the head (paper: 10)
attention_factor = 0.2  # factor on the learning rate of the attention (paper: 10)
optimizer = "adamw"  # sgd (the paper's) or adamw, which needs fewer steps
momentum = 0.9  # of SGD; first beta of AdamW
weight_decay = 5e-4  # on weights, not on biases
schedule = "poly"  # learning rate: poly, (1 - t)^power; step, a tenth after each third
power = 0.9  # exponent of the poly schedule
size = 128  # long side of a validation image in pixels (0: original size)
precision = "32-true"  # 32-true, bf16-mixed or 16-mixed
accelerator = "auto"  # auto, cpu, gpu or mps
workers = 0  # processes that load images
seed = 0  # of initialisation, order of the images and augmentation

# %% tags=["remove-cell"]
p = settings.read(globals())
run = RunName(p.aggregation, p.scales, p.seed)

# %% [markdown]
# ## Weigh the scales
#
# The same backbone and head see the image at $S$ scales. Scale $s$ gives class features $F^s$: one map for each of the
# $N$ classes, brought to the size $h \times w$ of the largest.
#
# Scale attention is two convolutions. They turn the features of all scales into a score $A^s_{ij}$ for scale $s$ at
# pixel $(i, j)$. A softmax over the scales makes weights of the scores:
#
# $$W^s_{ij} = \frac{\exp(A^s_{ij})}{\sum_{k=1}^{S} \exp(A^k_{ij})} \tag{1}$$

# %% tags=["remove-input"]
display.source(ScaleAttention)

# %% [markdown]
# For $B$ images, `features` has shape $(B, S, N, h, w)$, and the weights have shape $(B, S, h, w)$. There is no class
# axis: the attention chooses a scale for a *place*, not for a class.
#
# ## Sum the features
#
# Each scale is multiplied by its weights, pixel by pixel ($\circ$), and the scales are added:
#
# $$\mathit{MSF}_c = \sum_{k=1}^{S} W^k \circ F^k_c \tag{2}$$

# %% tags=["remove-input"]
display.source(aggregate)

# %% [markdown]
# `unsqueeze(2)` gives the weights a class axis. `max` and `avg` are the other kinds of aggregation in the paper's
# Table 4.
#
# ## Learn from image labels
#
# The mean of $\mathit{MSF}_c$ over the image is the score $x_c$. The label $y_c$ is 1 if the image shows class $c$,
# else 0. With $s_c = \sigma(x_c)$, where $\sigma$ is the logistic function, the loss is
#
# $$L = -\sum_{c=1}^{N} \big[ y_c \log s_c + (1 - y_c) \log (1 - s_c) \big] \tag{3}$$

# %% tags=["remove-input"]
display.source(classification_loss)

# %% [markdown]
# PyTorch averages over the classes instead of adding. Nobody tells the attention which scale is right. It only learns
# whether its choice made the scores better.
#
# ## A small run

# %% tags=["hide-cell"]
source, folder, train, val = stages.load_data(p.runs)
stage = stages.open_stage(p, Stage.TRAIN_SAFN, run, inputs=[source])

# %%
training.seed_everything(p.seed)
network = SAFN(
    p.backbone,
    len(folder.classes),
    p.scales,
    p.aggregation,
    weights=p.weights,
    attention_start=p.attention_start,
    freeze=p.freeze,
)
options = training.TrainingOptions.from_parameters(p)
rows = training.train_classifier(
    network,
    options,
    folder,
    train,
    val,
    stage.folder,
)
log = pd.DataFrame(rows)

# %% tags=["hide-input"]
weight_columns = [f"weight_{s:g}" for s in p.scales]
display.figure(
    charts.curves(
        log,
        {
            "loss (Eq. 3)": ["loss"],
            "validation mAP": ["val_mAP"],
            "mean scale weight": weight_columns,
        },
    ),
    f"Training of this run, on {len(train)} training images with labels. "
    f"The mAP is that of {len(val)} validation images.",
    "Three curves over the epochs: the loss, the validation mAP, and the mean weight of each scale.",
)

# %% tags=["remove-input"]
display.text(
    f"At the end the loss is {tables.number(log.loss.iloc[-1], 3)}, and the validation mAP is "
    f"{tables.number(100 * log.val_mAP.iloc[-1])} %. The mAP sorts the images by the score of "
    "a class: it is 100 % if all images with the class come first, for every class. So it "
    "says whether the network knows *what* an image shows. *Where* it is comes next."
)

# %% [markdown]
# ## What does the attention choose?
#
# Weights that are equal at all pixels are constants, and need no network. If one scale has all the weight, the
# attention has collapsed.

# %% tags=["hide-cell"]
inference.on_device(network, p.accelerator)
samples = loading.PlainSet(folder, val, network.normalisation, p.size)
attention = studies.attention_statistics(network, samples)

# %% tags=["hide-input"]
tables.show(
    attention.rename("scale {}".format),
    "Scale weights on the validation images: mean, and standard deviation between the "
    "pixels of an image and between images.",
    digits=3,
) if len(attention) else None

# %% tags=["remove-input"]
display.text(
    "This network has one scale, or pools its scales: there are no weights."
    if attention.empty
    else "Weights start equal if `attention_start` is `zero`. Now they are "
    f"{', '.join(f'{w:.2f}' for w in attention['mean'])} for the scales "
    f"{', '.join(attention.index)}. Between the pixels of an image the weight "
    f"of scale {p.scales[0]:g} varies by {attention['spread between pixels'].iloc[0]:.3f} "
    "(standard deviation). A spread near 0 would mean that the attention is a constant."
)

# %% [markdown]
# The rows go from a small object to a large one. The localization map (Eq. 4) says where the network sees the class.

# %% tags=["hide-input"]
display.figure(
    galleries.attention_gallery(network, samples, rows=5),
    "Validation images from small to large objects, with the localization map of the class "
    "and the weight of each scale.",
    "Five rows. Each has an image, its localization map in colours, and one plain map of "
    "weights between 0 and 1 for each scale.",
)

# %% [markdown]
# Where a map has no colour, the network has found nothing. The paper expects the small scales to gain weight in the
# lower rows, where the objects are large. Do they?
#
# ## Which numbers should I see?
#
# The table sets this run beside recorded runs of the same data and settings. Is a value outside its range? See
# [My number is low](../book/recipes.md#my-number-is-low).

# %% tags=["remove-input"]
scores = {"val_mAP": log.val_mAP.iloc[-1], "loss": log.loss.iloc[-1]}
scores |= {f"weight {s}": row["mean"] for s, row in attention.iterrows()}
scores |= {f"weight spread {s}": row["spread between pixels"] for s, row in attention.iterrows()}
done = stage.finish(scores, init=p.weights)
checks.compare(done, source)

# %% tags=["remove-input"]
display.text(
    "**On photographs** (three recorded runs with 1,631 training images of VOC 2012 and "
    "EfficientNet-Lite0) the validation mAP is "
    f"{statements.recorded(Stage.TRAIN_SAFN, 'metrics', 'val_mAP')} %. Scale 1 has "
    f"{statements.recorded(Stage.TRAIN_SAFN, 'metrics', 'weight 1')} % of the weight, with a "
    "standard deviation between pixels of "
    f"{statements.recorded(Stage.TRAIN_SAFN, 'metrics', 'weight spread 1')} points."
)

# %% [markdown]
# ## The same on photographs
#
# This network comes with the package ([try it](17_try_your_photograph.ipynb)). It was trained on 1,631 other
# photographs.

# %% tags=["hide-input"]
display.figure(
    photographs.columns(
        ["photograph", "map", "scale weights"],
        *photographs.free_steps("kingfisher", "dog", "sheep", "horses"),
    ),
    "SAFN of the profile voc-subset on four photographs: map (Eq. 4) and weights (Eq. 1).",
    "Four photographs. The maps cover bird, dog and sheep, but lie on the grass below the "
    "horses. The weight of scale 1 is near 1 inside and lower along the border.",
)

# %% [markdown]
# The maps cover bird and sheep with a margin. On the dog, the head is brightest: the telling part. The horses fail. The
# network takes them for cows, and its map of *horse* lies on the grass.
#
# The weights hardly follow the objects, here and above. Scale 1 has most of the weight inside, and less along the
# border, where the convolutions see padding. [Chapter 13](13_attention.ipynb) measures this on 743 photographs.
#
# ## Takeaways
#
# - Scale attention is two convolutions, and a softmax over the scales at each pixel.
# - Image labels train it, because the gradient passes through the weighted sum.
# - Weights that vary need not help ([chapter 9](09_scales.ipynb)).
#
# ## Exercises
#
# 1. A pixel has the scores $A = (\ln 2, 0, 0)$. Which weights does Eq. 1 give?
#
# <details><summary>Solution</summary>
#
# ```python
# import torch
#
# torch.tensor([2.0, 1, 1]).log().softmax(0)
# ```
# The weights are 0.5, 0.25 and 0.25: $\exp(A) = (2, 1, 1)$, divided by its sum.
#
# </details>
#
# 2. How many parameters does the attention have? What does the third scale cost?
#
# <details><summary>Solution</summary>
#
# ```python
# for scales in (2, 3):
#     attention = ScaleAttention(scales, 20)
#     print(scales, sum(tensor.numel() for tensor in attention.parameters()))
# ```
# Three scales have 278,531 parameters and two have 185,858. The third scale adds 92,673, most of them in the 3×3
# convolution. It also costs a forward pass of an image of half the width and half the height.
#
# </details>
#
# 3. How much of the spread between pixels comes from the border?
#
# <details><summary>Solution</summary>
#
# ```python
# cow = photographs.free_steps("cow")[0]
# weight = cow.scale_weights[0]  # of scale 1
# weight.std(), weight[3:-3, 3:-3].std()
# ```
# Nearly all of it, on this photograph. The standard deviation falls from 0.139 to 0.007 when three pixels of the map are
# left out along each side. Inside, this attention is almost a constant.
#
# </details>
#
# ## Next
#
# [Chapter 4](04_localization_maps.ipynb) turns the features into localization maps and scores them.
#
# <details><summary>Run this chapter yourself</summary>
#
# In the folder `notebooks`, with two scales and in a folder of its own:
#
# ```
# papermill 03_train_safn.ipynb out.ipynb -p scales "[1,0.5]" -p runs ../runs/mine
# ```
#
# - It reads `00_data`. What is missing is made first.
# - It writes `03_train_safn/<run>`: the network (`network.json`, `network.safetensors`), `log.csv` and `record.json`. The
#   name of the run holds aggregation, scales and seed.
# - It takes 1.5 minutes on one core for the synthetic images, and 10 to 40 minutes on two for `voc-subset`.
#
# </details>
