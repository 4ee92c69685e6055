from __future__ import annotations

import json

import pytest

from benchmarks import gpu_cost, gpu_results
from safn_book import gpu

REPORT = """<testsuites><testsuite tests="3">
<testcase classname="tests.test_gpu" name="test_maps_agree[max-tf32]" time="1"><properties>
<property name="largest difference" value="0.00216236" /><property name="losses" value="1 1" /></properties></testcase>
<testcase classname="tests.test_gpu" name="test_a_step" time="1" />
<testcase classname="tests.test_gpu" name="test_broken" time="1"><failure message="no" /></testcase>
<testcase classname="tests.test_gpu" name="test_elsewhere" time="1"><skipped /></testcase>
<testcase time="0.002" /></testsuite></testsuites>"""
NAMES = ["test_maps_agree[max-tf32]", "test_a_step", "test_broken", "test_elsewhere", "test_cut"]


def spread(median: float) -> dict:
    return {"median": median, "quartiles": [median - 0.01, median + 0.01], "turns": 3}


def table(attention: float) -> dict:
    """A row of Table 5; maximum and average take as long."""
    published = {"training": 1.011, "extraction": 1.017, "memory": 1.004}
    row = {}
    for name, value in {"max": 1.0, "avg": 1.0, "attention": attention}.items():
        memory = {"allocated MB": 100.0 * value, "reserved MB": 7.0}
        ratios = {"training ratio": spread(value), "extraction ratio": spread(value), "published ratios": published}
        row[name] = {"training": memory, **ratios}
    return row


def step(milliseconds: float, batch: int) -> dict:
    way = {"ms a step": spread(milliseconds), "times as fast as plain": spread(1), "allocated MB": 1, "reserved MB": 7}
    return {"batch": batch, "crop": 448, **dict.fromkeys(gpu_cost.WAYS, way)}


@pytest.fixture
def cost() -> dict:
    """Steps of 10 ms, photos of 1 ms, and a loop of 200 images a second."""
    rows = {f"step: {name}": step(10, batch) for name, (_, batch, _) in gpu_cost.TRAININGS.items()}
    tests = [f"test, {n} scales, {network}" for n in (1, 5) for network in ("vgg16-largefov", "resnet101-aspp")]
    rows["use"] = {name: spread(1) for name in ["validation", *(f"maps, {n} scales" for n in (1, 2, 3)), *tests]}
    rows["use"]["photo"] = [375, 500]
    rows["trace, 16-mixed"] = {"ms a step": 20.0, "images a second": 200.0}
    rows |= {"table 5, batch 4, bf16": table(1.02), "loading": {"not measured": "6 s were left"}}
    return {"card": "a card", "driver": "1", "torch": "2", "cudnn": 9, "small": False, "hours": {}, "rows": rows}


def test_the_report_of_an_interrupted_run(tmp_path):
    (tmp_path / "tests.xml").write_text(REPORT)
    found = gpu_results.tests_of(tmp_path / "tests.xml", NAMES)
    assert found["passed"] == 2 and found["failed"] == ["test_broken"]
    assert found["not run"] == ["test_elsewhere", "test_cut"]
    assert found["measured"] == [{"test": "maps agree", "case": "max-tf32", "largest difference": 0.00216}]


def test_hours_in_the_loop_by_hand(cost):
    """At 200 images a second a batch of 4 takes 20 ms, of 20 images 100 ms, and a photo 5 ms, all more than alone."""
    found = gpu_cost.hours_in_the_loop(cost["rows"])
    assert list(found) == ["16-mixed"]  # the only way that was traced
    classifier, segmentation = 15 * (2645 * 0.02 + 1449 * 0.005), 6000 * 0.1
    assert found["16-mixed"]["classifier"] == round(classifier / 3600, 3)
    one = classifier + 12031 * 0.005 + segmentation + 1449 * 2 * 0.005
    assert found["16-mixed"]["one SAFN"] == round(one / 3600, 3)
    cost["rows"]["trace, 16-mixed"]["images a second"] = 1e9  # a loop that limits nothing
    assert gpu_cost.hours_in_the_loop(cost["rows"])["16-mixed"] == gpu_cost.hours_of(cost["rows"])["16-mixed"]
    del cost["rows"]["use"]
    assert gpu_cost.hours_in_the_loop(cost["rows"]) == gpu_cost.hours_of(cost["rows"]) == {}


@pytest.fixture
def paths(cost, tmp_path, monkeypatch) -> list[str]:
    """The three files of the command, which has run once."""
    monkeypatch.setattr(gpu_results, "collected_tests", lambda: NAMES)
    paths = [str(tmp_path / name) for name in ("cost.json", "tests.xml", "gpu.json")]
    (tmp_path / "cost.json").write_text(json.dumps(cost))
    (tmp_path / "tests.xml").write_text(REPORT)
    gpu_results.main([*paths, "--commit", "abc"])
    return paths


def test_made_twice_the_file_is_the_same_and_the_page_reads_it(paths, tmp_path):
    first = (tmp_path / "gpu.json").read_text()
    gpu_results.main(paths)
    assert (tmp_path / "gpu.json").read_text() == first and "reserved" not in first
    card = json.loads(first)
    assert "a card" in gpu.conditions(card) and "abc" in gpu.conditions(card)
    assert gpu.not_measured(card)["command"].tolist() == [
        'python -m benchmarks.gpu_cost --out cost.json --only "loading"',
        'python -m pytest -m gpu tests/test_gpu.py -k "test_elsewhere or test_cut"',
    ]
    attention = gpu.table_5(card).query("aggregation == 'attention'")
    assert attention["paper"].tolist() == ["1.011", "1.017", "1.004"]
    assert attention["bf16"].tolist() == ["1.020 (1.010 to 1.030)", "1.020 (1.010 to 1.030)", "1.020"]
    assert len(gpu.steps(card)) == 8 and gpu.ways(card).empty
    hours = gpu.hours(card)
    assert hours["16-mixed, steps alone"].iloc[0] == "0.12"  # 15 x (2,645 x 10 ms + 1,449 x 1 ms)
    assert hours["16-mixed, in the loop of training"].iloc[0] == "0.25"  # 15 x (2,645 x 20 ms + 1,449 x 5 ms)


def test_a_row_that_was_missing_is_added_to_what_the_same_card_has(cost, paths, tmp_path):
    before = json.loads((tmp_path / "gpu.json").read_text())
    (tmp_path / "tests.xml").unlink()
    later = cost | {
        "rows": {"loading": {"images a second": 300, "seconds": 2}, "use": {"not measured": "0 s were left"}}
    }
    (tmp_path / "cost.json").write_text(json.dumps(later))
    gpu_results.main(paths)
    after = json.loads((tmp_path / "gpu.json").read_text())
    assert after["rows"].pop("loading") == later["rows"]["loading"] and before["rows"].pop("loading")
    assert after == before
    (tmp_path / "cost.json").write_text(json.dumps(later | {"card": "another card"}))
    gpu_results.main(paths)
    other = json.loads((tmp_path / "gpu.json").read_text())
    assert other["rows"].keys() == {"loading", "use"}
    assert gpu.not_measured(other)["not measured yet"].tolist() == ["use", "5 tests"]
