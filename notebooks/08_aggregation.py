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
# # 8 Aggregation: attention, maximum or average?
#
# A network that sees an image at three scales has three answers for every pixel. It has to make one of them. Is it
# worth learning how? This chapter compares three ways of aggregation, and nothing else differs.
#
# - **Max pooling** takes the largest score. A small piece of evidence at any scale is enough, so maps grow large.
# - **Average pooling** takes the mean. It is cautious: a scale that is wrong pulls the others down.
# - **Scale attention** takes a weighted mean and learns the weights (Eq. 1 and 2). With equal weights it does what
#   average pooling does. It can also trust a single scale.
#
# Sec. IV-C of the paper expects max pooling to spoil small objects, average pooling to leave large objects
# incomplete, and attention to do neither. Its Table 4 has 0.3 points between the three.
#
# [The method](../book/method.md) has the equations. [Training SAFN](03_train_safn.ipynb) builds the attention. All
# three aggregations are one function of the package:

# %% tags=["hide-input"]
import pandas as pd
from IPython.display import display as show_all

from safn.network import aggregate
from safn_book import (
    archive,
    charts,
    checks,
    conclusions,
    cost,
    display,
    published,
    results,
    settings,
    stages,
    statements,
)
from safn_book.run_names import Stage
from safn_book.tables import show, with_short_names

charts.use_style()

# %% tags=["parameters", "hide-input"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
experiments = ["attention_1-0.75-0.5_seed0", "max_1-0.75-0.5_seed0", "avg_1-0.75-0.5_seed0"]  # runs to compare
missing_segmentation = "make"  # of a run: make (train it first), or leave (compare what there is of it)
bootstrap = 1000  # resampled image sets
cost_steps = 8  # training steps and maps timed for each aggregation, Table 5 (0: leave it out)

# %% tags=["remove-cell"]
p = settings.read(globals())
source, folder, *_ = stages.load_data(p.runs)

# %% tags=["hide-input"]
display.source(aggregate)

# %% [markdown]
# `features` are the class maps of all scales, resized to one size: `(B, S, N, h, w)` for `B` images, `S` scales and
# `N` classes. `weights` are those of Eq. 1, `(B, S, h, w)`. The result has the shape `(B, N, h, w)`.
#
# ## On photographs: attention beats pooling
#
# We recorded this comparison on photographs of VOC 2012: 1,631 for training, 743 for validation. The backbone is
# EfficientNet-Lite0. The saliency maps are those of U2-Net-p. Three seeds were trained up to the pseudo labels, and one
# of them up to the segmentation.

# %% tags=["hide-input"]
recorded = archive.read(archive.RESULTS / "evidence.json")
recorded_rows = pd.DataFrame(recorded[Stage.AGGREGATION, "default"]["differences"])
show_all(*statements.report(recorded_rows, "recorded runs on photographs of VOC 2012"))

# %% [markdown]
# *Images* is a 95 % confidence interval of a paired bootstrap over images: it says what other images would change.
# *Images and seeds* adds what another training would change. We call a difference significant if three seeds were
# trained and the second interval excludes 0. About one in twenty such comparisons is a false alarm.
#
# Is attention also better than a single scale? [The next chapter](09_scales.ipynb) asks.
#
# ## In this run
#
# The call below loads the runs and trains what is missing.

# %%
compared = results.load_runs(p.runs, p.experiments, p.missing_segmentation)

# %% tags=["hide-input"]
stage = stages.open_stage(p, Stage.AGGREGATION, inputs=[source, *compared.ends])
ours = results.overview(compared.table)
ours.to_csv(stage.folder / "table4.csv")
data = checks.data_words(source)
caption = f"mAP and mIoU (%), {data}. {results.seeds_note(compared.table)}"
show(with_short_names(ours), caption, best=ours.columns)

# %% [markdown]
# mAP is that of the classifier on validation images. All other columns are mIoU. Localization maps (at their best
# threshold) and pseudo labels (where an ignored pixel counts as background) are scored on training images. The
# segmentation is scored on validation images, at one scale and in the multi-scale test, without CRF. Each column uses
# only the seeds that all rows have.
#
# ### Is the difference significant?

# %%
differences = conclusions.differences(compared, "aggregation", p.bootstrap)

# %% tags=["hide-input"]
show_all(*statements.report(differences, data))

# %% [markdown]
# ### Which objects gain?
#
# If the paper is right, attention wins on small objects against max pooling, and on large ones against average
# pooling.

# %% tags=["hide-input"]
show_all(*statements.size_report(compared.table, data))

# %% [markdown]
# In the recorded runs on photographs, three seeds, attention has the best maps on objects of every size.
# [What we learned](12_what_we_learned.ipynb) has these numbers.
#
# ## What does attention cost?
#
# The three networks take turns in one process, with the crop and the batch of this run. The memory of a training
# step is counted from the sizes of its tensors. The paper names no GPU for its Table 5. So we compare ratios only.

# %% tags=["hide-input"]
trained = stages.require(p.runs, Stage.TRAIN_SAFN, p.experiments[0], restored=True)
trained = trained.record["parameters"]
table5 = pd.DataFrame()
if p.cost_steps:
    size = trained["backbone"], len(folder.classes), tuple(trained["scales"])
    networks = cost.random_networks(*size, trained["freeze"])
    ratios = cost.ratios(networks, trained["crop"], trained["batch_size"], p.cost_steps)
    table5 = cost.ratios_beside_paper(ratios)
    training, extraction, memory = ratios.loc["attention"]
    text = (
        f"Attention trains {training:.2f} times as long as average pooling. Its maps "
        f"take {extraction:.2f} times as long, and its memory is {memory:.2f} times as "
        "large."
    )
    show_all(display.text(text))
    caption = (
        f"Cost divided by that of average pooling: this run ({trained['backbone']}, crops of {trained['crop']} pixels), "
        "and Table 5 (the paper's network and GPU)."
    )
    others = with_short_names(table5.drop("avg")).T
    show_all(show(others, caption, digits=2))
table5.to_csv(stage.folder / "table5.csv")

# %% [markdown]
# Attention adds two convolutions (Sec. III-A). The other scales cost far more, and pooling needs them as well.
#
# ## The paper's Table 4
#
# It was measured on other data: VOC 2012 val, with 10,582 training images, another backbone and another saliency
# detector. Its level cannot be compared with any run of this book. The order of its rows can.

# %% tags=["hide-input"]
table4 = published.table(4).set_index("method")[["single scale", "multiple scales"]]
caption = f"Published, other data: {published.CAPTIONS[4]}."
show(table4.rename_axis(None), caption, best=table4)

# %% [markdown]
# The paper has one number for each row and no seeds. In the recorded runs, the maps of one configuration differ by up
# to a point between seeds. So a lead of 0.2 points needs more evidence.
#
# ## What should I see?
#
# The table sets this run beside recorded runs of the same data and settings. Is a value outside its range? See
# [My number is low](../book/recipes.md#my-number-is-low).

# %% tags=["remove-input"]
final = compared.table.set_index("run")["val_miou_multi"]
scores = {f"val_miou_multi {run}": value for run, value in final.items()}
sizes = results.by_size(compared.table)
done = stage.finish(
    scores,
    differences=differences.to_dict("records"),
    by_size={measure: table.to_dict() for measure, table in sizes.items()},
)
checks.compare_runs(p.runs, p.experiments, source)

# %% [markdown]
# ## Takeaways
#
# - In recorded runs on photographs, maps with attention are significantly better than with max or average pooling.
# - About a third of that lead is left in the pseudo labels, whose outlines come from the saliency maps.
# - One seed decides nothing: a verdict needs several seeds and an interval.
#
# ## Exercises
#
# 1. When is attention the same as average pooling? Check it with `aggregate` on random features.
#
# <details><summary>Solution</summary>
#
# When all weights are equal. This gives `True`:
#
# ```python
# import torch
#
# features = torch.randn(1, 3, 20, 8, 8)
# equal = torch.full((1, 3, 8, 8), 1 / 3)
# torch.allclose(aggregate(features, equal), aggregate(features, "avg"), atol=1e-6)
# ```
#
# </details>
#
# 2. Can attention ever give max pooling? Try weights that are 1 at the largest score of each pixel.
#
# <details><summary>Solution</summary>
#
# Not with several classes. A weight belongs to a scale and a pixel, and all classes share it. The maximum picks a
# scale for each class. This gives `True` for one class, and `False` for 20:
#
# ```python
# import torch
#
# for classes in (1, 20):
#     features = torch.randn(1, 3, classes, 8, 8)
#     best = features.amax(2).argmax(1)  # the scale with the largest score
#     weights = torch.nn.functional.one_hot(best, 3).permute(0, 3, 1, 2).float()
#     print(torch.allclose(aggregate(features, weights), aggregate(features, "max")))
# ```
#
# </details>
#
# 3. The interval over images excludes 0, the one over images and seeds does not. What would you do next?
#
# <details><summary>Solution</summary>
#
# Train more seeds. With `n` of them, the spread `s` between seeds widens the interval by about `t * s / sqrt(n)`.
# Student's factor `t` falls from 4.3 for three seeds to 2.8 for five:
#
# ```python
# from scipy import stats
#
# {n: round(stats.t.ppf(0.975, n - 1), 1) for n in (2, 3, 5, 10)}
# ```
#
# </details>
#
# ## Next
#
# [Do more scales help?](09_scales.ipynb) The next chapter takes the scales away, one after the other.
#
# <details><summary>Run this chapter yourself</summary>
#
# `papermill 08_aggregation.ipynb out.ipynb -p runs ../runs/mine` in the folder `notebooks`. It takes half a minute on
# 2 cores, of which the cost takes most, and minutes more for each run that is missing. It reads `07_evaluate/<run>`
# and the stages before it for each run in `experiments`. It writes `08_aggregation/default`: `table4.csv` and
# `table5.csv`.
#
# </details>
