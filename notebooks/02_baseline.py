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
# # 2 A classifier alone
#
# A network that was trained to say *dog* must have seen the dog somewhere. Can we ask it where? And how far does that
# alone take us to a segmentation?
#
# Grad-CAM answers the first question for any classifier. In this chapter we train a plain one, without a second scale and
# without dilation, look at its maps, and score them. It is where the paper starts from (Fig. 6 (b)), and what SAFN has to
# beat.
#
# Background: [the method](../book/method.md). Code: [`safn.baseline`](../book/api_safn.md).

# %% tags=["hide-cell"]
import pandas as pd

from safn import baseline, evaluation, inference, loading, metrics, training
from safn_book import charts, checks, display, galleries, settings, stages, tables
from safn_book.run_names import Stage

charts.use_style()

# %% tags=["parameters", "hide-input"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
backbone = "efficientnet_lite0"  # vgg16 (the paper's), resnet101, efficientnet_lite0
weights = "imagenet"  # imagenet or none
freeze = 3  # first backbone stages that keep their weights
epochs = 5  # passes over the training images
iterations = 0  # stop after so many steps (0: epochs decide)
batch_size = 8  # images a step
crop = 128  # side of the training crop in pixels
resize = [112, 176]  # long side before the crop, uniform
learning_rate = 2e-4  # of the pretrained layers
new_layer_factor = 2  # times that for the new layer
optimizer = "adamw"  # sgd (the paper's) or adamw, which needs fewer steps
momentum = 0.9  # of SGD; AdamW's first beta
weight_decay = 5e-4  # of weights, not of biases
schedule = "poly"  # poly: (1 - t)^power; step: divided by 10 after each third
power = 0.9  # of the polynomial schedule
size = 128  # long side for maps and validation in pixels (0: as they are)
precision = "32-true"  # or bf16-mixed, 16-mixed
accelerator = "auto"  # cpu, gpu, mps or auto
workers = 0  # processes that load images
seed = 0  # of initialisation, order and augmentation

# %% tags=["remove-cell"]
p = settings.read(globals())

# %% [markdown]
# ## The classifier
#
# A backbone turns the image into features $A^k$, one map for each channel $k$. A 1×1 convolution makes one map for each
# class of them, and its mean over the image is the score $x_c$:

# %% tags=["hide-input"]
display.source(baseline.PlainClassifier.forward)

# %% [markdown]
# It learns from image labels with the loss of [chapter 3](03_train_safn.ipynb) (Eq. 3).

# %% tags=["hide-cell"]
source, folder, train, val = stages.load_data(p.runs)
stage = stages.open_stage(p, Stage.BASELINE, inputs=[source])

# %%
training.seed_everything(p.seed)
plain = baseline.PlainClassifier(p.backbone, len(folder.classes), weights=p.weights, freeze=p.freeze)
options = training.TrainingOptions.from_parameters(p)
rows = training.train_classifier(plain, options, folder, train, val, stage.folder)
log = pd.DataFrame(rows)

# %% tags=["hide-input"]
display.figure(
    charts.curves(log, {"loss (Eq. 3)": ["loss"], "validation mAP": ["val_mAP"]}),
    f"Training of the plain classifier on {len(train)} training images of this data set, "
    f"and its mAP on {len(val)} validation images.",
    "Two curves over the epochs: the loss and the validation mAP.",
)

# %% tags=["hide-input"]
display.text(
    f"At the end the validation mAP is {tables.number(100 * log.val_mAP.iloc[-1])} %. This "
    "says how well the network knows *what* the images show (100 % is perfect)."
)

# %% [markdown]
# ## Where did it look?
#
# Grad-CAM asks how much the score $x_c$ would change with each feature map. The mean of the gradient over the pixels is
# the weight of the map. The weighted sum is cut off at zero:
#
# $$\alpha^k_c = \frac{1}{hw} \sum_{i,j} \frac{\partial x_c}{\partial A^k_{ij}}$$
#
# $$L_c = \mathrm{ReLU}\Big(\sum_k \alpha^k_c A^k\Big)$$

# %% tags=["hide-input"]
display.source(baseline.grad_cam)

# %% [markdown]
# The library `grad-cam` computes it, one class at a time, with a backward pass for each. `layer` is the last of the
# backbone. The result has shape $(1, N, H, W)$ and lies in 0..1. Training images get the maps of their labels, validation
# images those of the classes that the network itself gives more than 0.5.

# %%
inference.on_device(plain, "cpu")
for split, ids in {"train": train, "val": val}.items():
    samples = loading.PlainSet(folder, ids, plain.normalisation, p.size)
    inference.write_grad_cam(plain, samples, stage.folder / split, predicted=split == "val")

# %% tags=["hide-input"]
shown = galleries.by_object_size(folder, train, 5) or galleries.examples(folder, train, 5)
display.figure(
    galleries.image_gallery(folder, shown, maps={"Grad-CAM": stage.folder / "train"}),
    "Training images from small objects to large ones, with the Grad-CAM map of their class.",
    "Five rows with an image, its Grad-CAM map in colours, and its mask.",
)

# %% [markdown]
# The maps are coarse: the backbone divides width and height by 32. Small objects get a blot that is larger than they
# are. Of large objects the map often lights only the most telling part. A map without colour is empty, because no weighted
# sum is positive: the network knows nothing of the class here.
#
# ## How good is a segmentation of maps alone?
#
# A pixel becomes background if no map reaches a threshold, else the class of the largest map. We try all thresholds on the
# training images and keep the best. The score is the mIoU, the mean IoU of all classes and the background
# ([chapter 7](07_evaluate.ipynb)).

# %% tags=["hide-cell"]
sweep = evaluation.sweep_maps(folder, train, stage.folder / "train")
alone = evaluation.score_maps_at(folder, val, stage.folder / "val", sweep.threshold)

# %% tags=["hide-input"]
display.figure(
    charts.sweep("Grad-CAM, training images", sweep.miou),
    "mIoU of the Grad-CAM maps of the training images for each threshold.",
    "A curve that rises to a maximum, marked by a dot, and falls again.",
)

# %% tags=["hide-input"]
tables.percent(
    {
        "training images, given labels, best threshold": sweep.miou.max(),
        "validation images, predicted classes, same threshold": alone.miou(),
    },
    f"mIoU of Grad-CAM maps on {len(folder.with_mask(train))} training and "
    f"{len(folder.with_mask(val))} validation images with a mask.",
)

# %% tags=["hide-input"]
display.text(
    f"On validation images the classifier alone reaches "
    f"{tables.number(100 * alone.miou())} % mIoU, at the threshold "
    f"{tables.number(sweep.threshold, 2)}. It has to find the class *and* the place, so this "
    "is below the score on training images, whose labels are given. Compare it with the "
    "segmentation of chapter 7, which learned from the same image labels."
)

# %% [markdown]
# In the recorded run on photographs (profile `voc-subset`, EfficientNet-Lite0, seed 0) the same classifier reaches a
# validation mAP of 84.0 % and an mIoU of 33.1 % alone, on 743 validation images of VOC 2012. The fully supervised network
# reaches 58.7 % there, single scale and without CRF. The gap is what the other chapters work on.
#
# ## Takeaways
#
# - A classifier knows where a class is, but only coarsely, and prefers its most telling part.
# - Grad-CAM needs a backward pass for each class. SAFN reads its maps off the forward pass.
# - Any method with image labels has to beat these maps.
#
# ## Exercises
#
# 1. Show that Grad-CAM of this network needs no gradient: use the weights of its last layer.
#
# ````{dropdown} Solution
# ```python
# import torch
#
# i = next(i for i in train if folder.label(i).any())
# sample = loading.PlainSet(folder, [i], plain.normalisation, p.size)[0]
# c = int(sample["label"].argmax())
# image, label = sample["image"][None], sample["label"][None]
# found = baseline.grad_cam(plain, plain.backbone[-1], image, label)[0, c]
#
# weights = plain.head.weight[c, :, 0, 0]
# cam = torch.einsum("k,khw->hw", weights, plain.backbone(image)[0]).relu().detach()
# cam = cam / cam.max().clamp_min(1e-12)
# large = torch.nn.functional.interpolate(cam[None, None], found.shape, mode="bilinear")
# (large[0, 0] - found).abs().max()
# ```
# The two maps differ by less than 0.01. The score is the mean of $\sum_k w^k_c A^k$, so its derivative is $w^k_c / hw$
# everywhere, and Grad-CAM is the CAM of the last layer.
# ````
#
# 2. By which factor does SAFN's backbone shrink the image?
#
# ````{dropdown} Solution
# ```python
# from safn.network import SAFN
#
# images = torch.rand(1, 3, 128, 128)
# network = SAFN(p.backbone, len(folder.classes), weights="none")
# plain.backbone(images).shape, network.backbone(images).shape
# ```
# By 16 instead of 32 with EfficientNet-Lite0: the last strides are replaced by dilation. Its maps have four times as many
# pixels.
# ````
#
# ## Next
#
# [Chapter 3](03_train_safn.ipynb) builds the network that sees the image at several scales.
#
# ```{dropdown} Run this chapter yourself
# In the folder `notebooks`:
#
# `papermill 02_baseline.ipynb out.ipynb -p runs ../runs/mine -p epochs 8`
#
# It reads the data of [chapter 0](00_data.ipynb). It writes the folder `02_baseline/default` with the network
# (`network.json`, `network.safetensors`), `log.csv`, and the maps `train/<id>.npz` and `val/<id>.npz`. The synthetic
# images take about a minute on one core.
# ```
#
# ## Check
#
# The last table compares this run with recorded runs of the same data and settings. If a value is outside its range, see
# [which stage makes a number low?](../book/recipes.md#my-number-is-low)

# %% tags=["hide-input"]
scores = {
    "val_mAP": log.val_mAP.iloc[-1],
    "map_miou": sweep.miou.max(),
    "map_threshold": sweep.threshold,
    "classifier_only_val_miou": alone.miou(),
    **{f"map_iou {k}": v for k, v in metrics.iou_by_size(sweep.counts).items()},
}
done = stage.finish(scores, init=p.weights)
checks.compare(done, source)
