"""Fresh processes: each measurement has one of its own, with its threads and its memory.

In the child, ``python -m benchmarks.process MODULE:FUNCTION RESULT`` calls the function with the JSON object of the
standard input as keyword arguments, and writes the JSON object that it returns.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def run(target: str, request: dict[str, Any], threads: int, **environment: str) -> dict[str, Any]:
    """Call a function, named ``"module:function"``, in a fresh process; its result and the process's wall seconds.

    Raises
    ------
    RuntimeError
        If the process fails; the message has the end of what it said.
    """
    variables = os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads)) | environment
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        start = time.perf_counter()
        done = subprocess.run(  # noqa: S603  our own interpreter and module
            [sys.executable, "-m", __name__, target, str(result)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env=variables,
            check=False,
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            msg = f"{target} failed on {request}:\n{done.stderr[-4000:]}"
            raise RuntimeError(msg)
        return json.loads(result.read_text()) | {"process_seconds": seconds}


def answer(target: str, request: str) -> dict[str, Any]:
    """Call the function in this process, with a JSON object as keyword arguments."""
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)(**json.loads(request))


def main() -> None:
    """Serve one call."""
    target, result = sys.argv[1:]
    Path(result).write_text(json.dumps(answer(target, sys.stdin.read())))


if __name__ == "__main__":
    main()
