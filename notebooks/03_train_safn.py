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
# SAFN lets the network decide at each pixel. In this chapter we build that choice (Eq. 1), apply it (Eq. 2) and train
# it with image labels alone (Eq. 3). Then we look at what it chose.
#
# Paper: Sec. III-A and Fig. 1. Background: [the method](../book/method.md) and
# [SAFN in 25 lines](16_safn_in_25_lines.ipynb). Whole modules: [the code](../book/api_safn.md).

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
    studies,
    tables,
)
from safn_book.run_names import RunName, Stage

charts.use_style()

# %% tags=["parameters", "hide-input"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
scales = [1, 0.75, 0.5]  # image scales in (0, 2]
aggregation = "attention"  # attention (Eq. 1-2), max or avg (Table 4)
backbone = "efficientnet_lite0"  # vgg16 (the paper's), resnet101, efficientnet_lite0
weights = "imagenet"  # imagenet or none
freeze = 3  # first backbone stages that keep their weights
attention_start = "zero"  # last attention layer: zero (starts as the average) or random
epochs = 5  # passes over the training images (paper: 15)
iterations = 0  # stop after so many steps (0: epochs decide)
batch_size = 8  # images a step (paper: 4)
crop = 128  # side of the training crop in pixels (paper: 448)
resize = [112, 176]  # long side before the crop, uniform
learning_rate = 1e-4  # of the pretrained layers (paper: 0.01, SGD)
new_layer_factor = 2  # times that for the head (paper: 10)
attention_factor = 0.2  # times that for the attention (paper: 10; AdamW leaves the average soon)
optimizer = "adamw"  # sgd (the paper's) or adamw, which needs fewer steps
momentum = 0.9  # of SGD; AdamW's first beta
weight_decay = 5e-4  # of weights, not of biases
schedule = "poly"  # poly: (1 - t)^power; step: divided by 10 after each third
power = 0.9  # of the polynomial schedule
size = 128  # long side for validation in pixels (0: as they are)
precision = "32-true"  # or bf16-mixed, 16-mixed
accelerator = "auto"  # cpu, gpu, mps or auto
workers = 0  # processes that load images
seed = 0  # of initialisation, order and augmentation

# %% tags=["remove-cell"]
p = settings.read(globals())
run = RunName.of(p.aggregation, p.scales, p.seed)

# %% [markdown]
# ## Weigh the scales
#
# The image is resized to $S$ scales. The same backbone and head turn each of them into class features $F^s$: one map for
# each of the $N$ classes, all brought to the size $h \times w$ of the largest. Two convolutions see the features of all
# scales and give scale $s$ a score $A^s_{ij}$ at pixel $(i, j)$. A softmax turns the scores into weights:
#
# $$W^s_{ij} = \frac{\exp(A^s_{ij})}{\sum_{k=1}^{S} \exp(A^k_{ij})} \tag{1}$$

# %% tags=["hide-input"]
display.source(ScaleAttention)

# %% [markdown]
# `features` is $F$ of $B$ images, $(B, S, N, h, w)$. `scores` is $A$, and the result is $W$, both $(B, S, h, w)$. The weights
# of a pixel sum to 1. They have no class axis: the attention chooses a scale for a *place*, not for a class. With
# `start="zero"` they begin at $1/S$.
#
# ## Sum the features
#
# Each scale is multiplied by its weights, pixel by pixel ($\circ$). The sum is $\mathit{MSF}_c$, the features of class $c$:
#
# $$\mathit{MSF}_c = \sum_{k=1}^{S} W^k \circ F^k_c \tag{2}$$

# %% tags=["hide-input"]
display.source(aggregate)

# %% [markdown]
# `unsqueeze(2)` gives $W$ a class axis of length 1, and the result has shape $(B, N, h, w)$. `max` and `avg` are max and
# average pooling, which [chapter 8](08_aggregation.ipynb) compares.
#
# ## Learn from image labels
#
# The mean of $\mathit{MSF}_c$ over the image is the score $x_c$. The label $y_c$ is 1 if the image shows class $c$, else
# 0. With the logistic function $\sigma$, for which $1 - \sigma(x) = \sigma(-x)$, the loss is
#
# $$L = -\sum_{c=1}^{N} \big[ y_c \log \sigma(x_c) + (1 - y_c) \log \sigma(-x_c) \big] \tag{3}$$

# %% tags=["hide-input"]
display.source(classification_loss)

# %% [markdown]
# Nobody tells the attention which scale is right. It learns through Eq. 2 whether its choice made the scores better.
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
rows = training.train_classifier(network, options, folder, train, val, stage.folder)
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

# %% tags=["hide-input"]
display.text(
    f"At the end the loss is {tables.number(log.loss.iloc[-1], 3)}, and the validation mAP is "
    f"{tables.number(100 * log.val_mAP.iloc[-1])} %. The mAP sorts the images by the score of "
    "a class: it is 100 % if all images with the class come first, for every class. So it "
    "says whether the network knows *what* an image shows. *Where* it is comes next."
)

# %% [markdown]
# ## Does the attention choose?
#
# Weights that are the same at all pixels are a constant. If one scale takes all the weight everywhere, the attention has
# *collapsed* to a network of one scale ([chapter 13](13_attention.ipynb)).

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
)

# %% tags=["hide-input"]
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
# ## What does it choose?
#
# The rows go from a small object to a large one. The localization map (Eq. 4, the next chapter) says where the network sees
# the class. The other columns are the weights of Eq. 1.

# %% tags=["hide-input"]
display.figure(
    galleries.attention_gallery(network, samples, rows=5),
    "Validation images from small to large objects, with the localization map of the class "
    "and the weight of each scale.",
    "Five rows. Each has an image, its localization map in colours, and one plain map of "
    "weights between 0 and 1 for each scale.",
)

# %% [markdown]
# In a row that works, the map covers the object and little else. A black map has failed: the network sees no evidence for
# the class. The paper expects that the smaller scales gain weight in the lower rows, where the objects are large.

# %% [markdown]
# ## The same on photographs
#
# The next network comes with the package. It was trained on 1,631 photographs of VOC 2012, and on none of these
# ([try your own](17_try_your_photograph.ipynb)).

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
# Bird and sheep are covered with a margin. The map of the dog is brightest at the head, the telling part. The horses fail:
# the network takes them for cows, and its map of *horse* lies on the grass. The weights hardly follow the objects. Scale 1
# has nearly all the weight inside, and less along the border, where the convolutions see the padding.
#
# In recorded runs on photographs (1,631 training images of VOC 2012, EfficientNet-Lite0, three seeds) the validation mAP
# is 84.7 ± 0.4 %. Scale 1 has 82 % of the weight, which varies by 0.16 between pixels. So the attention has not
# collapsed, but on the photographs above nearly all of this lies along the border (exercise 3).
# [Chapter 13](13_attention.ipynb) measures it on 743 photographs.
#
# ## Takeaways
#
# - Scale attention is two convolutions and a softmax over the scales, at each pixel.
# - It learns from image labels, because the weighted sum passes the gradient of the classification loss on.
# - Weights that vary do not yet show that they help. [Chapter 9](09_scales.ipynb) tests that.
#
# ## Exercises
#
# 1. A pixel has the scores $A = (\ln 2, 0, 0)$. Which weights does Eq. 1 give?
#
# ````{dropdown} Solution
# ```python
# import torch
#
# torch.tensor([2.0, 1, 1]).log().softmax(0)
# ```
# The weights are 0.5, 0.25 and 0.25: $\exp(A) = (2, 1, 1)$, divided by its sum.
# ````
#
# 2. How many parameters does the attention have with 20 classes and three scales? What does the third scale cost?
#
# ````{dropdown} Solution
# ```python
# for scales in (2, 3):
#     attention = ScaleAttention(scales, 20)
#     print(scales, sum(tensor.numel() for tensor in attention.parameters()))
# ```
# Three scales have 278,531 parameters and two have 185,858. The third scale adds 92,673, most of them in the 3×3
# convolution. It also adds a forward pass of an image of half the width and half the height.
# ````
#
# 3. How much of the spread between pixels comes from the border of a photograph?
#
# ````{dropdown} Solution
# ```python
# cow = photographs.free_steps("cow")[0]
# weight = cow.scale_weights[0]  # of scale 1
# weight.std(), weight[3:-3, 3:-3].std()
# ```
# Nearly all of it. The standard deviation falls from 0.139 to 0.007 when three pixels of the map are left out along each
# side. Inside, this attention is almost a constant.
# ````
#
# ## Next
#
# [Chapter 4](04_localization_maps.ipynb) turns the features into localization maps and scores them.
#
# ```{dropdown} Run this chapter yourself
# In the folder `notebooks`:
#
# `papermill 03_train_safn.ipynb out.ipynb -p runs ../runs/mine -p scales "[1,0.75,0.5]"`
#
# It reads the data of [chapter 0](00_data.ipynb), and makes them if they are missing. It writes the folder
# `03_train_safn/<run>` with the network (`network.json`, `network.safetensors`), `log.csv` and `record.json`. The name of
# the run holds aggregation, scales and seed. The synthetic images take 1.5 minutes on one core. The photographs of the
# profile `voc-subset` take 10 to 40 minutes on two.
# ```
#
# ## Check
#
# The last table compares this run with recorded runs of the same data and settings. If a value is outside its range, see
# [which stage makes a number low?](../book/recipes.md#my-number-is-low)

# %% tags=["hide-input"]
scores = {"val_mAP": log.val_mAP.iloc[-1], "loss": log.loss.iloc[-1]}
scores |= {f"weight {s}": row["mean"] for s, row in attention.iterrows()}
scores |= {f"weight spread {s}": row["spread between pixels"] for s, row in attention.iterrows()}
done = stage.finish(scores, init=p.weights)
checks.compare(done, source)
