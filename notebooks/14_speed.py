# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-all
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
# # 14 Speed and memory
#
# How long does a run take, and how much memory does it need? This chapter answers with recorded runs: first on two
# processor cores, then on a GPU with the networks of the paper. The second half is for developers. It measures what makes
# the stages fast.

# %% tags=["parameters", "hide-input"]
# parameters
bench = "../results/bench.json"  # of `make bench`
smoke = "../results/smoke.json"  # of `python -m benchmarks.paper_networks`
gpu = "../results/gpu.json"  # of `python -m benchmarks.gpu_results`
ablation = "../results/evidence-448.json"  # of `python -m benchmarks.evidence448`

# %% tags=["hide-input"]
import json

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display as show_now
from matplotlib.ticker import LogLocator
from myst_nb import glue

from safn_book import archive, charts, display, workflow
from safn_book import gpu as gpu_tables
from safn_book.run_names import CHAIN, Stage
from safn_book.tables import number, show
from safn_book.workflow import NOTEBOOKS

charts.use_style()


def measured(path: str) -> dict:
    """A file of measurements; empty where it was not made."""
    file = NOTEBOOKS / path
    return json.loads(file.read_text()) if file.exists() else {}


# %% [markdown]
# ## How long does a stage take?

# %% tags=["hide-input"]
names = {
    "evidence-emoji": "synthetic images",
    "voc-subset": "photographs (voc-subset)",
    "evidence": "photographs (evidence)",
}
times = {}
for name, title in names.items():
    records = archive.experiments().get(name, {})
    rows = [
        (Stage(stage).heading, r["seconds"] / 60, r["peak_megabytes"] / 1000)
        for (stage, _), r in records.items()
        if stage < Stage.AGGREGATION
    ]
    rows = pd.DataFrame(rows, columns=["stage", "minutes", "memory"])
    times[title] = rows.groupby("stage", sort=False)["minutes"].median()
    times[title]["most memory of any stage (GB)"] = rows["memory"].max()
order = [stage.heading for stage in Stage if stage < Stage.AGGREGATION]
order += ["most memory of any stage (GB)"]
times = pd.DataFrame(times).reindex(order).rename_axis(None)
show(
    times,
    "Minutes that one run of a stage takes, and memory. Two cores, no GPU, medians over recorded runs.",
)

# %% tags=["hide-input"]
chain = times.loc[[stage.heading for stage in CHAIN]].sum()
whole = times.drop(index="most memory of any stage (GB)").sum()
synthetic, photographs = chain["synthetic images"], chain["photographs (voc-subset)"]
hours = whole["photographs (voc-subset)"] / 60
glue("minutes_of_a_run", number(synthetic, 0), display=False)
glue("hours_of_voc_subset", number(hours, 1), display=False)
display.text(
    f"One SAFN, from the training of the classifier to its mIoU, takes {synthetic:.0f} minutes on the synthetic"
    f" images and {photographs:.0f} minutes on 2,374 photographs. With data, saliency maps and the plain classifier,"
    f" the profile `voc-subset` takes {hours:.1f} hours. Saliency maps cost most of the difference. They are made once"
    " and serve every run."
)

# %% [markdown]
# ## How long does the paper's experiment take?
#
# The profile `paper` trains VGG16 and ResNet-101 at the paper's crops and batches. The table has the hours of one SAFN
# and of the whole profile: five configurations with three seeds, two controls, the fully supervised network and a ResNet.

# %% tags=["hide-input"]
trial = measured(smoke)
estimate, card = trial.get("estimate", {}), measured(gpu)
glue("crf_core_hours", number(estimate.get("crf_core_hours"), 0), display=False)
for kind, of in card.get("hours", {}).items():
    for way, found in of.items():
        name = f"{way}_{'loop' if 'loop' in kind else 'steps'}"
        glue(f"one_{name}", number(found["one SAFN"], 1), display=False)
        glue(f"profile_{name}", number(found["whole profile"], 0), display=False)
        glue(f"classifier_{name}", number(found["classifier"], 1), display=False)
table = gpu_tables.hours(card)
show(
    table,
    f"GPU hours of the profile paper, without saliency maps and CRF. {gpu_tables.conditions(card)}.",
)

# %% [markdown]
# With mixed precision (`16-mixed`) one SAFN takes {glue:text}`one_16-mixed_steps` hours where batches are always ready. In
# the measured loop of training they are not: the GPU was busy for 36 % of the time. So {glue:text}`one_16-mixed_loop` hours
# is an upper number. The whole profile takes {glue:text}`profile_16-mixed_steps` to {glue:text}`profile_16-mixed_loop`
# hours. Plain float32 takes {glue:text}`profile_plain_steps` hours. The CRF takes {glue:text}`crf_core_hours` hours of one
# processor core.
#
# Runs do not wait for each other, so a cluster can do them side by side: [On a cluster](../book/cluster.md). The next table counts
# their jobs. It takes each run for one of three scales, which cost most, so the hours are upper numbers.

# %% tags=["hide-input"]
paper, measured_hours = workflow.load("paper", "voc"), card.get("hours", {}).values()
alone = {"controls": [], "segmentations": {}, "upper_bound": False}
rows = []
for configurations, seeds in ((1, 1), (5, 1), (5, 3), (5, 8)):
    chosen = {"experiments": paper.experiments[:configurations], "seeds": [*range(seeds)]}
    jobs = workflow.jobs(paper.model_copy(update=alone | chosen))
    runs, ways = configurations * seeds, [hours["16-mixed"] for hours in measured_hours]
    hours = [runs * way["one SAFN"] + way["classifier"] for way in ways]
    row = {
        "jobs": len(jobs),
        "jobs_with_a_gpu": sum(job.stage in paper.resources for job in jobs),
        "gpu_hours": " to ".join(number(value, 1) for value in hours) or "not measured yet",
    }
    rows.append({"configurations": configurations, "seeds": seeds, **row})
    for name, value in row.items():
        glue(f"{name}_{configurations}x{seeds}", str(value), display=False)
table = pd.DataFrame(rows).rename(columns=lambda name: name.replace("_", " ").replace("gpu", "GPU"))
show(
    table,
    "Jobs of the paper's settings on VOC 2012, and GPU hours: steps alone, and in the loop of training."
    f" 16-mixed, {gpu_tables.conditions(card)}.",
)

# %% [markdown]
# The next table has two real training steps of each network on a processor, and the memory that they need.

# %% tags=["hide-input"]
networks = pd.DataFrame(
    [
        {
            "network": row["network"],
            "use": "training" if row["stage"][:2] in ("02", "03", "06") else "one photograph",
            "image": " × ".join(map(str, row["image"])),
            "batch": row["batch"],
            "seconds a step": row["seconds_a_step"],
            "memory (GB)": row["peak_megabytes"] / 1000,
        }
        for row in trial.get("measured", [])
    ]
)
show(
    networks,
    f"Steps of the paper's networks, float32. {trial.get('machine', 'not measured yet')}.",
)

# %% [markdown]
# ## What makes it fast
#
# - **One forward pass gives the maps of all classes** (Eq. 4). Grad-CAM goes back through the network once for each
#   class.
# - **Dilated depthwise convolutions work by phases.** [`safn.fast_layers.PhasedConv`](../book/api_safn.md#the-network)
#   splits the image into the grids that a dilated convolution never mixes. The function is the same, without the slow
#   backward pass.
# - **Batch normalisation is folded** into the convolution before it, since its statistics are fixed
#   ([`safn.fast_layers.fold_batch_norm`](../book/api_safn.md#the-network)).
# - **The CRF gets only classes that can win.** A class whose probability stays below 0.0001 everywhere is left out
#   ([`safn.crf.dense_crf`](../book/api_safn.md#segmentation)). The CRF runs in processes of its own while the network goes on
#   ([`safn.inference.predict`](../book/api_safn.md#training-and-prediction)).
# - **The maps of a folder are computed four images at a time.**
# - **On a GPU, mixed precision.** The softmax of the attention and all losses stay in float32. Batches are pinned and
#   copied without blocking, and no step waits for its own loss.
# - **Memory does not grow with the number of images**, except for the table of counts: 4 kB an image.
#
# ## For developers
#
# `make bench` measures each part against the usual way to do it. Both alternate within one process, so that
# background load affects both equally. The ratio is that of the times: above 1, ours is faster. Here and below, *Show the
# code* opens a table as well.

# %% tags=["hide-input", "hide-output"]
found = measured(bench)
parts = pd.DataFrame(found.get("rows", []))
timed = parts.dropna(subset=["ours ms", "other ms"]) if len(parts) else parts
glue(
    "machine",
    f"{found.get('machine', 'not measured yet')}, torch {found.get('versions', {}).get('torch', '')}",
    display=False,
)


def table_of(rows: pd.DataFrame, ratio: str) -> pd.DataFrame:
    """Times and their ratio with quartiles, as texts."""
    return pd.DataFrame(
        {
            "what": rows["what"],
            "compared with": rows["against"],
            "ours (ms)": [number(value, 0) for value in rows["ours ms"]],
            "other (ms)": [number(value, 0) for value in rows["other ms"]],
            ratio: [number(value, 2) for value in rows["value"]],
            "quartiles": [f"{low:.2f} to {high:.2f}" for low, high in zip(rows["quartile 1"], rows["quartile 3"])],
        }
    ).reset_index(drop=True)


faster = timed[timed["sense"] == "at least"]
show(
    table_of(faster, "times as fast"),
    f"Speed against the usual implementation: medians of 7 interleaved pairs. {found.get('machine', '')}.",
)

# %% [markdown]
# The next two tables have the cost of the attention against average pooling, that of running network and CRF side by
# side, and shares of what the machine can do.

# %% tags=["hide-input", "hide-output"]
dearer = timed[timed["sense"] == "at most"]
show(
    table_of(dearer, "times as long"),
    f"Extra time: medians of 7 interleaved pairs. {found.get('machine', '')}.",
)

# %% tags=["hide-input", "hide-output"]
others = parts.drop(timed.index)[["what", "against", "value"]].rename(
    columns={"against": "compared with", "value": "ratio or value"}
)
others["ratio or value"] = [number(value, 3) for value in others["ratio or value"]]
show(
    others.reset_index(drop=True),
    "Shares of the machine's peak, memory, and the time of a second make book.",
)

# %% tags=["hide-input", "hide-output"]
panels = list(dict.fromkeys(curve["of"] for curve in found["growth"]))
figure, axes = plt.subplots(2, 2, figsize=(8, 6.4), layout="constrained")
for axis, panel in zip(axes.flat, panels):
    curves = [curve for curve in found["growth"] if curve["of"] == panel]
    for curve in curves:
        label = f"{curve['what']}: {curve['exponent']:.2f}"
        axis.loglog(curve["sizes"], curve["seconds"], "o-", markersize=4, label=label)
    sizes = curves[0]["sizes"]
    axis.minorticks_off()
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
    axis.set(xlabel=panel, ylabel="seconds")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1))
for axis in axes.flat[len(panels) :]:
    axis.remove()
plt.close(figure)
display.figure(
    figure,
    "Time against the number of images, scales, classes and pixels. The legend has the exponent of the fitted power.",
    "Time grows in proportion to images and scales. It does not grow with classes for the maps. For the CRF it grows"
    " slightly faster than the number of pixels.",
)

# %% [markdown]
# ### Where little is gained
#
# - **VGG16 in float32.** Both implementations reach nine tenths of what the machine multiplies at all. Only a smaller
#   type helps: `precision: bf16-mixed` halves the time on processors with bf16 units.
# - **EfficientNet-Lite0 on small images.** More than half of the remaining time is in ordinary convolutions, which
#   both implementations leave to oneDNN. We tried bf16 and `torch.compile`: both were slower.
# - **Attention on EfficientNet-Lite0.** Its two layers add 2.05 % operations to so small a network. On VGG16 they add
#   0.5 %.
# - **More than four images at once, for maps.** Eight at once, a thread that reads ahead and a process that loads were
#   slower.
# - **Memory of the attention.** Its first layer keeps 512 channels at the size of the maps. That is 26 MB for four
#   images of 448 pixels.
# - **CRF.** The colours of a photograph are put into a lattice once, whatever the number of classes. That is two
#   fifths of our time, and leaving classes out cannot save it.
# - **Network and CRF side by side.** Each keeps both cores busy alone, so little is left to share.
#
# The profiles behind these statements are in the next cell.

# %% tags=["hide-input", "hide-output"]
for title, rows in found.get("profiles", {}).items():
    show_now(show(pd.DataFrame(rows), f"{title}."))

# %% [markdown]
# ### On a GPU
#
# These networks are VGG16 with random weights, at 448 pixels, on noise. The plain way is float32 without TF32. The next
# table has the paper's Table 5. In float32 a workspace of 18 GB, which cuDNN takes for any aggregation, hides
# what the attention adds to the memory.

# %% tags=["hide-input"]
conditions = gpu_tables.conditions(card)
show(
    gpu_tables.table_5(card),
    f"Ratios to average pooling, batch 4: medians, quartiles. {conditions}.",
)

# %% tags=["hide-input", "hide-output"]
show(
    gpu_tables.steps(card),
    f"Milliseconds a training step, medians. {conditions}.",
)

# %% tags=["hide-input", "hide-output"]
show(
    gpu_tables.ways(card),
    f"What makes a step faster: attention, 3 scales, batch 4. {conditions}.",
)

# %% [markdown]
# Tensor cores gain most: TF32 alone is 5 times as fast as plain float32, and bf16 in the layout channels last 11 times.
# The plain way reaches 48 % of what this card multiplies in float32. Kernels that repeat bit by bit
# cost a fifth. Letting cuDNN try its algorithms gained nothing at batch 4, and would not repeat bit by bit.
#
# Maps on this card differ from those of a processor by at most 0.000005 in float32, 0.004 with TF32 and 0.04 in bf16, of
# a range of 0 to 1. A resumed training gave the same weights bit by bit in each precision. So did a second training of
# SAFN in float32. 61 tests passed. 11 tests did not fit into the time, and neither did the rows of the next cell.

# %% tags=["hide-input", "hide-output"]
show(gpu_tables.not_measured(card), "Not measured yet, with the commands.")

# %% [markdown]
# These commands write `cost.json`. `python -m benchmarks.gpu_results cost.json tests.xml results/gpu.json` adds it to the
# recorded file.
#
# Does scale attention pay at the paper's resolution? The jobs below answer: crops of 448 pixels, 15 epochs, and then a
# segmentation of 6,000 steps. `DIR` holds the photographs in VOC's layout, with saliency maps. The profile `evidence-448`
# has the same settings for `make book`.

# %% tags=["hide-input", "hide-output"]
jobs = pd.DataFrame([*measured(ablation)], columns=["job", "unfinished", "command", "metrics"])
done = jobs[jobs["unfinished"].isna()]
if len(done):
    scores = pd.DataFrame(done["metrics"].tolist(), index=done["job"])
    show_now(show(100 * scores.filter(regex="mAP|miou"), "The paper's resolution: mAP and mIoU (%)."))
open_jobs = jobs.dropna(subset="command")[["job", "command"]]
show(open_jobs, "Not measured yet: the comparison at the paper's resolution, with the commands.")

# %% [markdown]
# `make bench` takes the GPU where there is one. The CRF stays on the processor. These commands measure all parts, and
# some of them:
#
# ```shell
# python -m benchmarks
# python -m benchmarks --only vgg16-bf16 maps evaluation
# ```
