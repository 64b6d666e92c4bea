"""Runs in processes of their own, remembered as files: what was cut off goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import process

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Session:
    """Where results go and how many threads everything has."""

    out: Path
    threads: int
    data: Path | None = None

    def call(self, target: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401  JSON values
        """Call ``"module:function"`` of this package in a fresh process."""
        return process.run(target, request, self.threads)

    def remembered(self, kind: str, name: str, target: str, **request: Any) -> dict[str, Any] | None:  # noqa: ANN401
        """The same, unless its result is there already; None, and a sentence, if it fails."""
        path = self.out / "runs" / kind / f"{name}.json"
        if path.exists():
            return json.loads(path.read_text())
        print(f"{kind}: {name}", flush=True)
        try:
            result = self.call(target, **request)
        except RuntimeError as error:
            print(f"{kind}: {name} is left out. {error}")
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(result))
        unfinished.replace(path)
        return result

    def fit(self, kind: str, name: str, **request: Any) -> dict[str, Any] | None:  # noqa: ANN401
        """One remembered fit, see `benchmarks.worker.fit`."""
        return self.remembered(kind, name, "benchmarks.worker:fit", threads=self.threads, **request)

    def idle_megabytes(self) -> float:
        """Peak memory of a process that has loaded torch and done nothing."""
        return self.call("benchmarks.machine:idle")["peak_megabytes"]

    def compile(self, path: Path) -> None:
        """Compile our kernels, so that no measured process holds the compiler."""
        self.call("benchmarks.worker:fit", path=str(path), method="ldvae", threads=self.threads, epochs=1)
