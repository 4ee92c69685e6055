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
# # 6 Training the segmentation network
#
# Pseudo labels need the labels of their image, and a new image has none. Besides, many of their pixels are wrong. Why
# should a network learn from such masks?
#
# Because the errors differ from image to image, and the objects do not. A network that has to explain all images with
# the same weights keeps what they have in common. In this chapter we build *DeepLab* and train it on the pseudo labels
# as if they were true. Then we ask whether it is as good as its teacher.
#
# Paper: Sec. IV-A. Method: [segmentation](../book/method.md#segmentation). Code:
# [`safn.segmentation`](../book/api_safn.md#segmentation) and
# [`safn.training`](../book/api_safn.md#training-and-prediction).

# %% tags=["hide-cell"]
import copy

import pandas as pd
import torch

from safn import DeepLab, evaluation, inference, metrics, segmentation, training
from safn.images import load_mask
from safn_book import (
    charts,
    checks,
    display,
    galleries,
    photographs,
    settings,
    stages,
    statements,
    tables,
)
from safn_book.run_names import RunName, Stage
from safn_book.tables import number

charts.use_style()

# %% tags=["parameters", "hide-input"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
run = "attention_1-0.75-0.5_seed0"  # whose pseudo labels
label_source = "pseudo"  # pseudo, or masks: the fully supervised upper bound
backbone = "efficientnet_lite0"  # vgg16 (the paper's), resnet101 or efficientnet_lite0
head = "largefov"  # largefov (the paper's Table 1) or aspp (Table 2)
head_width = 512  # channels of fc6 and fc7 of LargeFOV (paper: 1024)
head_dilation = 4  # dilation of fc6 at output stride 8 (paper: 12, for crops of 321)
weights = "imagenet"  # initial weights of the backbone: imagenet or none
freeze = 3  # first stages of the backbone that are not trained
epochs = 8  # number of epochs
iterations = 0  # training steps (paper: 6000; 0: as many as the epochs have)
batch_size = 8  # images a step (paper: 20)
accumulate = 1  # batches a step
crop = 128  # side of the training crop in pixels (paper: 321)
resize = [112, 176]  # long side before the crop, drawn uniformly from this range
learning_rate = 1e-4  # of the pretrained layers (paper: 0.001, SGD)
new_layer_factor = 5  # factor on the learning rate of the head
optimizer = "adamw"  # sgd (the paper's) or adamw, which needs fewer steps
momentum = 0.9  # of SGD; first beta of AdamW
weight_decay = 5e-4  # on weights, not on biases
schedule = "poly"  # learning rate: step, a tenth after each third (the paper's); poly
power = 0.9  # exponent of the poly schedule
precision = "32-true"  # 32-true, bf16-mixed or 16-mixed
accelerator = "auto"  # auto, cpu, gpu or mps
workers = 0  # processes that load images
seed = 0  # of initialisation, order of the images and augmentation

# %% tags=["remove-cell"]
p = settings.read(globals())
run = RunName.parse(p.run)
run.check_segmentation(p.backbone, p.head, p.label_source, p.seed)
source, folder, train, _ = stages.load_data(p.runs)
labels = source
if not run.supervised:
    labels = stages.require(p.runs, Stage.PSEUDO_LABELS, run.at(Stage.PSEUDO_LABELS))
stage = stages.open_stage(p, Stage.TRAIN_SEGMENTATION, run, inputs=[source, labels])
training.seed_everything(p.seed)
masks = None if run.supervised else labels.folder
train = [i for i in train if i not in labels.record.get("left_out", ())]

# %% [markdown]
# ## What DeepLab is
#
# DeepLab is a classifier that answers at every place. It takes a network trained on ImageNet and changes two things.
#
# - *It shrinks the image less.* Some strides become 1, so that one pixel of the feature map stands for 8 or 16 pixels
#   (the output stride). The filters behind them are *dilated*: their nine weights move apart, and span as much of the
#   image as before.
# - *It has no global average.* Its head gives $K$ numbers (*logits*) at each pixel of the feature map: one for each
#   class and one for the background.
#
# The head of the paper's Table 1 is *LargeFOV*. Its first convolution has a large dilation, so that it sees what
# surrounds a pixel.

# %% tags=["remove-input"]
display.source(segmentation.large_fov, segmentation.DeepLab.forward)

# %%
network = DeepLab(
    p.backbone,
    p.head,
    len(folder.classes) + 1,
    weights=p.weights,
    head_width=p.head_width,
    freeze=p.freeze,
    head_dilation=p.head_dilation,
    crop=p.crop,
)
image = torch.zeros(1, 3, p.crop, p.crop)
untrained = copy.deepcopy(network).eval()  # network itself stays as it is
print("image   ", tuple(image.shape))
print("features", tuple(untrained.backbone(image).shape))
print("logits  ", tuple(untrained(image).shape))

# %% [markdown]
# ## The loss
#
# At each pixel the softmax of the logits gives probabilities $P_k$. The loss is the *cross-entropy*: minus the
# logarithm of the probability of the label $G$. It is averaged over the set $V$ of pixels that are not ignored:
#
# $$L = -\frac{1}{|V|} \sum_{(i, j) \in V} \log P_{G(i, j)}(i, j)$$
#
# The labels are first shrunk to the size of the logits.

# %% tags=["remove-input"]
display.source(training.Segmenter.training_step, training.downsample_masks)

# %% [markdown]
# ## Training

# %% tags=["remove-output"]
options = training.TrainingOptions.from_parameters(p)
losses = training.train_segmenter(
    network,
    options,
    folder,
    train,
    masks,
    stage.folder,
)
log = pd.DataFrame(losses)

# %% tags=["hide-input"]
display.figure(
    charts.curves(log, {"cross-entropy": ["loss"]}),
    f"Loss of each epoch of training on {len(train)} images.",
    "A curve of the cross-entropy against the epoch.",
)

# %% tags=["remove-input"]
display.text(
    f"The loss goes from {number(log.loss.iloc[0], 2)} in the first epoch to"
    f" {number(log.loss.iloc[-1], 2)} in the last one. It is measured against the labels of the"
    " training. If these are wrong, a lower loss is not always a better mask."
)

# %% [markdown]
# ## Is it as good as its labels?
#
# We segment training images that have a ground-truth mask, at one scale and without labels. The score is the mIoU.

# %% tags=["remove-output"]
network = inference.on_device(network, p.accelerator)
shown = galleries.examples(folder, train, 4)
scored = galleries.spaced(folder.with_mask(train), 40)
inference.predict(
    network,
    network.normalisation,
    folder.photos(list(dict.fromkeys([*shown, *scored]))),
    stage.folder / "examples",
)

# %% tags=["remove-cell"]
learned, counts = evaluation.score_masks(folder, scored, stage.folder / "examples")
rows = [("prediction of the network", learned.miou())]
if masks is not None:
    taught, _ = evaluation.score_masks(folder, scored, masks)
    rows.insert(0, ("pseudo labels", taught.miou("background")))
    coarse = metrics.ConfusionMatrix(len(folder.classes) + 1)  # of labels as coarse as the logits
    for i in scored:
        label = torch.from_numpy(load_mask(masks / f"{i}.png"))[None]
        height, width = label.shape[1:]
        logits = -(-height // network.grid.divisor), -(-width // network.grid.divisor)
        small = training.downsample_masks(label, logits)
        coarse.update(training.downsample_masks(small, (height, width))[0].numpy(), folder.mask(i))
    rows.insert(1, ("pseudo labels at the size of the logits", coarse.miou("background")))

# %% tags=["hide-input"]
tables.percent(
    dict(rows),
    f"mIoU on {len(scored)} training images. Ignored pixels count as background. Data: {checks.data_words(source)}.",
)

# %% tags=["hide-input"]
pseudo_labels = {} if masks is None else {"pseudo label": masks}
display.figure(
    galleries.image_gallery(
        folder,
        shown,
        masks={**pseudo_labels, "prediction": stage.folder / "examples"},
    ),
    "Training images, from a small object to a large one: what the network was taught, and what it says.",
    "One row an image: the image, its pseudo label, the prediction, and the ground truth where there is one.",
)

# %% tags=["remove-input"]
display.text(
    "The mIoU is "
    + statements.listing([f"{number(100 * value)} % for the {name}" for name, value in rows])
    + f". One logit stands for a square of {network.grid.divisor} × {network.grid.divisor} pixels."
    + (
        " Ground-truth masks have sharper borders."
        if masks is None
        else " The pseudo labels have the sharp borders of the saliency map, and the second number says what is left of"
        " them in such squares. But the prediction needs no image label, and what the saliency map has missed in one"
        " image it may have learned from others."
    ),
    scored,
)

# %% [markdown]
# ## How good could it be?
#
# Part of the error is that of the labels, part that of DeepLab. To tell them apart, we train the same network on
# ground-truth masks: the fully supervised upper bound, run `masks_seed0`. [Chapter 11](11_comparison.ipynb) shows both.
#
# ## What should I see?
#
# The table sets this run beside recorded runs of the same data and settings. Is a value outside its range? See
# [My number is low](../book/recipes.md#my-number-is-low).

# %% tags=["remove-input"]
scores = {"loss": log.loss.iloc[-1]}
done = stage.finish(
    scores,
    init=p.weights,
    detector=labels.record.get("detector"),
    supervision=p.label_source,
)
checks.compare(done, source)

# %% tags=["remove-input"]
display.text(
    "**On photographs** (three recorded runs with VOC 2012, EfficientNet-Lite0 and U2-Net-p) "
    "the network has "
    f"{statements.recorded(Stage.EVALUATE, 'metrics', 'val_miou_crf')} % on 743 validation "
    "images, multi-scale with CRF. Its labels have "
    + statements.recorded(Stage.PSEUDO_LABELS, "metrics", "pseudo_miou_background_train_list")
    + " % on the 171 training images of VOC's official list, whose masks are of the same kind. "
    "So it nearly reaches its teacher, on images that it has never seen and without labels."
)

# %% [markdown]
# ## The same on photographs
#
# Both networks come with the package ([try them](17_try_your_photograph.ipynb)). They were trained on 1,631 other
# photographs.

# %% tags=["hide-input"]
display.figure(
    photographs.columns(
        ["photograph", "pseudo labels", "segmentation"],
        *photographs.free_steps("chair", "sheep", "astronaut"),
    ),
    "Pseudo labels, made with the label of the photograph, and the mask of DeepLab, made without it.",
    "Three rows. Of the chair only the seat has a pseudo label, but the mask covers most of it."
    " The sheep has both. The helmet of the astronaut has the colours of other classes.",
) if p.run == photographs.MAIN else None

# %% [markdown]
# Most of the chair has no pseudo label, and the network finds it nevertheless: it has seen other chairs. With the
# astronaut it is the other way round. The pseudo label knows that there is only a person. The network does not, and
# takes parts of the helmet for a motorbike and a bottle.
#
# ## Takeaways
#
# - DeepLab is a classifier with less stride, dilated filters, and an answer at each pixel of its feature map.
# - Ignored pixels have no part in the loss: the network is free there.
# - The network needs no image labels. On photographs it nearly reaches the labels that it learned from.
#
# ## Exercises
#
# 1. How many pixels of the image does the first convolution of the head span? And in the paper (dilation 12, stride 8)?
#
# <details><summary>Solution</summary>
#
# ```python
# first = network.head[0]
# stride = network.grid.divisor
# print(first, (2 * first.dilation[0] + 1) * stride)
# ```
# The outer weights of a 3x3 filter with dilation $d$ are $2d + 1$ pixels of the feature map apart, both counted. In the
# paper that is $25 \cdot 8 = 200$ pixels. On images of 128 pixels most of it would be padding, so the dilation is
# smaller here.
#
# </details>
#
# 2. Two pixels have the logits (0, 0). One has the label 0, the other is ignored. What is the loss?
#
# <details><summary>Solution</summary>
#
# ```python
# logits = torch.zeros(1, 2, 1, 2)  # (B, K, h, w)
# target = torch.tensor([[[0, 255]]])
# torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
# ```
# $-\log 0.5 = 0.693$, the loss of the first pixel alone. Any logits of the second give the same.
#
# </details>
#
# 3. Train the upper bound, and compare its loss with that of this chapter. Which is lower?
#
# <details><summary>Solution</summary>
#
# ```
# papermill 06_train_segmentation.ipynb out.ipynb -p label_source masks -p run masks_seed0
# ```
# Ground-truth masks are alike from image to image, and easier to learn. The last line of the run's `log.csv` has the
# loss. It says nothing about mIoU: the two losses are measured against different labels.
#
# </details>
#
# ## Next
#
# [Chapter 7](07_evaluate.ipynb) measures the network on images that it has never seen.
#
# <details><summary>Run this chapter yourself</summary>
#
# In the folder `notebooks`, with another head and in a folder of its own:
#
# ```
# papermill 06_train_segmentation.ipynb out.ipynb -p head aspp -p runs ../runs/mine
# ```
#
# - It reads `00_data` and `05_pseudo_ground_truth/<run>`. What is missing is made first. A run named
#   `<run>@<backbone>-<head>` is another network on the same pseudo labels (Table 2).
# - It writes `06_train_segmentation/<run>`: the network (`network.json`, `network.safetensors`) and `log.csv`.
# - It takes a minute on one core for the synthetic images, and 15 to 25 minutes on two for `voc-subset`.
#
# </details>
