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
# # Training the segmentation network
#
# DeepLab learns from the pseudo ground truth as if it were true (Sec. IV-A); ignored pixels do not count.
#
# | | |
# |---|---|
# | **Reads** | `00_data`, `05_pseudo_ground_truth/<run>` |
# | **Writes** | `06_train_segmentation/<run>`: the network (`network.json`, `network.safetensors`), `log.csv` |
# | **Command** | `papermill 06_train_segmentation.ipynb out.ipynb -p runs ../runs/mine -p head aspp` |
# | **Expected** | a falling loss; the measure is in the next notebook |
# | **Time** | 2 minutes on one core (emoji), 15 to 25 minutes on two for `voc-subset` |
#
# `-p label_source masks -p run masks_seed0` trains on the true masks instead: the **fully supervised upper bound**.
# A run `<run>@<backbone>-<head>` is another network on the same pseudo ground truth (Table 2).

# %%
import pandas as pd

from safn import DeepLab, inference, training
from safn_book import charts, checks, galleries, settings, stages
from safn_book.run_names import RunName, Stage

charts.use_style()

# %% tags=["parameters"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
run = "attention_1-0.75-0.5_seed0"  # which pseudo ground truth
label_source = "pseudo"  # pseudo, or masks: the fully supervised upper bound
backbone = "efficientnet_lite0"  # vgg16 (the paper's), resnet101, efficientnet_lite0
head = "largefov"  # largefov or aspp
head_width = 512  # channels of fc6 and fc7 of LargeFOV (paper: 1024)
head_dilation = 4  # of fc6 at stride 8 (paper: 12, for crops of 321)
weights = "imagenet"  # imagenet or none
freeze = 3  # first backbone stages that keep their weights
epochs = 8  # passes over the training images
iterations = 0  # stop after so many steps (paper: 6000; 0: epochs decide)
batch_size = 8  # images a step (paper: 20)
accumulate = 1  # batches a step
crop = 128  # side of the training crop in pixels (paper: 321)
resize = [112, 176]  # long side before the crop, uniform
learning_rate = 2e-4  # of the pretrained layers (paper: 0.001, SGD)
new_layer_factor = 5  # times that for the head
optimizer = "adamw"  # sgd (the paper's) or adamw, which needs fewer steps
momentum = 0.9  # of SGD; AdamW's first beta
weight_decay = 5e-4  # of weights, not of biases
schedule = "poly"  # step: divided by 10 after each third (the paper's); poly
power = 0.9  # of the polynomial schedule
precision = "32-true"  # or bf16-mixed, 16-mixed
accelerator = "auto"  # cpu, gpu, mps or auto
workers = 0  # processes that load images
seed = 0  # of initialisation, order and augmentation

# %%
p = settings.read(globals())
run = RunName.parse(p.run)
run.check_segmentation(p.backbone, p.head, p.label_source, p.seed)

# %%
source, folder, train, _ = stages.load_data(p.runs)
labels = source if run.supervised else stages.require(p.runs, Stage.PSEUDO_LABELS, run.at(Stage.PSEUDO_LABELS))
stage = stages.open_stage(p, Stage.TRAIN_SEGMENTATION, run, inputs=[source, labels])
training.seed_everything(p.seed)
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
masks = None if run.supervised else labels.folder
train = [i for i in train if i not in labels.record.get("left_out", ())]
options = training.TrainingOptions.from_parameters(p)
log = pd.DataFrame(training.train_segmenter(network, options, folder, train, masks, stage.folder))
charts.curves(log, {"cross-entropy": ["loss"], "learning rate (head)": ["learning_rate"]})

# %% [markdown]
# ## What it learned, on training images

# %%
inference.on_device(network, p.accelerator)
shown = galleries.spaced(train, 4)
inference.predict(network, network.normalisation, folder.photos(shown), stage.folder / "examples")
pseudo_labels = {} if masks is None else {"pseudo label": masks}
galleries.image_gallery(folder, shown, masks={"prediction": stage.folder / "examples", **pseudo_labels})

# %% [markdown]
# ## Check

# %%
scores = {"loss": log.loss.iloc[-1]}
done = stage.finish(scores, init=p.weights, detector=labels.record.get("detector"), supervision=p.label_source)
checks.compare(done, source)
