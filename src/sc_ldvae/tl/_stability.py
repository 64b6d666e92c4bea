"""Which factors would come back from other cells."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door
from sc_ldvae._products import product
from sc_ldvae._typing import UNSET

if TYPE_CHECKING:
    import torch

    from sc_ldvae._typing import Data, Floats, Seed
    from sc_ldvae.assess import Method
    from sc_ldvae.fit import Request, Subsample

_FEWEST_CELLS = 8


@door
def stability(
    data: Data,
    n_seeds: int = 10,
    *,
    subsample: Subsample | None = "halves",
    rotation: Method | None = None,
    key: str = record.DEFAULT,
    modality: str | None = None,
    layer: inputs.Layer = UNSET,
    device: str | torch.device = "auto",
    rng: Seed = 0,
    key_added: str | None = None,
    copy: bool = False,
    progress: bool = True,
) -> Data | None:
    """Refit with other seeds and other cells, and score how well each factor comes back.

    Every refit has the settings of the fit; but where the loadings have an adaptive prior, all factors stay, and the
    prior with them: half of the cells would support fewer factors than all of them do. Factors are matched to those of
    the fit one to one, up to sign, by the Hungarian method on the cosines of their loadings, in which a gene weighs as
    much as it is measured (its Fisher information in an average cell). A factor's score comes from pairs of refits: the
    mean cosine between what matches it in the one and in the other. With disjoint halves of the cells the two have no
    cell in common, so noise gets a score near 0; what halves have in common is extrapolated to all cells (Spearman-
    Brown). Among seeds alone, the score says little: fits start from the data, so they agree even where the data are
    noise.

    Parameters
    ----------
    data
        Fitted AnnData with raw counts, or MuData with such a `modality` or a joint fit.
    n_seeds
        Number of refits.
    subsample
        Cells of the refits: ``'halves'``, random halves in disjoint pairs, with half of each batch; ``'bootstrap'``, as
        many as there are, drawn with replacement; None, those of the fit: seeds alone differ.
    rotation
        Compare after a rotation of each refit's and the fit's loadings, as :func:`rotate` has them: scores belong to
        the rotated factors, in the order of ``get.loadings(rotation=...)``.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    layer
        Layer of raw counts, X for None; the layer of the fit by default.
    device
        As in :func:`ldvae`.
    rng
        Seed or generator of samples and refits.
    key_added
        Name of the result in place of ``'ldvae_stability'`` (of `key` and ``'_stability'``).
    copy
        Return a changed copy and leave `data` as it is.
    progress
        Show a progress bar of the refits.

    Returns
    -------
    None, or the copy. ``uns['ldvae_stability']`` gets a dict of arrays:

    ``score``
        Expected cosine between the factor and its match in a fit to as many other cells, 0 to 1, n_latent.
    ``replication``
        Signed cosine of the factor's matches in each pair of refits, n_pairs x n_latent.
    ``cosine``
        Absolute cosine of each refit's match with the factor itself, n_seeds x n_latent. Larger, for refits share cells
        with the fit.
    ``span``
        Mean cosine of the factor's match in one refit with the space of all factors of the other, n_latent. A low score
        with a large span: the factor comes back mixed with others; with a small span: it does not come back.
    ``splits``
        Whether in most refits two or more factors share it (cosines of at least 0.5), n_latent.
    ``merges``
        Whether in most refits one factor stands for this and another one, n_latent.
    ``consensus``, ``consensus_sd``
        Mean and standard deviation of the matched loadings over refits, n_genes x n_latent, in the order of
        ``uns['ldvae']['genes']``.
    ``params``, ``fit``
        `n_seeds`, `subsample` and `rotation` (empty: none); a mark of the fit, by which getters tell it from others.

    Raises
    ------
    ValueError
        If there is no such fit, if counts are missing, if there are too few cells, if `n_seeds` is below 2 or odd for
        halves, or if the fit is rotated (take the stability of the first with `rotation`). `data` is not changed.
    TypeError
        If `n_seeds` is no integer.

    See Also
    --------
    sc_ldvae.pl.stability : Plot the result.
    sc_ldvae.get.stability : The result as a frame.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.stability(adata, n_seeds=2, progress=False)
    >>> adata.uns["ldvae_stability"]["score"].shape
    (3,)
    """
    from tqdm import tqdm

    from sc_ldvae import assess, fit

    inputs.check_key(key_added)
    inputs.check_whole(n_seeds=n_seeds)
    found, stored = inputs.fitted_of(data, key, modality)
    _check(found, stored, n_seeds, subsample, rotation)
    with inputs.told_whose(data, found):
        request = _request(found, stored, layer, device)
    # Half of the cells support fewer factors than all of them do, and that is another question.
    request = replace(request, selects=False)
    generator = np.random.default_rng(rng)
    fitted, information = inputs.of_modalities(found, stored)

    def shown(loadings: list[Floats]) -> Floats:
        """Of the genes of all modalities."""
        together = np.vstack(loadings)
        if rotation is None:
            return together
        matrix = inputs.rotation(rotation, loadings, information, "rotation")
        return product(together, np.linalg.inv(matrix).T)

    # Before the refits, for it refuses rotations that this fit can't have.
    own = shown([one.astype(np.float64) for one in fitted])[:, stored.left]
    samples = fit.resampled(n_seeds, subsample, *_cells(found, stored), generator)
    with tqdm(samples, desc="Refits", unit="fit", total=n_seeds, disable=not progress) as bar:
        refits = [shown(loadings) for loadings in fit.refits(request, bar, generator)]
    pairs = list(combinations(range(n_seeds), 2))
    if subsample == "halves":
        pairs = [(first, first + 1) for first in range(0, n_seeds, 2)]
    weights, softmaxes = np.concatenate(information), inputs.softmaxes(stored)
    compared = assess.stability(own, refits, pairs, weights, softmaxes, halves=subsample == "halves")
    params = {"n_seeds": n_seeds, "subsample": subsample or "", "rotation": rotation or ""}
    result: dict[str, Any] = {part: _of_all(values, stored) for part, values in asdict(compared).items()}
    result["params"] = params
    name = f"{key}_stability" if key_added is None else key_added

    def write(data: Data) -> None:
        record.write_result(data, name, result, stored)

    return inputs.changed(data, modality, write, copy=copy)


def _request(
    data: Any,  # noqa: ANN401  either of two
    stored: record.Record | record.JointRecord,
    layer: inputs.Layer,
    device: str | torch.device,
) -> Request:
    if isinstance(stored, record.JointRecord):
        return inputs.joint_request_of_record(data, stored, layer, device)
    return inputs.request_of_record(data, stored, inputs.layer_of(layer), device)


def _of_all(values: np.ndarray, stored: record.Record | record.JointRecord) -> np.ndarray:
    """With places for vanished factors in the last axis, of which nothing is known."""
    nothing = False if values.dtype == np.bool_ else np.nan
    filled = np.full((*values.shape[:-1], stored.n_latent), nothing, values.dtype)
    filled[..., stored.left] = values
    return filled


def _check(
    data: Data,
    stored: record.Record | record.JointRecord,
    n_seeds: int,
    subsample: Subsample | None,
    rotation: Method | None,
) -> None:
    from sc_ldvae.assess import Method
    from sc_ldvae.fit import Subsample

    if subsample is not None and subsample not in get_args(Subsample):
        msg = f"subsample={subsample!r} is unknown. Choose 'halves', 'bootstrap' or None."
        raise ValueError(msg)
    if n_seeds < 2 or (subsample == "halves" and n_seeds % 2):  # noqa: PLR2004  a comparison has two sides
        msg = f"n_seeds is {n_seeds}, but refits are compared in pairs. Give an even number of at least 2."
        raise ValueError(msg)
    if rotation is not None and rotation not in get_args(Method):
        msg = f"rotation={rotation!r} is unknown. Choose one of {', '.join(map(repr, get_args(Method)))}, or None."
        raise ValueError(msg)
    if rotation is not None and stored.composition:
        msg = f"rotation={rotation!r}: with latent_distribution='ln' factors are shares of one. Leave it out."
        raise ValueError(msg)
    if stored.rotation is not None:
        msg = (
            f"key={stored.keys.uns!r} is a rotated fit, which can't be fitted again. Take the stability of the first, "
            "with rotation= for its rotated factors."
        )
        raise ValueError(msg)
    if data.n_obs < _FEWEST_CELLS:
        msg = f"data has {data.n_obs} cells, too few to fit samples of them. Stability needs at least {_FEWEST_CELLS}."
        raise ValueError(msg)


def _cells(data: Any, stored: record.Record | record.JointRecord) -> tuple[np.ndarray, np.ndarray]:  # noqa: ANN401
    """Batch of each cell, and whether the fit has not seen it."""
    held_out = record.held_out(data, stored)
    # Cells that were projected are all held out: then there are no others to train on.
    return stored.first.design.strata(inputs.obs_of(data)), held_out & ~held_out.all()
