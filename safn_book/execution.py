"""Execute notebooks with papermill."""

import sys
from pathlib import Path
from typing import IO, Any

# jupyter_client, where two kernels that start at once choose one port: a second try finds another
DIED_AT_START = "Kernel died before replying"
# Importing PyTorch makes a million objects that stay: to look for garbage after every 700 of them takes a second.
KERNEL_START = "--IPKernelApp.exec_lines=import gc; gc.set_threshold(10_000, 10, 10)"


def execute(source: Path, executed: Path, parameters: dict[str, Any], log: IO[str] | None = None) -> str:
    """Execute a notebook in its folder; returns what went wrong, or an empty text. ``log`` gets what its cells print."""
    # what jsonschema needs for a format that no notebook has takes a second to import
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    import papermill
    from papermill.exceptions import PapermillExecutionError

    options = {"cwd": literal(source.parent), "progress_bar": False, "stdout_file": log, "stderr_file": log}
    options["extra_arguments"] = [KERNEL_START]
    options["shutdown_kernel"] = "immediate"  # one with PyTorch takes two seconds to end by itself
    problem = ""
    for _ in range(2):
        try:
            papermill.execute_notebook(literal(source), literal(executed), parameters, **options)
            return ""
        except PapermillExecutionError as error:
            problem = f"{error.ename}: {error.evalue}"
        except Exception as error:  # such as a kernel that was killed
            problem = f"{type(error).__name__}: {error}"
        if DIED_AT_START not in problem:
            break
    return problem


def literal(path: Path) -> str:
    """Write a path so that papermill takes braces in it for no placeholders.

    Example:
        >>> literal(Path("runs/{mine}"))
        'runs/{{mine}}'
    """
    return str(path).replace("{", "{{").replace("}", "}}")
