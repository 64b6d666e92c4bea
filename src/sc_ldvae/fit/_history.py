"""What each round of a training came to."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class History:
    """One entry per round: per epoch, or where epochs are long per part of one."""

    epoch: list[float] = field(default_factory=list)
    """Passes over the training cells until then."""
    elbo: list[float] = field(default_factory=list)
    """Mean over the training cells at KL weight 1, in nats, while the parameters moved."""
    elbo_held_out: list[float] = field(default_factory=list)
    """Mean over held-out cells at KL weight 1, in nats; empty where none are held out."""
    kl_weight: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    n_selecting: int = 0
    """First rounds, in which all factors were there and a prior of their loadings chose; no state of theirs is kept."""

    def best(self) -> int:
        """Position of the round with the largest held-out ELBO; the last one where none are held out."""
        scores = self.elbo_held_out[self.n_selecting :]
        return self.n_selecting + scores.index(max(scores)) if scores else len(self.epoch) - 1

    def columns(self) -> dict[str, list[float]]:
        """What there is, by name."""
        return {name: values for name, values in vars(self).items() if isinstance(values, list) and values}
