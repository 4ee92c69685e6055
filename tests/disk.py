"""A disk that is really full; not a test.

A small file system of its own where one may be mounted (it ends with the process), else a limit on the size of files.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
MOUNTED = 'mount -t tmpfs -o size=8m tmpfs "$0" && exec "$@"'


def run(code: str, folder: Path, *arguments: str | Path) -> dict:
    """What Python ``code`` prints as JSON. It is given ``folder``, the small disk, and ``arguments``."""
    folder.mkdir()
    private = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNTED, folder]
    may = shutil.which("unshare") and not subprocess.run([*private, "true"], capture_output=True).returncode
    command = [*(private if may else []), sys.executable, "-c", code, folder, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent)))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(re.findall(r"\{.*\}", done.stdout)[-1])  # among lines of progress


def fill(folder: Path, left: int) -> None:
    """From now on no more than ``left`` bytes, a multiple of 4096, fit into ``folder`` (or into a file)."""
    if os.path.ismount(folder):
        state = os.statvfs(folder)
        (folder / "filler").write_bytes(bytes(state.f_bavail * state.f_frsize - left))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (left, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def free(folder: Path) -> None:
    """There is room again."""
    (folder / "filler").unlink(missing_ok=True)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
