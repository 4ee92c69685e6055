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
# # Localization maps
#
# One forward pass gives the map of each class (Sec. III-B):
#
# $$M_c = \frac{\mathrm{ReLU}(MSF_c)}{\max(\mathrm{ReLU}(MSF_c))} \quad (4)$$
#
# | | |
# |---|---|
# | **Reads** | `00_data`, `03_train_safn/<run>` |
# | **Writes** | `04_localization_maps/<run>`: `train/<id>.npz` (given labels), `val/<id>.npz` (predicted classes) |
# | **Command** | `papermill 04_localization_maps.ipynb out.ipynb -p runs ../runs/mine -p run max_1-0.75-0.5_seed0` |
# | **Expected** | mIoU on training images 30.9 ± 0.6 (emoji, three seeds), 39.1 ± 0.5 (photographs, profiles `voc-subset` and `evidence`, three seeds); the check has ranges |
# | **Time** | half a minute on 2 cores (emoji), 3 to 6 minutes of one for `voc-subset` |

# %%
from IPython.display import display

import safn
from safn import evaluation, inference, loading
from safn_book import charts, checks, galleries, settings, stages
from safn_book.run_names import Stage
from safn_book.scores import map_scores
from safn_book.tables import percent

charts.use_style()

# %% tags=["parameters"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
run = "attention_1-0.75-0.5_seed0"  # which classifier: aggregation_scales_seed
size = 128  # long side of the image in pixels (0: as they are)
flip = True  # average with the map of the mirrored image
accelerator = "auto"  # cpu, gpu, mps or auto
workers = 0  # processes that load images

# %%
p = settings.read(globals())

# %%
source, folder, train, val = stages.load_data(p.runs)
model = stages.require(p.runs, Stage.TRAIN_SAFN, p.run)
stage = stages.open_stage(p, Stage.MAPS, p.run, inputs=[source, model])
network = inference.on_device(safn.load(model.folder), p.accelerator)
empty = {
    split: inference.write_maps(
        network,
        loading.PlainSet(folder, ids, network.normalisation, p.size),
        stage.folder / split,
        predicted=split == "val",
        flip=p.flip,
        workers=p.workers,
    )
    for split, ids in {"train": train, "val": val}.items()
}
print(f"maps without a positive value, set to 0: {empty['train']} of the training images' classes")

# %% [markdown]
# ## How good are they?
# mIoU over a full sweep of the background threshold, on the training images with a mask (given labels). The
# validation line is the segmentation that the classifier alone gives: its own classes, the threshold of the training
# images.

# %%
sweep = evaluation.sweep_maps(folder, train, stage.folder / "train")
scores = map_scores(folder, train, sweep)
alone = evaluation.score_maps_at(folder, val, stage.folder / "val", sweep.threshold)
display(charts.sweep("training images", sweep.miou))
percent(
    {
        "training images, best threshold": scores["map_miou"],
        "those of the official train list, same threshold": scores["map_miou_train_list"],
        "validation images, predicted classes, same threshold": alone.miou(),
    }
)

# %%
percent({k.removeprefix("map_iou "): v for k, v in scores.items() if k.startswith("map_iou ")})

# %%
shown = galleries.examples(folder, train, 5)
galleries.image_gallery(folder, shown, maps={"localization map": stage.folder / "train"})

# %% [markdown]
# ## Check

# %%
scores |= {"classifier_only_val_miou": alone.miou(), "empty_maps": empty["train"]}
evaluation.save_counts(stage.folder / "counts.npz", sweep.counts)
done = stage.finish(scores, init=model.record["init"])
checks.compare(done, source)
