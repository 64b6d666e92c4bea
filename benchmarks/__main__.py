"""Command line of the benchmarks: ``python -m benchmarks all --data FOLDER --out FOLDER``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import fit, large, scale, start_up, step
from benchmarks.calibration import calibration
from benchmarks.data import DATA_SETS
from benchmarks.extend import extend
from benchmarks.gpu import gpu
from benchmarks.integration import integration
from benchmarks.joint import joint
from benchmarks.joint_truth import joint_step, joint_truth
from benchmarks.methods import METHODS
from benchmarks.runs import Session
from benchmarks.selection import selection
from benchmarks.smoke import smoke
from benchmarks.stability import stability
from benchmarks.tasks import tasks

if TYPE_CHECKING:
    from collections.abc import Callable


class Command(NamedTuple):
    """What can be asked for by name."""

    run: Callable[[Session, argparse.Namespace], None]
    what: str


COMMANDS = {
    "fit": Command(
        lambda session, asked: fit.fit(session, asked.only or fit.NAMES_OF_DATA, asked.methods, asked.repeats),
        "every method on every data set: seconds, memory, held-out fit, labels, cross check of the evaluator",
    ),
    "step": Command(
        lambda session, asked: step.step(session, asked.only or step.NAMES_OF_DATA),
        "one training step against LinearSCVI's and the floor",
    ),
    "gpu": Command(lambda session, _: gpu(session), "steps and fits on a CUDA device, if there is one"),
    "scale": Command(lambda session, _: scale.scale(session), "seconds and memory against cells and genes"),
    "large": Command(
        lambda session, asked: large.large(session, asked.cells or large.SIZES, repeats=asked.repeats),
        "fits of up to a million cells, in memory and on disk, beside LinearSCVI's first epoch",
    ),
    "start-up": Command(
        lambda session, asked: start_up.start_up(session, asked.only or start_up.NAMES_OF_DATA, asked.repeats),
        "first calls, with and without compiled kernels on disk; the phases of a call, beside PCA",
    ),
    "tasks": Command(
        lambda session, asked: tasks(session, repeats=asked.repeats),
        "differential and normalised expression after the fit, beside scvi-tools with the same weights",
    ),
    "integration": Command(
        lambda session, _: integration(session), "two studies with the same cell types: mixing and cell types"
    ),
    "joint": Command(
        lambda session, _: joint(session), "RNA and proteins together, beside MOFA, totalVI and nearest neighbours"
    ),
    "joint-truth": Command(
        lambda session, _: joint_truth(session), "simulated modalities: is it said which factor is in which"
    ),
    "joint-step": Command(
        lambda session, _: joint_step(session), "one training step of a joint fit against its modalities alone"
    ),
    "stability": Command(
        lambda session, _: stability(session),
        "factors that come back, beside LinearSCVI; what the score predicts; seconds of asking",
    ),
    "selection": Command(
        lambda session, _: selection(session), "what the adaptive prior keeps, and what that does to the fit"
    ),
    "calibration": Command(
        lambda session, _: calibration(session), "intervals of loadings and numbers of factors against simulations"
    ),
    "extend": Command(
        lambda session, _: extend(session), "loadings of genes outside of a fit: seconds, and against a fit of them"
    ),
    "smoke": Command(lambda session, _: smoke(session), "everything on tiny data"),
}
_EVERY = [name for name in COMMANDS if name != "smoke"]


def main() -> None:
    """Run one command, or all that measure."""
    asked = _parser().parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    session = Session(asked.out.resolve(), asked.threads, asked.data)
    for name in _EVERY if asked.command == "all" else [asked.command]:
        COMMANDS[name].run(session, asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    lines = [*(f"{name}: {command.what}" for name, command in COMMANDS.items()), "all: all of these but smoke"]
    parser.add_argument("command", choices=[*COMMANDS, "all"], help="; ".join(lines))
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of tables, figures and finished runs")
    parser.add_argument("--data", type=Path, help="folder of the data files; what is missing is left out")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of every method")
    parser.add_argument("--repeats", type=int, default=3, help="seeds of fit, calls of start-up, processes of large")
    parser.add_argument("--cells", nargs="+", type=int, help="numbers of cells of large")
    parser.add_argument("--only", nargs="+", choices=DATA_SETS, help="data sets of fit, start-up and step")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="methods of fit")
    return parser


if __name__ == "__main__":
    main()
