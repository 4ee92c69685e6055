"""One `make book` at a time in a folder of runs."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import IO

import psutil

from safn_book.workflow import RUN

PATIENCE = 5  # seconds in which a run that was killed may still be ending


def alone(runs: Path) -> IO[str]:
    """Take the lock of a folder of runs, and end what a killed run has left running there.

    The system takes the lock back however this process ends. Processes that are left are known by their environment.

    Returns:
        the open file, which holds the lock until it is closed.

    Raises:
        SystemExit: another run is at work there.
    """
    lock = (runs / ".lock").open("w")
    until = time.monotonic() + PATIENCE
    while not _locked(lock):
        if time.monotonic() > until:
            lock.close()
            sys.exit(f"another `make book` is at work in {runs}: wait for it, or stop it")
        time.sleep(0.1)
    left = [process for process in psutil.process_iter(["environ"]) if _belongs(process, runs)]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=10)
    os.environ[RUN] = str(runs)
    return lock


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _belongs(process: psutil.Process, runs: Path) -> bool:
    environment = process.info["environ"] or {}
    return environment.get(RUN) == str(runs) and process.pid != os.getpid()
