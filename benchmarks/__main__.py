"""Command line of the benchmarks: ``python -m benchmarks all --data FOLDER --out FOLDER``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks import fit, scale, step
from benchmarks.calibration import calibration
from benchmarks.data import DATA_SETS
from benchmarks.first_call import first_call
from benchmarks.integration import integration
from benchmarks.methods import METHODS
from benchmarks.runs import Session
from benchmarks.smoke import smoke
from benchmarks.stability import stability
from benchmarks.tasks import tasks


def main() -> None:
    """Run one command."""
    asked = _parser().parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    session = Session(asked.out.resolve(), asked.threads, asked.data)
    command = asked.command
    if command in ("fit", "all"):
        fit.fit(session, asked.only or fit.NAMES_OF_DATA, asked.methods, asked.repeats)
    if command in ("step", "all"):
        step.step(session, asked.only or step.NAMES_OF_DATA)
    if command in ("scale", "all"):
        scale.scale(session)
    if command in ("first-call", "all"):
        first_call(session, asked.repeats)
    if command in ("tasks", "all"):
        tasks(session, repeats=asked.repeats)
    if command in ("integration", "all"):
        integration(session)
    if command in ("stability", "all"):
        stability(session)
    if command in ("calibration", "all"):
        calibration(session)
    if command == "smoke":
        smoke(session)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = {
        "fit": "every method on every data set: seconds, memory, held-out fit, labels, cross check of the evaluator",
        "step": "one training step against LinearSCVI's and the floor",
        "scale": "seconds and memory against cells and genes",
        "first-call": "the first call in a fresh process",
        "tasks": "differential and normalised expression after the fit, beside scvi-tools with the same weights",
        "integration": "two studies with the same cell types: mixing and cell types",
        "stability": "factors that come back, beside LinearSCVI; what the score predicts; seconds of asking",
        "calibration": "intervals of loadings and numbers of factors against simulations",
        "smoke": "everything on tiny data",
        "all": "all of these but smoke",
    }
    lines = "; ".join(f"{name}: {what}" for name, what in commands.items())
    parser.add_argument("command", choices=commands, help=lines)
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of tables, figures and finished runs")
    parser.add_argument("--data", type=Path, help="folder of the data files; what is missing is left out")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of every method")
    parser.add_argument("--repeats", type=int, default=3, help="seeds of fit, processes of first-call")
    parser.add_argument("--only", nargs="+", choices=DATA_SETS, help="data sets of fit and step")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="methods of fit")
    return parser


if __name__ == "__main__":
    main()
