"""Covariates beside the latent: which columns of obs, coded how."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from sc_ldvae._options import Levels
from sc_ldvae.record._obs import ObsError, check_present, levels_of, numbers, whole_column

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray


# Relative to the largest value: the differences of numbers that were meant to be the same.
_ROUNDING = 1e-12
# Its square is a number.
_LARGEST = 1e150
# Standard deviations beyond which a number is in another unit, and single precision ends soon.
_FARTHEST = 1e6


class Mean(Enum):
    """Asks for the mean over the levels: no level can be called so."""

    MEAN = "mean"


MEAN = Mean.MEAN
Setting: TypeAlias = str | float | Mean | None


@dataclass(frozen=True)
class Categorical:
    """A categorical column of obs with the levels that the fit saw, in order."""

    key: str
    levels: tuple[str, ...]

    @classmethod
    def fit(cls, obs: pd.DataFrame, key: str, argument: str) -> Categorical:
        """Learn the levels that occur.

        Raises
        ------
        ValueError
            If the column is unknown, has missing values, or has as many levels as there are cells.
        """
        column = whole_column(obs, key, argument)
        levels = tuple(levels_of(column, key, argument)[1])
        if len(levels) == len(obs):
            msg = (
                f"{argument}: obs[{key!r}] has {len(levels)} levels, as many as there are cells. "
                "Name a column that groups cells."
            )
            raise ObsError(msg)
        return cls(key, levels)

    def codes(self, obs: pd.DataFrame) -> NDArray[np.int64]:
        """Position of each cell's level, n_obs.

        Raises
        ------
        ValueError
            If the column is gone, has missing values, or levels that the fit has not seen.
        """
        check_present(obs, self.key)
        codes, levels = levels_of(whole_column(obs, self.key, "covariates"), self.key, "covariates")
        unseen = [level for level in levels if level not in self.levels]
        if unseen:
            msg = (
                f"obs[{self.key!r}] has the level {unseen[0]!r}, which the fit has not seen: its effect is unknown. "
                f"Levels of the fit: {', '.join(map(repr, self.levels))}."
            )
            raise ObsError(msg)
        return np.array([self.levels.index(level) for level in levels], dtype=np.int64)[codes]

    def settings(self, obs: pd.DataFrame, level: Setting) -> list[NDArray[np.float64]]:
        """Columns of the design for the cells' own levels (None), for one level, or for each (the mean)."""
        one_hot = np.eye(len(self.levels))[:, : self.n_columns]
        if level is None:
            # A single level has no column: the cells need not name it.
            return [one_hot[self.codes(obs) if self.n_columns else np.zeros(len(obs), dtype=np.int64)]]
        if isinstance(level, Mean) or (level == "mean" and level not in self.levels):
            return [np.tile(row, (len(obs), 1)) for row in one_hot]
        if str(level) not in self.levels:
            msg = f"{level!r} is no level of the covariate {self.key!r}. Levels: {', '.join(map(repr, self.levels))}."
            raise ValueError(msg)
        return [one_hot[np.full(len(obs), self.levels.index(str(level)))]]

    @property
    def n_columns(self) -> int:
        """Columns of the design; a single level has none, for it has no effect."""
        return len(self.levels) if len(self.levels) > 1 else 0


@dataclass(frozen=True)
class Continuous:
    """A numeric column of obs, centred and scaled by what the fit saw."""

    key: str
    mean: float
    sd: float

    @classmethod
    def fit(cls, obs: pd.DataFrame, key: str, argument: str) -> Continuous:
        """Learn mean and standard deviation.

        Raises
        ------
        ValueError
            If the column is unknown, not numeric, constant, or has missing or infinite values.
        """
        values = numbers(obs, key, argument)
        largest = np.abs(values).max()
        # What differs by rounding alone does not differ.
        if np.ptp(values / (largest or 1)) <= _ROUNDING:
            msg = f"{argument}: obs[{key!r}] is {values[0]:.4g} in every cell: there is no effect to fit. Leave it out."
            raise ObsError(msg)
        if largest > _LARGEST:
            msg = f"{argument}: obs[{key!r}] holds {largest:.4g}, too large to compute with. Take another unit."
            raise ObsError(msg)
        return cls(key, float(values.mean()), float(values.std()))

    def values(self, obs: pd.DataFrame) -> NDArray[np.float64]:
        """Standardised values, n_obs.

        Raises
        ------
        ValueError
            If the column is gone, not numeric, has missing or infinite values, or some that are far from all that the
            fit saw.
        """
        check_present(obs, self.key)
        return self._standardised(numbers(obs, self.key, "covariates"))

    def settings(self, obs: pd.DataFrame, value: Setting) -> list[NDArray[np.float64]]:
        """The column of the design for the cells' own values (None), for one value, or for the mean."""
        if value is None:
            return [self.values(obs)[:, None]]
        if isinstance(value, Mean) or value == "mean":
            value = self.mean
        if not isinstance(value, int | float | np.number) or not np.isfinite(value):
            msg = f"The covariate {self.key!r} is a number: it can't be {value!r}. Give a number, or 'mean'."
            raise ValueError(msg)
        return [self._standardised(np.full((len(obs), 1), float(value)))]

    def _standardised(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):
            found = (values - self.mean) / self.sd
        far = np.abs(found) > _FARTHEST
        if far.any():
            msg = (
                f"The covariate {self.key!r} is {values[far][0]:.4g}, but in the fit its mean is {self.mean:.4g} and "
                f"its standard deviation {self.sd:.4g}. Check its unit."
            )
            raise ValueError(msg)
        return found


@dataclass(frozen=True)
class Design:
    """Columns beside the latent, in the model's order: batch, further categories, continuous covariates."""

    batch: Categorical | None = None
    categorical: tuple[Categorical, ...] = ()
    continuous: tuple[Continuous, ...] = ()

    @classmethod
    def from_table(cls, table: Mapping[str, Any], batch: Categorical | None) -> Design:
        """The design that `table` gave; `batch` is the covariate that is the batch, if there is one."""
        rows: dict[str, list[tuple[str, float, float]]] = {}
        for key, *row in zip(*(table[name].tolist() for name in ("key", "level", "mean", "sd")), strict=True):
            rows.setdefault(key, []).append(tuple(row))
        # A category has at least two columns. The level of a number is empty, but so may that of a category be.
        categorical = (
            Categorical(key, tuple(level for level, _, _ in own))
            for key, own in rows.items()
            if len(own) > 1 and (batch is None or key != batch.key)
        )
        continuous = (Continuous(key, *own[0][1:]) for key, own in rows.items() if len(own) == 1)
        return cls(batch, tuple(categorical), tuple(continuous))

    def levels(self, labels: Categorical | None) -> Levels:
        """How many levels the model is built for."""
        return Levels(
            n_batch=0 if self.batch is None else len(self.batch.levels),
            n_labels=0 if labels is None else len(labels.levels),
            n_cats_per_cov=tuple(len(column.levels) for column in self.categorical),
            n_continuous_cov=len(self.continuous),
        )

    def strata(self, obs: pd.DataFrame) -> NDArray[np.int64]:
        """Batch of each cell, n_obs."""
        return np.zeros(len(obs), dtype=np.int64) if self.batch is None else self.batch.codes(obs)

    def matrix(self, obs: pd.DataFrame) -> NDArray[np.float64]:
        """Values of the columns, n_obs x columns.

        Raises
        ------
        ValueError
            If obs lacks a covariate, or has a level that the fit has not seen.
        """
        (own,) = self.matrices(obs, {})
        return own

    def matrices(self, obs: pd.DataFrame, settings: Mapping[str, Setting]) -> list[NDArray[np.float64]]:
        """The columns with some covariates set: more than one matrix, n_obs x columns each, where to take a mean.

        Parameters
        ----------
        obs
            Annotation of the cells; covariates that are set need not be in it.
        settings
            Level or value of covariates, the same for all cells; `MEAN`, and ``'mean'`` where no level is called so,
            asks for one matrix per level, and for the mean of the fit in the case of a number.

        Raises
        ------
        ValueError
            If a setting is none that the fit knows, or obs lacks a covariate that is not set.
        """
        known: dict[str, Categorical | Continuous] = {column.key: column for column in self.categories}
        known |= {column.key: column for column in self.continuous}
        if self.batch is not None:
            known[self.batch.key] = self.batch
        unknown = [key for key in settings if key not in known]
        if unknown:
            msg = f"{unknown[0]!r} is no covariate of the fit. Its covariates: {', '.join(map(repr, known)) or 'none'}."
            raise ValueError(msg)
        parts = [column.settings(obs, settings.get(column.key)) for column in known.values()]
        return [np.hstack([np.zeros((len(obs), 0)), *chosen]) for chosen in product(*parts)]

    @property
    def categories(self) -> tuple[Categorical, ...]:
        """Batch and further categories that have columns."""
        batch = () if self.batch is None else (self.batch,)
        return tuple(column for column in (*batch, *self.categorical) if column.n_columns)

    @property
    def blocks(self) -> list[slice]:
        """Columns of each category."""
        ends = np.cumsum([len(column.levels) for column in self.categories], dtype=int)
        return [slice(end - len(own.levels), end) for own, end in zip(self.categories, ends.tolist(), strict=True)]

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Covariate and level of each column; a continuous covariate has the empty level."""
        levels = [(column.key, level) for column in self.categories for level in column.levels]
        return levels + [(column.key, "") for column in self.continuous]

    def table(self) -> dict[str, NDArray[Any]]:
        """The columns as a file keeps them: key, level, and the mean and standard deviation taken out."""
        keys, levels = zip(*self.columns, strict=True)
        n_levels = len(keys) - len(self.continuous)
        return {
            "key": np.array(keys, dtype=str),
            "level": np.array(levels, dtype=str),
            "mean": np.array([0.0] * n_levels + [column.mean for column in self.continuous]),
            "sd": np.array([1.0] * n_levels + [column.sd for column in self.continuous]),
        }
