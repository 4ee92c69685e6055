"""Where numbers come from: the recorded experiments in ``results/``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safn.files import DataError
from safn_book import archive
from safn_book.archive import Records


def experiments(folder: Path | str = archive.RESULTS) -> dict[str, Records]:
    """Load every file of records in a folder, by its name without suffix, and leave other files out."""
    found = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            records = archive.read(path)
        except DataError:
            continue
        if all("metrics" in record for record in records.values()):
            found[path.stem] = records
    return found


def values(records: Iterable[dict[str, Any]], name: str) -> str:
    """Join the values that records, or their parameters, have of one name."""
    found = (record.get(name, record.get("parameters", {}).get(name)) for record in records)
    return ", ".join(sorted({str(value) for value in found if value not in (None, "")})) or "–"
