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
# # Training SAFN
#
# The scale-aware feature network (Sec. III-A, Fig. 1) learns from image labels alone, and at each pixel how to weigh
# the scales at which it sees the image:
#
# $$W^s_{ij} = \frac{\exp(A^s_{ij})}{\sum_{k=1}^{S} \exp(A^k_{ij})} \quad (1) \qquad
# MSF_c = \sum_{k=1}^{S} W^k \circ F^k_c \quad (2)$$
#
# | | |
# |---|---|
# | **Reads** | `00_data` |
# | **Writes** | `03_train_safn/<run>`: the network (`network.json`, `network.safetensors`), `log.csv` |
# | **Command** | `papermill 03_train_safn.ipynb out.ipynb -p scales "[1,0.75,0.5]"` |
# | **Expected** | validation mAP 68.1 ± 2.1 (emoji, three seeds), 84.7 ± 0.4 (photographs, profiles `voc-subset` and `evidence`, three seeds); the check at the end has ranges |
# | **Time** | 3 minutes on one core (emoji), 10 to 40 for the photographs of `voc-subset`, by the processor |
#
# `run` is named after aggregation, scales and seed, so that the runs of an ablation lie side by side.

# %%
import pandas as pd

from safn import SAFN, inference, loading, training
from safn_book import charts, checks, galleries, settings, stages, studies
from safn_book.run_names import RunName, Stage

charts.use_style()

# %% tags=["parameters"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
scales = [1, 0.75, 0.5]  # image scales in (0, 2]
aggregation = "attention"  # attention (Eq. 1-2), max or avg (Table 4)
backbone = "efficientnet_lite0"  # vgg16 (the paper's), resnet101, efficientnet_lite0
weights = "imagenet"  # imagenet or none
freeze = 3  # first backbone stages that keep their weights
attention_start = "zero"  # last attention layer: zero (starts as the average) or random
epochs = 6  # passes over the training images (paper: 15)
iterations = 0  # stop after so many steps (0: epochs decide)
batch_size = 8  # images a step (paper: 4)
crop = 128  # side of the training crop in pixels (paper: 448)
resize = [112, 176]  # long side before the crop, uniform
learning_rate = 2e-4  # of the pretrained layers (paper: 0.01, SGD)
new_layer_factor = 2  # times that for the head (paper: 10)
attention_factor = 0.1  # times that for the attention (paper: 10; AdamW leaves the average soon)
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

# %%
p = settings.read(globals())
run = RunName.of(p.aggregation, p.scales, p.seed)

# %%
source, folder, train, val = stages.load_data(p.runs)
stage = stages.open_stage(p, Stage.TRAIN_SAFN, run, inputs=[source])
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
log = pd.DataFrame(training.train_classifier(network, options, folder, train, val, stage.folder))
weight_columns = [f"weight_{s:g}" for s in p.scales]
charts.curves(log, {"loss (Eq. 3)": ["loss"], "validation mAP": ["val_mAP"], "mean scale weight": weight_columns})

# %% [markdown]
# ## What the attention does
# Mean of each scale's weight over the validation images, and how much a weight varies between the pixels of an image
# and between images. Weights that never vary are a constant, not attention.

# %%
inference.on_device(network, p.accelerator)
samples = loading.PlainSet(folder, val, network.normalisation, p.size)
attention = studies.attention_statistics(network, samples)
attention.round(4) if len(attention) else print("one scale, or no attention: nothing is weighed")

# %% [markdown]
# ## Example maps
# Localization maps (Eq. 4) of validation images for one of their classes, and the weight of each scale. A map without
# colour is empty: the network sees no evidence for the class.

# %%
galleries.attention_gallery(network, samples, rows=5)

# %% [markdown]
# ## Check

# %%
scores = {"val_mAP": log.val_mAP.iloc[-1], "loss": log.loss.iloc[-1]}
scores |= {f"weight {s}": row["mean"] for s, row in attention.iterrows()}
scores |= {f"weight spread {s}": row["spread between pixels"] for s, row in attention.iterrows()}
done = stage.finish(scores, init=p.weights)
checks.compare(done, source)
