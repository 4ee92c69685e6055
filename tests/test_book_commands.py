"""Commands of the book."""

from __future__ import annotations

from safn_book.__main__ import main


def test_smoke_passes_its_choices_on(monkeypatch, tmp_path):
    taken = []
    monkeypatch.setattr("benchmarks.paper_networks.run", lambda *given: taken.extend(given))
    assert main(["smoke", "--profile", "emoji", "--out", str(tmp_path / "s.json"), "--steps", "3"]) == 0
    assert taken == ["emoji", tmp_path / "s.json", 3]
