"""Loadings, as they are stored or in the frame that is asked for, with their errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from sc_ldvae import assess, record
from sc_ldvae._modality import pick_modality
from sc_ldvae.get._frames import factor_positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from sc_ldvae._typing import Data, Floats, Mask, Positions

Per: TypeAlias = Literal["unit", "sd"]
By: TypeAlias = Literal["bound", "loading"]

# Standard errors on either side of a 95 % interval.
HALF_INTERVAL = 1.96


def loadings(
    data: Data,
    factors: Sequence[int | str] | None = None,
    *,
    rotation: assess.Method | None = None,
    per: Per = "unit",
    log2: bool = False,
    key: str = record.DEFAULT,
    modality: str | None = None,
) -> pd.DataFrame:
    """Loadings of the fitted genes.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    factors
        Factors by number from 1 or by name; all if None.
    rotation
        Rotate the factors towards loadings of which few are large: ``'varimax'`` (orthogonal) or ``'promax'`` (oblique:
        factors may be correlated), with genes weighted by how well they are measured. Rotated factors come in the order
        of their weighted sum of squared loadings. To keep them in the object, with their latent, use
        :func:`~sc_ldvae.tl.rotate`.
    per
        Effect of one ``'unit'`` of the factor, or of one standard deviation (``'sd'``) of its latent over the cells.
    log2
        Give log2 in place of natural log.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.

    Returns
    -------
    Effect of one unit of each factor on the log expression proportion (natural log), relative to the average fitted
    gene: genes x factors. Genes that were not fitted, or have left the object, are left out.

    Raises
    ------
    ValueError
        If there is no such fit or factor, if `rotation` or `per` is unknown, or if factors that are shares of one
        (``latent_distribution='ln'``) are to be rotated.

    See Also
    --------
    loadings_se : Standard errors of the same numbers.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.get.loadings(adata).columns.tolist()
    ['ldvae1', 'ldvae2', 'ldvae3']
    >>> sc_ldvae.get.loadings(adata, [1], rotation="varimax", per="sd", log2=True).shape
    (50, 1)
    """
    return _View.of(data, rotation, per, key, modality, log2=log2).loadings(factors)


def loadings_se(
    data: Data,
    factors: Sequence[int | str] | None = None,
    *,
    rotation: assess.Method | None = None,
    per: Per = "unit",
    log2: bool = False,
    key: str = record.DEFAULT,
    modality: str | None = None,
) -> pd.DataFrame:
    """Standard errors of the loadings.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    factors
        Factors by number from 1 or by name; all if None.
    rotation, per, log2
        As in :func:`loadings`. Rotation and standard deviations are taken as known.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.

    Returns
    -------
    Standard error of each loading, in its unit: genes x factors, as :func:`loadings` gives them.

    Raises
    ------
    ValueError
        As :func:`loadings`, and if the fit has no errors.

    Examples
    --------
    >>> import numpy as np, sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.get.loadings_se(adata).shape
    (50, 3)
    """
    return _View.of(data, rotation, per, key, modality, log2=log2).errors(factors)


def top_genes(
    data: Data,
    n_genes: int = 10,
    *,
    factors: Sequence[int | str] | None = None,
    by: By = "bound",
    rotation: assess.Method | None = None,
    per: Per = "unit",
    log2: bool = False,
    key: str = record.DEFAULT,
    modality: str | None = None,
) -> pd.DataFrame:
    """Genes with the largest and the smallest loadings of each factor.

    Rare genes can have large loadings that are little more than noise. Ranked by what they are at the least, genes come
    first whose loadings are large beyond doubt [Harrison19]_.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    n_genes
        Number of genes per factor and direction.
    factors
        Factors by number from 1 or by name; all if None.
    by
        Rank genes by the size of what the loading is at least, the end of its 95 % interval that is nearer to zero
        (``'bound'``: 1.96 standard errors less; genes whose interval holds zero come after all others), or by that of
        the loading itself (``'loading'``, which fits without errors have in any case).
    rotation, per, log2
        As in :func:`loadings`.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.

    Returns
    -------
    One row per factor, direction and gene, indexed by factor and gene, with the columns `direction` (``'positive'``,
    ``'negative'``), `rank` (1 is the first) and `loading`. A gene stands in the direction of its sign only.
    Where the fit has errors, also `se` (standard error of the loading), `lfsr` (local false sign rate: probability that
    the loading is zero or of the other sign) and `qvalue` (mean `lfsr` of the factor's loadings that are at least as
    sure).

    Raises
    ------
    ValueError
        As :func:`loadings`, if `n_genes` is below one, or if `by` is unknown.

    References
    ----------
    .. [Harrison19] Harrison, Pattison, Powell, Beilharz (2019). Topconfects: a package for confident effect sizes in
       differential expression analysis provides a more biologically useful ranked gene list. Genome Biology 20:67.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> len(sc_ldvae.get.top_genes(adata, 5).loc["ldvae1"])
    10
    """
    if n_genes < 1:
        msg = f"n_genes must be at least 1, but is {n_genes}."
        raise ValueError(msg)
    if by not in get_args(By):
        msg = f"by={by!r} is unknown. Choose 'bound' or 'loading'."
        raise ValueError(msg)
    view = _View.of(data, rotation, per, key, modality, log2=log2)
    frame = view.loadings(factors)
    errors = None if view.fit.loadings_covariance is None else view.errors(factors)
    tables = []
    for factor, column in frame.items():
        values = column.to_numpy()
        genes = pd.DataFrame({"gene": frame.index, "loading": values})
        if errors is not None:
            genes["se"] = errors[factor].to_numpy()
            genes["lfsr"], genes["qvalue"] = assess.signs(values, errors[factor].to_numpy())
        doubt = HALF_INTERVAL * genes["se"].to_numpy() if by == "bound" and "se" in genes else 0
        for direction, sign in (("positive", 1), ("negative", -1)):
            ranked = np.argsort(doubt - sign * values, kind="stable")
            table = genes.iloc[ranked[sign * values[ranked] > 0][:n_genes]]
            ranks = np.arange(1, len(table) + 1)
            tables.append(table.assign(factor=str(factor), direction=direction, rank=ranks))
    columns = ["factor", "gene", "direction", "rank", *genes.columns[1:]]
    return pd.concat(tables, ignore_index=True)[columns].set_index(["factor", "gene"])


def latent_of(adata: AnnData, rotation: assess.Method | None, key: str) -> Floats:
    """Latent of the factors that :func:`loadings` gives, n_obs x n_latent."""
    return _View.of(adata, rotation, "unit", key, None, log2=False).latent()


def rotation_of(adata: AnnData, fit: record.Record, method: str, argument: str) -> Floats:
    """Matrix that takes the model's latent to the rotated one, n_latent x n_latent; `argument` names the method.

    Raises
    ------
    ValueError
        If the method is unknown, or the fit's factors are shares of one.
    """
    if method not in assess.ROTATIONS:
        msg = f"{argument}={method!r} is unknown. Choose {' or '.join(map(repr, assess.ROTATIONS))}."
        raise ValueError(msg)
    if fit.param("latent_distribution") == "ln":
        msg = (
            f"{argument}={method!r} was given, but with latent_distribution='ln' factors are shares of one, which have "
            "no rotation. Leave it out, or fit with latent_distribution='normal'."
        )
        raise ValueError(msg)
    library = float(record.state_of(adata, fit).library.mean(dtype=np.float64))
    information = assess.gene_information(fit.decoder, library)
    return assess.ROTATIONS[method](fit.decoder.log_proportion.loadings, information)


@dataclass(frozen=True)
class _View:
    """A fit's loadings as someone wants to see them."""

    adata: AnnData
    fit: record.Record
    turn: Floats | None
    """Matrix from the shown latent to the one asked for, if they differ."""
    per: Per
    log2: bool

    @classmethod
    def of(
        cls, data: Data, rotation: assess.Method | None, per: Per, key: str, modality: str | None, *, log2: bool
    ) -> _View:
        if per not in get_args(Per):
            msg = f"per={per!r} is unknown. Choose 'unit' or 'sd'."
            raise ValueError(msg)
        adata = pick_modality(data, modality)
        fit = record.read(adata, key)
        turn = None
        if rotation is not None:
            turn = fit.turn_to(rotation_of(adata, fit, rotation, "rotation"))
        return cls(adata, fit, turn, per, log2)

    def loadings(self, factors: Sequence[int | str] | None) -> pd.DataFrame:
        if self.turn is None:
            return self._frame(np.asarray(self.adata.varm[self.fit.keys.loadings])[self._fitted()], factors)
        shown = self.fit.shown_decoder.log_proportion.loadings[self._rows()]
        return self._frame(shown @ np.linalg.inv(self.turn).T, factors)

    def latent(self) -> Floats:
        """Of the factors as they are asked for, n_obs x n_latent."""
        latent = record.state_of(self.adata, self.fit).latent
        for matrix in (self.fit.rotation, self.turn):
            latent = latent if matrix is None else latent @ matrix
        return latent

    def errors(self, factors: Sequence[int | str] | None) -> pd.DataFrame:
        covariance = self.fit.loadings_covariance
        if covariance is None:
            msg = (
                f"uns[{self.fit.keys.uns!r}] has no errors of its loadings, as it was written by an older version. "
                "Fit again."
            )
            raise ValueError(msg)
        covariance = covariance[self._rows()]
        if self.turn is not None:
            covariance = record.turned(covariance, self.turn)
        return self._frame(np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)), factors)

    def _frame(self, values: Floats, factors: Sequence[int | str] | None) -> pd.DataFrame:
        """Of the fitted genes in `adata` (rows of `values`) and the chosen factors (columns), in the unit asked for."""
        chosen = factor_positions(self.fit, factors)
        return pd.DataFrame(
            (values * self._unit())[:, chosen].astype(np.float32),
            index=self.adata.var_names[self._fitted()],
            columns=[self.fit.factor_names[k] for k in chosen],
        )

    def _unit(self) -> Floats | float:
        """What one unit of the factors is multiplied by, n_latent or a number."""
        base = np.log2(np.e) if self.log2 else 1.0
        return base if self.per == "unit" else base * self.latent().std(axis=0, dtype=np.float64)

    def _fitted(self) -> Mask:
        """Which of var_names were fitted."""
        fitted = self.adata.var_names.isin(self.fit.genes)
        if not fitted.any():
            genes = self.fit.genes
            msg = f"None of the {len(genes)} fitted genes is among var_names (fitted: {genes[0]!r}, ...). Renamed?"
            raise ValueError(msg)
        return fitted

    def _rows(self) -> Positions:
        """Rows of the decoder for those."""
        return pd.Index(self.fit.genes).get_indexer(self.adata.var_names[self._fitted()])
