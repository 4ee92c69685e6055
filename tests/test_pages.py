"""Provenance tables and pages of code."""

from __future__ import annotations

import json

import pytest

from safn_book import pages


@pytest.mark.parametrize("page", sorted((pages.ROOT / "book").glob("*.md")), ids=lambda page: page.name)
def test_every_name_in_the_prose_exists_in_the_code(page):
    assert pages.unknown_names(page.read_text()) == []


def test_paper_to_code_names_a_place_in_each_row():
    text = (pages.ROOT / "book" / "paper_to_code.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| sentence", "|--"))]
    assert len(rows) > 40
    assert [row for row in rows if not pages.NAMED.search(row) and "nowhere" not in row] == []


def test_names_of_a_module_lead_to_the_section_that_shows_them():
    names = pages.names(pages.ROOT / "safn" / "network.py")
    assert names["SAFN"] == names["SAFN.forward"] == "SAFN" and names["aggregate"] == "aggregate"
    assert pages.names(pages.ROOT / "safn" / "crf.py")["CRF"] is None


def test_links():
    text = "`safn/maps.py`, `safn/network.py::SAFN.maps`, `safn/crf.py::CRF`, `safn/maps.py::nothing`, `safn/none.py`"
    assert pages.linked(text) == (
        "[`safn/maps.py`](#code-safn-maps), [`safn/network.py::SAFN.maps`](#code-safn-network-safn), "
        "[`safn/crf.py::CRF`](#code-safn-crf), `safn/maps.py::nothing`, `safn/none.py`"
    )
    assert pages.linked(pages.linked(text)) == pages.linked(text)
    assert pages.unknown_names(text) == ["safn/maps.py::nothing", "safn/none.py"]


def test_pages_of_code_hold_every_line_of_every_module(tmp_path):
    pages.write_code(tmp_path / "code")
    for path in (pages.ROOT / "safn").glob("[!_]*.py"):
        page = (tmp_path / "code" / f"safn_{path.stem}.md").read_text()
        assert [line for line in path.read_text().splitlines() if line and line not in page] == []


def write_record(runs, stage, run, **values):
    folder = runs / stage / run
    folder.mkdir(parents=True)
    record = {
        "stage": stage,
        "run": run,
        "seed": 1,
        "fingerprint": f"{stage[:2]}aaaaaaaa",
        "inputs": {},
        "seconds": 30,
    }
    (folder / "record.json").write_text(json.dumps({**record, "peak_megabytes": 1234, **values}))


def test_provenance_traces_each_run_to_its_data_and_groups_environments(tmp_path):
    write_record(tmp_path, "00_data", "default", commit="c1", versions={"torch": "2.9", "timm": None})
    write_record(
        tmp_path,
        "03_train_safn",
        "a",
        commit="c1",
        versions={"torch": "2.9"},
        inputs={"00_data/default": "dddddddddd"},
    )
    write_record(
        tmp_path,
        "04_localization_maps",
        "a",
        commit="c2",
        device="gpu",
        inputs={"03_train_safn/a": "03aaaaaaaa"},
    )
    text = pages.provenance(tmp_path)
    assert "| 00 | `default` | 1 | 30 | 1,234 | `00aaaaaa` | `00aaaaaa` | 1 |" in text
    assert "| 03 | `a` | 1 | 30 | 1,234 | `03aaaaaa` | `dddddddd` | 1 |" in text
    assert "| 04 | `a` | 1 | 30 | 1,234 | `04aaaaaa` | `dddddddd` | 2 |" in text
    assert "| torch | 2.9 |" in text and "timm" not in text and "| device | gpu |" in text
    assert "3 runs took 2 minutes" in text


def test_provenance_of_chosen_runs_leaves_the_others_out(tmp_path):
    write_record(tmp_path, "03_train_safn", "a")
    write_record(tmp_path, "03_train_safn", "old")
    assert "old" not in pages.provenance(tmp_path, [("03_train_safn", "a")])
    assert pages.provenance(tmp_path / "none") == "No stage has left a record.\n"


@pytest.mark.parametrize(
    ("lines", "text"),
    [([], "**nothing differs**"), (["07/a: metrics miou is 1"], "`killed-1`: 07/a: metrics miou is 1")],
)
def test_kills_are_listed_and_a_difference_is_shown(tmp_path, lines, text):
    kill = {"run": 1, "seconds": 51.6, "at work": ["03_train_safn/a", "book"], "finished": 4}
    found = {"profile": "emoji", "kills": [kill, kill], "metrics compared": 7, "records compared": 3,
             "folders with the same bytes": 2, "differences": {"killed-1": lines}}  # fmt: skip
    path = tmp_path / "kills.json"
    path.write_text(json.dumps(found))
    shown = pages.kills(path)
    assert text in shown and "killed 2 times" in shown and "| 2 | 52 | `03_train_safn/a`, `book` | 4 |" in shown
    assert "Nothing is measured yet" in pages.kills(tmp_path / "none.json")


def test_speed_shows_ratios_with_their_goals_and_what_missed_them(tmp_path):
    made = {"what": "maps", "against": "grad-cam", "sense": "at least", "goal": 3, "value": 9.1234, "reached": True,
            "quartile 1": 9, "quartile 3": 9.5, "ours ms": 12.345, "other ms": 1100.0, "load before": 0.1,
            "pairs": 7}  # fmt: skip
    missed = {"what": "share", "against": "peak", "sense": "at least", "goal": 0.6, "value": 0.41, "reached": False,
              "load before": 0.4, "pairs": 7}  # fmt: skip
    found = {"rows": [made, missed], "growth": [], "machine": "one", "versions": {"torch": "2"}}
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(found))
    text = pages.speed(path)
    assert "medians of 7 pairs" in text and "load before 0.1 to 0.4" in text
    assert "| maps | grad-cam | 12.3 | 1,100 | 9.123 (9.00-9.50) | at least 3 | yes |" in text
    assert "| share | peak | - | - | 0.41 | at least 0.6 | **no** |" in text and "growth.svg" not in text
    curve = {"what": "maps", "of": "pixels", "sizes": [1, 2], "seconds": [1, 2], "exponent": 1.0}
    path.write_text(json.dumps({**found, "growth": [curve]}))
    assert "growth.svg" in pages.speed(path) and pages.growth(path) == [curve]
    assert "Nothing is measured yet" in pages.speed(tmp_path / "none.json") and not pages.growth(tmp_path / "none.json")


def test_missed_goals_and_steep_curves_are_listed(tmp_path):
    made = {"what": "maps", "sense": "at least", "goal": 3, "value": 9.1234, "reached": True}
    late = {"what": "evaluation", "sense": "at most", "goal": 1.15, "value": 1.4567, "reached": False}
    curves = [{"what": "CRF", "of": of, "exponent": power} for of, power in (("pixels", 1.05), ("classes", 1.0))]
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"rows": [made, late], "growth": curves}))
    lines = ["- evaluation: 1.457, wanted at most 1.15", "- CRF grows with the 1.05th power of the pixels"]
    assert pages.missed(path) == "\n".join(lines) + "\n"
    path.write_text(json.dumps({"rows": [made], "growth": []}))
    assert pages.missed(path).startswith("Every goal is reached")
    assert pages.missed(tmp_path / "none.json") == "Nothing is measured yet.\n"


def test_profiles_are_tables(tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(
        json.dumps({"profiles": {"A step: ms": [{"what": "ReLU", "ours": 1.5}, {"what": "all", "ours": 3}]}})
    )
    text = pages.profiles(path)
    assert "{table} A step: ms" in text and "| what | ours |" in text and "| ReLU | 1.5 |" in text
    row = {"sense": "at most", "ours ms": 4000, "network s": 2, "CRF s": 3, "network processor s": 4, "CRF processor s": 6,
           "both processor s": 8}  # fmt: skip
    path.write_text(json.dumps({"rows": [row]}))
    text = pages.profiles(path)
    assert "| network | 2 | 4 |" in text and "| CRF | 3 | 6 |" in text and "| both | 4.0 | 8 |" in text
    path.write_text(json.dumps({"rows": []}))
    assert pages.profiles(path) == pages.profiles(tmp_path / "none.json") == ""


def test_smoke_shows_a_smaller_batch_beside_the_profile_s_and_names_what_is_assumed(tmp_path):
    row = {"stage": "06_train_segmentation", "network": "resnet101-aspp", "image": [321, 321], "batch": 10,
           "profile_batch": 20, "seconds_a_step": 42.61, "peak_megabytes": 16628}  # fmt: skip
    estimate = {"gpu_hours": 45.3, "assumed_sustained_tflops": 20.0, "sustained_tflops_that_table_5_implies": 23.7,
                "crf_core_hours": 4.6, "not_counted": "figures"}  # fmt: skip
    found = {"profile": "paper", "machine": "one", "estimate": estimate, "measured": [row, {**row, "batch": 20}]}
    path = tmp_path / "smoke.json"
    path.write_text(json.dumps(found))
    text = pages.smoke(path)
    assert "| 06 | resnet101-aspp | 321x321 | 10 of 20 | 42.6 | 16,628 |" in text
    assert "| 321x321 | 20 | 42.6 |" in text
    assert "**45 hours** of one GPU that sustains 20 TFLOP/s, which is assumed and not measured" in text
    assert "Nothing is measured yet" in pages.smoke(tmp_path / "none.json")


def test_attention_is_a_table_a_data_set(tmp_path):
    path = tmp_path / "attention.csv"
    head = "data,images,change,seed,val mAP (%),map mIoU (%),weight 1,weight 0.75,weight 0.5,spread 1\n"
    path.write_text(head + "a,20,default,0,50.04,30.0,0.5,0.25,0.25,0.0126\nb,9,scales = (1),0,60,31,,,,\n")
    text = pages.attention(path)
    assert "| `default` | 0.500 | 0.250 | 0.250 | 0.013 | 50.0 | 30.0 |" in text
    assert "| `scales = (1)` | - | - | - | - | 60.0 | 31.0 |" in text
    assert (
        text.count("{figure}") == 1
        and text.count("{table}") == 2
        and "20 training images" in text
        and "Data: b" in text
    )
    assert "Nothing is measured yet" in pages.attention(tmp_path / "none.csv")


@pytest.mark.parametrize("page", sorted((pages.ROOT / "book").glob("*.md")), ids=lambda page: page.name)
def test_no_title_of_a_block_ends_it(page):
    """A backtick behind the three that open a block makes text of it, and a block of what follows."""
    opened = [line for line in page.read_text().splitlines() if line.startswith("```")]
    assert not [line for line in opened if "`" in line.lstrip("`")] and len(opened) % 2 == 0
