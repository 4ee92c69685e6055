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
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 9 Scales: one, two or three?
#
# SAFN sees each image at three scales, and each of them costs time. What do we gain from an image of half the size?
#
# The paper's idea (Sec. I) is that a small image brings a large object into the view of the network. There the
# network finds the whole cow and not its head alone. But a small object dissolves in a small image. So the network
# needs several scales, and it has to know where to trust which. This makes three predictions:
#
# 1. More scales give better maps. The paper's Table 6 has one point of mIoU between one scale and three.
# 2. Large objects gain most.
# 3. The weight of the full-size image falls with the size of the object.
#
# This chapter tests all three. The weights $W$ are those of Eq. 1, and their code stands in
# [Training SAFN](03_train_safn.ipynb). [The method](../book/method.md) explains them.

# %% tags=["hide-input"]
import pandas as pd
from IPython.display import display as show_all

from safn_book import (
    archive,
    charts,
    checks,
    conclusions,
    display,
    galleries,
    published,
    results,
    settings,
    stages,
    statements,
    studies,
)
from safn_book.run_names import Stage
from safn_book.tables import show, with_short_names

charts.use_style()

# %% tags=["parameters", "hide-input"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
experiments = ["attention_1-0.75-0.5_seed0", "attention_1_seed0", "attention_1-0.75_seed0"]  # runs to compare
missing_segmentation = "make"  # of a run: make (train it first), or leave (compare what there is of it)
bootstrap = 1000  # resampled image sets
study_images = 500  # training images on which the learned weights are studied (0: all)

# %% tags=["remove-cell"]
p = settings.read(globals())
source, folder, train, _ = stages.load_data(p.runs)

# %% [markdown]
# ## On photographs: one scale is enough for the maps
#
# We recorded this comparison on photographs of VOC 2012: 1,631 for training, 743 for validation. The backbone is
# EfficientNet-Lite0. The saliency maps are those of U2-Net-p. Three seeds were trained up to the pseudo labels, and one
# of them up to the segmentation. [The chapter before](08_aggregation.ipynb) explains the intervals.

# %% tags=["hide-input"]
recorded = archive.read(archive.RESULTS / "evidence.json")[Stage.SCALES, "default"]
recorded_rows = pd.DataFrame(recorded["differences"])
show_all(*statements.report(recorded_rows, "recorded runs on photographs of VOC 2012"))

# %% [markdown]
# The first prediction fails here. The maps of two or three scales are not significantly better than those of one.
#
# ## In this run

# %%
compared = results.load_runs(p.runs, p.experiments, p.missing_segmentation)

# %% tags=["hide-input"]
stage = stages.open_stage(p, Stage.SCALES, inputs=[source, *compared.ends])
ours = results.overview(compared.table)
ours.to_csv(stage.folder / "table6.csv")
data = checks.data_words(source)
caption = f"mAP and mIoU (%), {data}. {results.seeds_note(compared.table)}"
show(with_short_names(ours), caption, best=ours.columns)

# %% [markdown]
# Localization maps and pseudo labels are scored on training images. The rest is scored on validation images, without
# CRF. mAP is that of the classifier.
#
# ### Is the difference significant?

# %%
differences = conclusions.differences(compared, "scales", p.bootstrap)

# %% tags=["hide-input"]
show_all(*statements.report(differences, data))

# %% [markdown]
# ### Which objects gain?

# %% tags=["hide-input"]
show_all(*statements.size_report(compared.table, data))

# %% [markdown]
# In the recorded runs on photographs, three seeds, the maps of one scale are as good on large objects as those of
# three. So the second prediction fails there, too.
#
# ## Do the weights follow the size of the object?
#
# We take the networks of the main experiment, one for each seed, and average their weights over the pixels of each
# class of a training image. If the paper is right, the weight of scale 1 falls to the right.

# %%
masked = [i for i in train if folder.mask_path(i)]
images = galleries.spaced(masked, p.study_images or len(masked))
networks = list(results.main_runs(compared.table)["run"])
studied = studies.study_runs(p.runs, folder, images, networks)
grouped = studies.weights_by_size(studied)
correlations = studies.weight_size_correlation(studied)

# %% tags=["hide-input"]
for run, study in studied.items():
    study.objects.to_csv(stage.folder / f"objects_{run}.csv", index=False)
if left_out := [run for run in networks if run not in studied]:
    why = "without masks, attention or network"
    show_all(display.text(f"Not studied ({why}): {', '.join(left_out)}."))
text = statements.correlation_statement(correlations)
show_all(display.text(f"**This run.** {text}"))
if studied:
    caption = f"Weight of each scale on objects of similar size: median and quartiles. One line a network, {data}."
    alt = "Three lines over the share of the image that a class covers, one a scale."
    show_all(display.figure(charts.weights_by_size(grouped), caption, alt))
text = statements.correlation_statement(pd.DataFrame(recorded["correlations"]))
show_all(display.text(f"**Recorded runs on photographs, three seeds.** {text}"))
emoji = archive.read(archive.RESULTS / "evidence-emoji.json")[Stage.SCALES, "default"]
text = statements.correlation_statement(pd.DataFrame(emoji["correlations"]))
display.text(f"**Recorded runs on synthetic images, three seeds.** {text}")

# %% [markdown]
# The third prediction holds on photographs, though weakly. The size of the object is not all that the weights follow:
# [chapter 13](13_attention.ipynb) finds that they depend on the distance to the border of the image.
#
# ## Do the learned weights matter?
#
# We keep each network and its features and put other weights into Eq. 2. *The mean of the learned weights* keeps the
# preference for a scale and nothing else. *Shuffled* weights keep the weights of each image and lose their place.

# %%
replaced = studies.replacement_scores(studied)

# %% tags=["hide-input"]
replaced.to_csv(stage.folder / "replaced.csv", index=False)
numbers = replaced.drop(columns=["from", "to"])
means = numbers.groupby("weights", sort=False).mean(numeric_only=True)
if studied:
    changes = statements.replaced_table(replaced)
    text = statements.weights_statement(changes, len(studied))
    show_all(display.text(f"**This run.** {text}"))
    caption = (
        "Other weights than the learned ones: change of the mIoU of the maps, in "
        "points, with 95 % intervals over images. A dot is a network. Training "
        f"images, {data}."
    )
    alt = "One row a kind of weights. The smaller a single scale, the worse its maps."
    figure = charts.replaced(replaced, statements.WEIGHTS)
    show_all(display.figure(figure, caption, alt))
photographs = pd.DataFrame(recorded["replaced"])
changes = statements.replaced_table(photographs)
text = statements.weights_statement(changes, photographs["run"].nunique())
display.text(f"**Recorded runs on photographs, three seeds.** {text}")

# %% [markdown]
# So the network has learned to prefer a scale. On photographs it does not matter where it prefers it more: weights at
# shuffled places do as well.
#
# ## The paper's Table 6
#
# It was measured on other data: VOC 2012 val, with 10,582 training images, another backbone and another saliency
# detector. Its level cannot be compared with any run of this book. The order of its rows can.

# %% tags=["hide-input"]
table6 = published.table(6).set_index("method")[["single scale", "multiple scales"]]
caption = f"Published, other data: {published.CAPTIONS[6]}."
show(table6.rename_axis(None), caption, best=table6)

# %% [markdown]
# ## Which numbers should I see?
#
# The table sets this run beside recorded runs of the same data and settings. Is a value outside its range? See
# [My number is low](../book/recipes.md#my-number-is-low).

# %% tags=["remove-input"]
final = compared.table.set_index("run")["val_miou_multi"]
scores = {f"val_miou_multi {run}": value for run, value in final.items()}
scores |= {f"maps, {weights}": row["mIoU"] / 100 for weights, row in means.iterrows()}
sizes = results.by_size(compared.table)
done = stage.finish(
    scores,
    differences=differences.to_dict("records"),
    by_size={measure: table.to_dict() for measure, table in sizes.items()},
    weights_by_size=grouped.to_dict("records"),
    correlations=correlations.to_dict("records"),
    replaced=replaced.to_dict("records"),
)
checks.compare(done, source)

# %% [markdown]
# ## Takeaways
#
# - In recorded runs on photographs, the maps of one scale are as good as those of three.
# - There, the learned weights follow the size of the object as the paper says, but weakly.
# - There, a constant weight for each scale does as well as the learned weights.
#
# ## Exercises
#
# 1. What does the network see of an object of 32 pixels at scale 0.5, when its output stride is 16?
#
# <details><summary>Solution</summary>
#
# One pixel of the feature map: 32 * 0.5 / 16 = 1. At scale 1 it sees 2 x 2 pixels. This is why small objects blur.
#
# </details>
#
# 2. Which scale alone gives the best maps in this run, and how far is it from the learned weights?
#
# <details><summary>Solution</summary>
#
# In the recorded runs on photographs it is scale 1. This is the answer for this run:
#
# ```python
# alone = means[means.index.str.contains("alone")]
# alone["mIoU"].idxmax(), round(alone["mIoU"].max() - means.loc["learned", "mIoU"], 2)
# ```
#
# </details>
#
# 3. Does the weight of scale 1 depend on the class as well as on the size?
#
# <details><summary>Solution</summary>
#
# The table lists both. Size and class vary together, so this table alone cannot separate them.
#
# ```python
# objects = next(iter(studied.values())).objects
# objects.groupby("class")[["share", "weight 1"]].mean().sort_values("weight 1")
# ```
#
# </details>
#
# ## Next
#
# [What we learned](12_what_we_learned.ipynb) puts the answers of both chapters together.
#
# <details><summary>Run this chapter yourself</summary>
#
# `papermill 09_scales.ipynb out.ipynb -p runs ../runs/mine` in the folder `notebooks`. It takes half a minute on
# 2 cores, and minutes more for each run that is missing. It reads `07_evaluate/<run>` and the stages before it for
# each run in `experiments`. It writes `09_scales/default`: `table6.csv`, `objects_<run>.csv` and `replaced.csv`.
#
# </details>
