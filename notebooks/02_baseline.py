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
# # Baseline maps: Grad-CAM of a plain classifier
#
# Where the paper starts from (Fig. 6 (b)): a classifier as published for ImageNet, without dilation and without a
# second scale, explained by Grad-CAM. Its maps on *validation* images, for the classes it predicts itself, are the
# segmentation that a classifier alone gives.
#
# | | |
# |---|---|
# | **Reads** | `00_data` |
# | **Writes** | `02_baseline/default`: the network (`network.json`, `network.safetensors`), `log.csv`, maps `train/<id>.npz`, `val/<id>.npz` |
# | **Command** | `papermill 02_baseline.ipynb out.ipynb -p runs ../runs/mine -p epochs 6` |
# | **Expected** | coarse maps on the most discriminative parts; emoji, seed 0: validation mAP 50.4, alone 15.2 val mIoU |
# | **Time** | about 1 minute on 2 cores (emoji) |

# %%
import pandas as pd
from IPython.display import display

from safn import baseline, evaluation, inference, loading, metrics, training
from safn_book import charts, checks, galleries, settings, stages
from safn_book.run_names import Stage
from safn_book.tables import percent

charts.use_style()

# %% tags=["parameters"]
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

# %%
p = settings.read(globals())

# %%
source, folder, train, val = stages.load_data(p.runs)
stage = stages.open_stage(p, Stage.BASELINE, inputs=[source])
training.seed_everything(p.seed)
plain = baseline.PlainClassifier(p.backbone, len(folder.classes), weights=p.weights, freeze=p.freeze)
options = training.TrainingOptions.from_parameters(p)
log = pd.DataFrame(training.train_classifier(plain, options, folder, train, val, stage.folder))
charts.curves(log, {"loss (Eq. 3)": ["loss"], "validation mAP": ["val_mAP"]})

# %% [markdown]
# ## Grad-CAM maps
# By the `grad-cam` library on the last layer of the backbone; for training images of the given labels, for validation
# images of the classes with a score above 0.5.

# %%
inference.on_device(plain, "cpu")
for split, ids in {"train": train, "val": val}.items():
    samples = loading.PlainSet(folder, ids, plain.normalisation, p.size)
    inference.write_grad_cam(plain, samples, stage.folder / split, predicted=split == "val")
sweep = evaluation.sweep_maps(folder, train, stage.folder / "train")
alone = evaluation.score_maps_at(folder, val, stage.folder / "val", sweep.threshold)
display(charts.sweep("Grad-CAM, training images", sweep.miou))
percent(
    {
        "training images, best threshold": sweep.miou.max(),
        "validation images, predicted classes, same threshold": alone.miou(),
    }
)

# %%
galleries.image_gallery(folder, galleries.examples(folder, train, 4), maps={"Grad-CAM": stage.folder / "train"})

# %% [markdown]
# ## Check

# %%
scores = {
    "val_mAP": log.val_mAP.iloc[-1],
    "map_miou": sweep.miou.max(),
    "map_threshold": sweep.threshold,
    "classifier_only_val_miou": alone.miou(),
    **{f"map_iou {k}": v for k, v in metrics.iou_by_size(sweep.counts).items()},
}
done = stage.finish(scores, init=p.weights)
checks.compare(done, source)
