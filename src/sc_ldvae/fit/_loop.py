"""The training loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from sc_ldvae.counts import n_minibatches, shuffled
from sc_ldvae.fit._scores import mean_elbo

if TYPE_CHECKING:
    from torch import Tensor

    from sc_ldvae.fit._engine import Engine
    from sc_ldvae.nn import LDVAE

# Shares of the whole schedule, in steps: the learning rate and the weight of the KL divergence rise for so long.
WARMUP = 0.1
PATIENCE = 0.4
# Learning rates at both ends, as shares of the peak.
LR_FIRST = 0.3
LR_LAST = 4e-6


@dataclass(frozen=True)
class Schedule:
    """How long to train and how."""

    max_epochs: int
    batch_size: int = 128
    lr: float = 0.06
    early_stopping: bool = True
    progress: bool = True


@dataclass
class History:
    """What each epoch came to, one entry per epoch."""

    epoch: list[int] = field(default_factory=list)
    elbo: list[float] = field(default_factory=list)
    """Mean over the training cells at KL weight 1, in nats, while the parameters moved."""
    elbo_held_out: list[float] = field(default_factory=list)
    """Mean over the held-out cells at KL weight 1, in nats; empty where none are held out."""
    kl_weight: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)

    def best_epoch(self) -> int:
        """Position of the epoch with the largest held-out ELBO; the last one where none are held out."""
        scores = self.elbo_held_out
        return scores.index(max(scores)) if scores else len(self.epoch) - 1


def default_max_epochs(n_cells: int, batch_size: int) -> int:
    """Epochs that come to at least 350 steps, and for many cells to 6 times the square root of their number."""
    n_steps = max(350, 6 * math.sqrt(n_cells))
    return max(2, round(n_steps / n_minibatches(n_cells, batch_size)))


def learning_rate(step: int, n_steps: int, peak: float) -> float:
    """One cycle (Smith and Topin 2019): up to the peak and down to almost nothing, both along a cosine."""
    done = step / max(n_steps - 1, 1)
    if done < WARMUP:
        return peak * _cosine(LR_FIRST, 1, done / WARMUP)
    return peak * _cosine(1, LR_LAST, (done - WARMUP) / (1 - WARMUP))


def train(
    model: LDVAE, engine: Engine, training: Tensor, held_out: Tensor, schedule: Schedule, generator: torch.Generator
) -> tuple[History, str]:
    """Maximise the ELBO of the `training` cells; leave the model in the state that was best on the `held_out` ones.

    Parameters
    ----------
    model
        Changed in place; it ends in evaluation mode.
    engine
        What computes steps of this model.
    training, held_out
        Integer positions of cells, on the model's device.
    schedule
        Length, minibatch size, peak learning rate.
    generator
        Source of everything random, on the model's device.

    Returns
    -------
    One entry per epoch, and why training stopped.

    Raises
    ------
    FloatingPointError
        If the ELBO stops being a finite number.
    """
    n_steps = schedule.max_epochs * n_minibatches(len(training), schedule.batch_size)
    kl_weights = torch.linspace(0, 1, max(2, round(WARMUP * n_steps))).tolist()
    patience = max(5, round(PATIENCE * schedule.max_epochs))
    history, best_state, step = History(), None, 0

    with tqdm(total=schedule.max_epochs, desc="LDVAE", unit="epoch", disable=not schedule.progress) as bar:
        for epoch in range(schedule.max_epochs):
            model.train()
            elbo = torch.zeros((), device=training.device)
            history.lr.append(learning_rate(step, n_steps, schedule.lr))
            for minibatch in shuffled(training, schedule.batch_size, generator):
                kl_weight = kl_weights[min(step, len(kl_weights) - 1)]
                terms = engine.step(minibatch, learning_rate(step, n_steps, schedule.lr), kl_weight, generator)
                elbo += terms.per_cell().detach().sum()
                step += 1
            history.epoch.append(epoch + 1)
            history.kl_weight.append(kl_weight)
            history.elbo.append(float(elbo) / len(training))
            _check_finite(history.elbo[-1], epoch + 1)
            if len(held_out):
                history.elbo_held_out.append(evaluate(model, engine, held_out))
                if history.best_epoch() == epoch:
                    best_state = {key: value.clone() for key, value in model.state_dict().items()}
            reason = _reason_to_stop(history, schedule, patience)
            bar.update()
            bar.set_postfix_str(_postfix(history, reason))
            if reason:
                break

    if best_state is not None:
        model.load_state_dict(best_state)
    model.eval()
    return history, reason


def evaluate(model: LDVAE, engine: Engine, held_out: Tensor) -> float:
    """Mean ELBO per held-out cell at KL weight 1, in nats; the model ends in evaluation mode."""
    model.eval()
    return mean_elbo(engine, held_out)


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _check_finite(elbo: float, epoch: int) -> None:
    if not -float("inf") < elbo < float("inf"):
        msg = f"The ELBO became {elbo} in epoch {epoch}. Try a smaller lr."
        raise FloatingPointError(msg)


def _reason_to_stop(history: History, schedule: Schedule, patience: int) -> str:
    epoch = history.epoch[-1]
    since_best = epoch - 1 - history.best_epoch()
    if schedule.early_stopping and since_best >= patience:
        return f"held-out ELBO best in epoch {epoch - since_best}, not improved for {since_best} epochs"
    return f"max_epochs={schedule.max_epochs} reached" if epoch == schedule.max_epochs else ""


def _postfix(history: History, reason: str) -> str:
    held_out = f", held-out {history.elbo_held_out[-1]:.1f}" if history.elbo_held_out else ""
    return f"ELBO {history.elbo[-1]:.1f}{held_out}" + (f", stopped: {reason}" if reason else "")
