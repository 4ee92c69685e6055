"""Where and with what a stage runs."""

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from safn.inference import best_device

PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "pillow", "onnxruntime", "pydensecrf2")


def environment() -> dict[str, Any]:
    """Commit, versions, device, processor and cores, as records keep them."""
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else best_device(),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
    }


def commit() -> str | None:
    """The commit of this checkout, ``-dirty`` where it was changed. ``None`` without git or its history."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Name, family and model of the processor. On virtual machines the name alone hides the generation."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        pairs = [line.split(":", 1) for line in reversed(lines) if ":" in line]
        first = {key.strip(): value.strip() for key, value in pairs}
        return f"{first['model name']} (family {first['cpu family']}, model {first['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


def peak_megabytes() -> float:
    """Largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss is inherited across a fork
        values = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(values["VmHWM"].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
