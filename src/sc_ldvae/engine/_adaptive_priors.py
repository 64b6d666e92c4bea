"""The adaptive priors of a model's modalities, which judge their factors together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae._tables import joined, parted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Arrays, Floats, Mask
    from sc_ldvae.engine._adaptive_prior import AdaptivePrior

# One step of so many has the priors, with as many times their weight: they move slowly, and take a quarter of a step.
EVERY = 4
_STEPS = "n_steps"


class AdaptivePriors:
    """One adaptive prior for each modality: a factor has a scale in each, and vanishes from all or from none.

    Parameters
    ----------
    of_views
        Priors in the order of the modalities.
    """

    def __init__(self, of_views: Sequence[AdaptivePrior]) -> None:
        self.of_views = list(of_views)
        self.n_factors = self.of_views[0].n_factors
        self._n_steps = 0

    def begin_step(self) -> bool:
        """Whether the step that begins has the priors."""
        self._n_steps += 1
        return self._n_steps % EVERY == 1

    def share(self, place: int, divergence: Floats) -> Floats:
        """What a modality bears of the divergence of the latent, a mean over cells, per cell that has the modality.

        Of all training cells together it is the same for all modalities, and in all the divergence itself.
        """
        prior = self.of_views[place]
        return divergence * divergence.dtype.type(prior.n_cells / (prior.n_training * len(self.of_views)))

    def evidence(self) -> Floats:
        """By how much each factor raises the log evidence of the training cells, in nats, n_factors."""
        return np.sum([prior.evidence() for prior in self.of_views], axis=0)

    def supported(self) -> Mask:
        """Factors that the cells support: those whose evidence is positive; at least the one with the largest."""
        evidence = np.nan_to_num(self.evidence(), nan=-np.inf)
        return (evidence > 0) | (evidence == evidence.max())

    @property
    def scales(self) -> list[Floats]:
        """Standard deviation of each factor's loadings, n_factors for each modality."""
        return [prior.scale for prior in self.of_views]

    def state(self) -> Arrays:
        """What they have learnt."""
        tables = {str(place): prior.state() for place, prior in enumerate(self.of_views)}
        return {**joined(tables), _STEPS: np.array(self._n_steps)}

    def load(self, state: Arrays) -> None:
        """Go on from there."""
        self._n_steps = int(state[_STEPS])
        tables = parted({name: values for name, values in state.items() if name != _STEPS})
        for place, prior in enumerate(self.of_views):
            prior.load(tables.get(str(place), {}))
