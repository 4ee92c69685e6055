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
# # 15 Records
#
# Where does each number of this book come from? Every stage leaves a `record.json` beside its results: parameters,
# seed, fingerprints of its inputs, commit, versions, machine, time and memory. The files in `results/` hold the
# records of real runs. This page lists them, then the runs of this copy of the book. A fingerprint is the beginning of
# a SHA-256 over the names and contents of all files of a stage: equal fingerprints, equal files.

# %% tags=["parameters", "hide-input"]
# parameters
runs = ""  # folder of the runs of this copy of the book; empty: it was built without any
stages = []  # those of its stages that belong to the book, <stage>/<run>

# %% tags=["hide-input"]
import json
from pathlib import Path

import pandas as pd
from IPython.display import display
from myst_nb import glue

from safn.data import VOC_CLASSES
from safn_book import archive, conclusions, results
from safn_book.build import notebook_warnings
from safn_book.records import read_all
from safn_book.run_names import TRAINED
from safn_book.tables import interval, number, short_name, show

# %% [markdown]
# ## Recorded experiments

# %% tags=["hide-input"]
recorded = archive.experiments()
about = {
    "evidence": "photographs: the main comparison",
    "evidence-amd": "the same classifiers on another type of machine",
    "evidence-again": "three of those classifiers on a third machine",
    "evidence-rerun": "one classifier once more, on the same type of machine",
    "voc-subset": "photographs: larger crops for the segmentation",
    "voc-subset-352": "photographs: longer training of the classifier",
    "evidence-emoji": "synthetic images: the main comparison",
}
recorded = {name: recorded[name] for name in [*about, *sorted(recorded.keys() - about)] if name in recorded}
tables = {name: results.runs_table(records) for name, records in recorded.items()}
lines = {}
for name, records in recorded.items():
    metrics = records["00_data", "default"]["metrics"]
    lines[name] = {
        "what": about.get(name, "–"),
        "configurations": tables[name]["configuration"].nunique(),
        "seeds": tables[name]["seed"].nunique(),
        "training images": int(metrics["train_images"]),
        "validation images": int(metrics["val_images"]),
        "saliency": archive.values(records.values(), "detector"),
    }
show(pd.DataFrame(lines).T, "The experiments in results/, each in a file of its name.")

# %% tags=["hide-input", "hide-output"]
lines = {}
for name, records in recorded.items():
    trained = [record for (stage, _), record in records.items() if stage in TRAINED]
    lines[name] = {key: archive.values(trained, key) for key in ("backbone", "head", "init", "machine", "commit")}
show(
    pd.DataFrame(lines).T,
    "What trained their networks: backbone, segmentation, initial weights, machine, commit.",
)

# %% [markdown]
# All numbers below are in percent. Maps and pseudo labels are scored on training images, segmentations on validation
# images. They cannot be compared with published numbers: other data, another backbone, another saliency detector.

# %% tags=["hide-input", "hide-output"]
columns = {
    "val_mAP": "mAP",
    "map_miou": "maps",
    "pseudo_miou_drop": "pseudo labels, ignored excluded",
    "pseudo_miou_background": "as background",
    "pseudo_miou_wrong": "as errors",
    "ignored_share": "ignored",
    "val_miou_single": "val, one scale",
    "val_miou_multi": "multi-scale",
    "val_miou_crf": "+ CRF",
}
for name, table in tables.items():
    shown = table[list(columns)].drop(columns=["pseudo_miou_wrong", "ignored_share"]).mul(100).rename(columns=columns)
    shown.insert(0, "seed", table["seed"])
    shown.insert(0, "configuration", table["configuration"].map(short_name))
    display(show(shown, f"Every run of {name}: {about.get(name, '')}."))

# %% [markdown]
# ## The same seed, again
#
# A seed fixes everything that is drawn: initial weights, batches, crops, dropout. On one machine, with the same
# versions and number of threads, a run gives the same files again, to the last bit. Another type of machine rounds
# its sums in another order. Some hundred steps later it is another training.

# %% tags=["hide-input"]
again = ["evidence", "evidence-rerun", "evidence-amd", "evidence-again"]
rows = pd.concat([tables[name].assign(experiment=name) for name in again if name in tables])
rows = rows[~rows["supervised"] & (rows["control"] == "") & rows["val_mAP"].notna()]
repeated = rows.groupby("run")["experiment"].transform("nunique") > 1
for metric, title in {
    "val_mAP": "mAP of the classifier",
    "map_miou": "mIoU of the maps",
}.items():
    side = rows[repeated].pivot(index=["configuration", "seed"], columns="experiment", values=metric).mul(100)
    side = side[[name for name in again if name in side]].reset_index().rename_axis(None, axis=1)
    side["configuration"] = side["configuration"].map(short_name)
    display(
        show(
            side,
            f"{title} in percent, of classifiers that were trained several times with one seed and one setting.",
        )
    )

# %% [markdown]
# `evidence-rerun` was trained at one go, from a fresh clone of a later commit. Its network, maps and pseudo labels
# have the fingerprints of the first run. Two machines of `evidence-amd` and `evidence-again` called themselves AMD
# EPYC, and their numbers differ. The name of a processor does not identify a machine, so records also hold its family
# and model. Chapters 8 and 9 draw no conclusion from runs that were trained on different types of machine.
#
# ## The comparison on another machine

# %% tags=["hide-input"]
main = "attention_1-0.75-0.5"
pairs = {}
for name, machine in {"evidence": "Intel Xeon", "evidence-amd": "AMD EPYC"}.items():
    gaps = conclusions.against(conclusions.differences_table(recorded[name]), main).set_index(["measure", "second"])
    texts = [f"{number(r.points, 2, sign=True)} ({interval(r.all_from, r.all_to, 2)})" for r in gaps.itertuples()]
    pairs[machine] = pd.Series(texts, gaps.index)
for measure, title in {"maps": "Maps", "pseudo_background": "Pseudo labels"}.items():
    both = pd.DataFrame({machine: texts[measure] for machine, texts in pairs.items()})
    text = (
        f"{title}: points of mIoU by which SAFN with 3 scales is ahead, with 95 % intervals. Photographs, three seeds."
    )
    display(show(both.rename(index=short_name).rename_axis(None), text))

# %% [markdown]
# On the AMD machine the confusion counts of each image were not kept. Its intervals are over the seeds alone. With
# other images they would be wider.
#
# ## Larger crops, longer training
#
# With 15 % of the training images, the best segmentation has {glue:text}`best:.1f` mIoU on 743 images of VOC 2012 val
# (EfficientNet-Lite0, saliency maps of U2-Net-p, multi-scale test and CRF, seed 0). The paper reports 61.9 on all 1,449
# of them. It trains VGG16 on all training images, with the saliency maps of DSS. So the two are not comparable.

# %% tags=["hide-input"]
glue("best", float(100 * tables["voc-subset"]["val_miou_crf"].max()), display=False)
chosen = {
    ("evidence", main): "the main comparison",
    ("voc-subset", main): "larger crops and one more epoch for the segmentation",
    ("evidence", "masks"): "ground-truth masks instead of pseudo labels",
    ("evidence-amd", main): "the main comparison, AMD EPYC",
    (
        "voc-subset-352",
        main,
    ): "longer training of the classifier at crops of 352 pixels, AMD EPYC",
}
lines = []
for (name, configuration), title in chosen.items():
    table = tables[name]
    row = table[(table["configuration"] == configuration) & (table["seed"] == 0)].iloc[0]
    lines.append({"what": title, **{text: 100 * row[key] for key, text in columns.items()}})
show(
    pd.DataFrame(lines).drop(columns=["as errors", "ignored"]),
    "SAFN with 3 scales, photographs, seed 0: percent.",
)

# %% [markdown]
# The longer training gives better maps. Its pseudo labels are better if ignored pixels are excluded, and worse if
# they count as background. The profiles keep the shorter training.
#
# ## Settings that were chosen with masks
#
# Two settings of the photograph profiles were chosen by scores on training images with masks. `python -m
# benchmarks.choices runs/evidence` measures on 120 other images what they gain.

# %% tags=["hide-input"]
choices = json.loads((archive.RESULTS / "choices.json").read_text())
titles = {
    "six views, drop": "six views for the saliency: pseudo labels, ignored pixels excluded",
    "six views, background": "the same, ignored pixels counted as background",
    "six views, wrong": "the same, ignored pixels counted as errors",
    "whole cells, one scale": "input sizes in multiples of the output stride: segmentation, one scale",
    "whole cells, several scales": "the same, several scales",
}
for name, row in {row["what"]: row for row in choices["rows"]}.items():
    for key in ("points", "from", "to"):
        glue(
            f"{name.replace(', ', '_').replace(' ', '_')}_{key}",
            float(row[key]),
            display=False,
        )
gains = pd.DataFrame(choices["rows"]).assign(what=lambda rows: rows["what"].map(titles))
gains = gains.rename(columns={"points": "gain", "from": "95 % from", "to": "to"})
show(
    gains,
    f"mIoU in percent without and with each setting, and the gain in points. {choices['images']} photographs, seed 0, no CRF.",
)

# %% tags=["hide-input"]
subset = tables["voc-subset"].iloc[0]
for key in ("drop", "background", "wrong"):
    glue(f"pseudo_{key}", float(100 * subset[f"pseudo_miou_{key}"]), display=False)
bound = tables["evidence"].query("supervised").iloc[0]
for key in ("single", "multi", "crf"):
    glue(f"bound_{key}", float(100 * bound[f"val_miou_{key}"]), display=False)
subset_data = recorded["voc-subset"]["00_data", "default"]["metrics"]
glue("train_images", f"{subset_data['train_images']:,.0f}", display=False)
glue("val_images", f"{subset_data['val_images']:,.0f}", display=False)
glue("labels_an_image", float(subset_data["labels_an_image"]), display=False)
images_a_class = subset_data["train_images"] * subset_data["labels_an_image"] / len(VOC_CLASSES)
glue("images_a_class", f"{images_a_class:.0f}", display=False)
repeated = tables["evidence"].query("configuration == @main")["pseudo_miou_background_train_list"]
glue(
    "pseudo_train_list",
    f"{100 * repeated.mean():.1f} ± {100 * repeated.std():.1f}",
    display=False,
)

# %% [markdown]
# ## Settings of each experiment

# %% tags=["hide-input", "hide-output"]
for name, records in recorded.items():
    rows = []
    for stage in sorted({stage for stage, _ in records}):
        runs_of_stage = [record for (s, _), record in records.items() if s == stage]
        settings = dict.fromkeys(key for record in runs_of_stage for key in record["parameters"])
        for key in settings.keys() - {"run", "seed", "experiments"}:
            rows.append(
                {
                    "stage": stage,
                    "setting": key,
                    "value": archive.values(runs_of_stage, key),
                }
            )
    table = pd.DataFrame(rows).sort_values(["stage", "setting"], ignore_index=True)
    display(show(table, f"Settings of {name}. Several values: they differ between the runs."))

# %% [markdown]
# ## Faults
#
# `make faults` provokes each fault of [What can go wrong](../book/faults.md) and writes down what happens.

# %% tags=["hide-input", "hide-output"]
faults = show(pd.read_csv(archive.RESULTS / "faults.csv"), "Faults, each provoked by a test.")
faults.set_table_attributes('class="dataframe texts"')

# %% tags=["hide-input"]
kills = json.loads((archive.RESULTS / "kills.json").read_text())
different = sum(map(len, kills["differences"].values()))
glue("kills", len(kills["kills"]), display=False)
glue("metrics_compared", kills["metrics compared"], display=False)
glue("records_compared", kills["records compared"], display=False)
glue("same_folders", kills["folders with the same bytes"], display=False)
glue(
    "different",
    "nothing differs" if not different else f"{different} values differ",
    display=False,
)

# %% [markdown]
# `python -m benchmarks.kills` killed a whole `make book` {glue:text}`kills` times at random moments, and gave the
# same command again each time. It compared {glue:text}`metrics_compared` metrics in {glue:text}`records_compared`
# records with those of an undisturbed run: {glue:text}`different`. {glue:text}`same_folders` folders hold the same
# bytes.

# %% tags=["hide-input", "hide-output"]
lines = [
    {
        "kill": k,
        "after (s)": kill["seconds"],
        "running": ", ".join(kill["at work"]),
        "stages finished": kill["finished"],
    }
    for k, kill in enumerate(kills["kills"], 1)
]
show(pd.DataFrame(lines), "The kills.")

# %% [markdown]
# ## The runs of this copy
#
# {glue:text}`this_copy`
#
# The executed notebook of each run is `runs/<profile>/executed/<stage>/<run>.ipynb`.

# %% tags=["hide-input", "hide-output"]
found = read_all(runs) if runs else []
own = {(stage.record["stage"], stage.record["run"]): stage.record for stage in found if stage.name in stages}
costs = pd.DataFrame(
    [
        {
            "stage": stage,
            "run": run,
            "seconds": record.get("seconds"),
            "memory (MB)": record.get("peak_megabytes"),
            "result": record["fingerprint"][:8],
            "code": str(record.get("code") or "–")[:8],
        }
        for (stage, run), record in sorted(own.items())
    ]
)
if len(costs):
    minutes = f"{costs['seconds'].sum() / 60:,.0f}"
    copy = f"This copy of the book shows the profile {Path(runs).name}. Its {len(costs)} runs add up to {minutes} minutes of computing."
    shown = show(
        costs,
        "Each run with its cost, and the fingerprints of what it wrote and of its code.",
        digits=0,
    )
    display(shown.set_table_attributes('class="dataframe texts"'))
else:
    copy = "This copy of the book was built without runs. make book makes them."
glue("this_copy", copy, display=False)

# %% tags=["hide-input"]
environments = []
for record in own.values():
    found = {key: record[key] for key in ("machine", "device", "python") if record.get(key)}
    found |= {key: version for key, version in (record.get("versions") or {}).items() if version}
    if found not in environments:
        environments.append(found)
shown = pd.DataFrame(environments).T
show(
    shown.rename(columns=lambda k: f"environment {k + 1}"),
    "The environments in which the runs of this copy were made.",
)

# %% [markdown]
# Other programs wrote these lines to the error output of a run. A warning stops no run, and the pages leave it out.

# %% tags=["hide-input"]
warned = [
    {"stage": stage, "run": run, "warning": line}
    for stage, run in sorted(own)
    for line in notebook_warnings(Path(runs) / "executed" / stage / f"{run}.ipynb")
]
if warned:
    display(show(pd.DataFrame(warned), "Warnings of other programs."))
else:
    print("no warning")
