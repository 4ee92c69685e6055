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
# Grad-CAM answers the first question for any classifier. In this chapter we train a plain one, without a second scale
# and without dilation. We look at its maps, and score them. The paper starts here (Fig. 6 (b)), and SAFN has to beat
# it.
#
# Paper: Sec. IV-C and Fig. 6. Method: [why more than one scale?](../book/method.md#why-more-than-one-scale) Code:
# [`safn.baseline`](../book/api_safn.md#localization-maps).

# %% tags=["hide-cell"]
import pandas as pd

from safn import baseline, evaluation, inference, loading, metrics, training
from safn_book import (
    charts,
    checks,
    display,
    galleries,
    settings,
    stages,
    statements,
    tables,
)
from safn_book.run_names import Stage

charts.use_style()

# %% tags=["parameters", "hide-input"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
backbone = "efficientnet_lite0"  # vgg16 (the paper's), resnet101 or efficientnet_lite0
weights = "imagenet"  # initial weights of the backbone: imagenet or none
freeze = 3  # first stages of the backbone that are not trained
epochs = 5  # number of epochs
iterations = 0  # training steps (0: as many as the epochs have)
batch_size = 8  # images a step
crop = 128  # side of the training crop in pixels
resize = [112, 176]  # long side before the crop, drawn uniformly from this range
learning_rate = 2e-4  # of the pretrained layers
new_layer_factor = 2  # factor on the learning rate of the new layer
optimizer = "adamw"  # sgd (the paper's) or adamw, which needs fewer steps
momentum = 0.9  # of SGD; first beta of AdamW
weight_decay = 5e-4  # on weights, not on biases
schedule = "poly"  # learning rate: poly, (1 - t)^power; step, a tenth after each third
power = 0.9  # exponent of the poly schedule
size = 128  # long side of an image for maps and validation in pixels (0: original size)
precision = "32-true"  # 32-true, bf16-mixed or 16-mixed
accelerator = "auto"  # auto, cpu, gpu or mps
workers = 0  # processes that load images
seed = 0  # of initialisation, order of the images and augmentation

# %% tags=["remove-cell"]
p = settings.read(globals())

# %% [markdown]
# ## The classifier
#
# A backbone turns the image into features $A^k$, one map for each channel $k$. A 1×1 convolution makes of them one map
# for each class, and the mean of this map over the image is the score $x_c$:

# %% tags=["remove-input"]
display.source(baseline.PlainClassifier.forward)

# %% [markdown]
# It learns from image labels, with the loss of [chapter 3](03_train_safn.ipynb) (Eq. 3).

# %% tags=["hide-cell"]
source, folder, train, val = stages.load_data(p.runs)
stage = stages.open_stage(p, Stage.BASELINE, inputs=[source])

# %%
training.seed_everything(p.seed)
plain = baseline.PlainClassifier(
    p.backbone,
    len(folder.classes),
    weights=p.weights,
    freeze=p.freeze,
)
options = training.TrainingOptions.from_parameters(p)
rows = training.train_classifier(
    plain,
    options,
    folder,
    train,
    val,
    stage.folder,
)
log = pd.DataFrame(rows)

# %% tags=["hide-input"]
display.figure(
    charts.curves(log, {"loss (Eq. 3)": ["loss"], "validation mAP": ["val_mAP"]}),
    f"Training of the plain classifier on {len(train)} training images of this data set, "
    f"and its mAP on {len(val)} validation images.",
    "Two curves over the epochs: the loss and the validation mAP.",
)

# %% tags=["remove-input"]
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

# %% tags=["remove-input"]
display.source(baseline.grad_cam)

# %% [markdown]
# One forward pass keeps the feature maps of `layer`, the last of the backbone. A backward pass for each class gives the
# gradient. The result has shape $(1, N, H, W)$ and lies in 0..1. Training images get the maps of their labels.
# Validation images get those of the classes to which the network itself gives more than 0.5.

# %%
inference.on_device(plain, "cpu")
for split, ids in {"train": train, "val": val}.items():
    samples = loading.PlainSet(folder, ids, plain.normalisation, p.size)
    inference.write_grad_cam(
        plain,
        samples,
        stage.folder / split,
        predicted=split == "val",
    )

# %% tags=["hide-input"]
shown = galleries.by_object_size(folder, train, 5)
display.figure(
    galleries.image_gallery(folder, shown, maps={"Grad-CAM": stage.folder / "train"}),
    "Training images from small objects to large ones, with the Grad-CAM map of their class.",
    "Five rows with an image, its Grad-CAM map in colours, and its mask.",
)

# %% [markdown]
# The maps are coarse, because the backbone divides width and height by 32. A small object gets a blot that is larger
# than itself. On a large object the map often shows only the most telling part. A map without colour is empty: no
# weighted sum is positive, so the network has found nothing of the class.
#
# ## How good is a segmentation of maps alone?
#
# A pixel becomes background if no map reaches a threshold. Otherwise it gets the class of the largest map. We try all
# thresholds on the training images and keep the best. The score is the mIoU, the mean IoU of all classes and the
# background ([chapter 7](07_evaluate.ipynb)).

# %% tags=["hide-cell"]
sweep = evaluation.sweep_maps(folder, train, stage.folder / "train")
alone = evaluation.score_maps_at(folder, val, stage.folder / "val", sweep.threshold)

# %% tags=["hide-input"]
display.figure(
    charts.sweep("Grad-CAM, training images", sweep.miou),
    "mIoU of the Grad-CAM maps of the training images for each threshold.",
    "A curve that rises to a maximum, marked by a dot, and falls again.",
) if folder.with_mask(train) else None

# %% tags=["hide-input"]
tables.percent(
    {
        "training images, given labels, best threshold": sweep.miou.max(),
        "validation images, predicted classes, same threshold": alone.miou(),
    },
    f"mIoU of Grad-CAM maps on {len(folder.with_mask(train))} training and "
    f"{len(folder.with_mask(val))} validation images with a mask.",
)

# %% tags=["remove-input"]
display.text(
    f"On validation images the classifier alone reaches "
    f"{tables.number(100 * alone.miou())} % mIoU, at the threshold "
    f"{tables.number(sweep.threshold, 2)}. It has to find the class *and* the place, so this "
    "is below the score on training images, whose labels are given. Compare it with the "
    "segmentation of chapter 7, which learned from the same image labels.",
    folder.with_mask(val),
)

# %% [markdown]
# ## What should I see?
#
# The table sets this run beside recorded runs of the same data and settings. Is a value outside its range? See
# [My number is low](../book/recipes.md#my-number-is-low).

# %% tags=["remove-input"]
scores = {
    "val_mAP": log.val_mAP.iloc[-1],
    "map_miou": sweep.miou.max(),
    "map_threshold": sweep.threshold,
    "classifier_only_val_miou": alone.miou(),
    **{f"map_iou {k}": v for k, v in metrics.iou_by_size(sweep.counts).items()},
}
done = stage.finish(scores, init=p.weights)
checks.compare(done, source)

# %% tags=["remove-input"]
display.text(
    "**On photographs** (recorded run, profile voc-subset: 1,631 training and 743 validation "
    "images of VOC 2012, EfficientNet-Lite0, seed 0) the validation mAP is "
    + statements.recorded(Stage.BASELINE, "metrics", "val_mAP", file="voc-subset")
    + " %. The classifier alone reaches an mIoU of "
    + statements.recorded(Stage.BASELINE, "metrics", "classifier_only_val_miou", file="voc-subset")
    + " %, and the fully supervised network "
    + statements.recorded(Stage.EVALUATE, "metrics", "val_miou_single", configuration="masks")
    + " % (single scale, no CRF). The other chapters work on this gap."
)

# %% [markdown]
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
# <details><summary>Solution</summary>
#
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
#
# </details>
#
# 2. By which factor does SAFN's backbone shrink the image?
#
# <details><summary>Solution</summary>
#
# ```python
# import torch
#
# from safn.network import SAFN
#
# images = torch.rand(1, 3, 128, 128)
# network = SAFN(p.backbone, len(folder.classes), weights="none")
# plain.backbone(images).shape, network.backbone(images).shape
# ```
# By 16 instead of 32 with EfficientNet-Lite0: the last strides are replaced by dilation. Its maps have four times as many
# pixels.
#
# </details>
#
# ## Next
#
# [Chapter 3](03_train_safn.ipynb) builds the network that sees the image at several scales.
#
# <details><summary>Run this chapter yourself</summary>
#
# In the folder `notebooks`, with more epochs and in a folder of its own:
#
# ```
# papermill 02_baseline.ipynb out.ipynb -p runs ../runs/mine -p epochs 8
# ```
#
# - It reads `00_data`. What is missing is made first.
# - It writes `02_baseline/default`: the network (`network.json`, `network.safetensors`), `log.csv`, and the maps
#   `train/<id>.npz` and `val/<id>.npz`.
# - It takes about a minute on one core for the synthetic images.
#
# </details>
