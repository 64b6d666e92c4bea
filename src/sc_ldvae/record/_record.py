"""A fit as it stands in an AnnData: read, checked, brought to the current format."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_ldvae._modality import obs_of
from sc_ldvae.record._covariance import unpacked
from sc_ldvae.record._decoder import Decoder
from sc_ldvae.record._design import Categorical, Design
from sc_ldvae.record._keys import DEFAULT, Keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

SCHEMA_VERSION = 3
_PARTS = ("keys", "params", "genes", "decoder", "encoder", "history", "explained_deviance")
_MOMENTS = ("log_mean", "log_variance")
_ONE = ("",)
# Names of entries that every format has.
_KEYS = tuple(field.name for field in fields(Keys) if field.name != "loadings_se")
# Arguments of the fit that the model itself depends on.
_OPTIONS = ("gene_likelihood", "dispersion", "latent_distribution", "log_variational")


@dataclass(frozen=True)
class Record:
    """A fit as it was read from an AnnData.

    A rotated fit has two frames: that in which its factors are shown, to which the latent in obsm, the loadings and the
    explained deviance belong; and that of the model, in which the posterior is independent over factors.
    """

    keys: Keys
    content: Mapping[str, Any]

    @property
    def genes(self) -> NDArray[np.str_]:
        """Names of the fitted genes."""
        return strings(self.content["genes"])

    def positions_in(self, names: pd.Index) -> NDArray[np.intp]:
        """Position of each fitted gene among other names; -1 where it is not."""
        return names.get_indexer(pd.Index(self.genes))

    @property
    def n_latent(self) -> int:
        """Number of factors."""
        n_latent: int = self.content["decoder"]["loadings"].shape[1]
        return n_latent

    @property
    def factor_names(self) -> list[str]:
        """Names of the factors: the record's key and a number from 1."""
        return [f"{self.keys.uns}{k}" for k in range(1, self.n_latent + 1)]

    @property
    def fingerprint(self) -> str:
        """Tells this fit from every other one, also after it was written to a file."""
        loadings = np.ascontiguousarray(self.content["decoder"]["loadings"], np.float32)
        return blake2b(loadings.tobytes(), digest_size=8).hexdigest()

    def param(self, name: str) -> Any:  # noqa: ANN401  any argument of the fit
        """An argument of the fit as a plain string, number or boolean; None where it was not given."""
        value = self.content["params"].get(name)
        return value if value is None else np.asarray(value).item()

    @cached_property
    def shown_decoder(self) -> Decoder:
        """The stored decoder, in the frame in which the factors are shown."""
        return Decoder.from_dict(self.content["decoder"])

    @cached_property
    def decoder(self) -> Decoder:
        """The decoder in the frame of the model."""
        return self.shown_decoder if self.rotation is None else self.shown_decoder.rotated(self.rotation.T)

    @property
    def rotation(self) -> NDArray[np.float64] | None:
        """Matrix that takes the latent from the model's frame to the shown one, n_latent x n_latent, if they differ.

        The shown latent is ``Z @ rotation``, the shown loadings are ``W @ inv(rotation).T``, and the posterior
        covariance of the shown latent is ``rotation.T @ diag(variance) @ rotation``.
        """
        return np.asarray(self.content["rotation"], np.float64) if "rotation" in self.content else None

    def turn_to(self, rotation: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Matrix that takes the shown latent to that of another `rotation` of the model's."""
        return rotation if self.rotation is None else np.linalg.solve(self.rotation, rotation)

    @property
    def loadings_covariance(self) -> NDArray[np.floating[Any]] | None:
        """Covariance of the estimates of each gene's shown loadings, n_genes x n_latent x n_latent, if it is known."""
        if "loadings_covariance" not in self.content:
            return None
        return unpacked(np.asarray(self.content["loadings_covariance"]), self.n_latent)

    @cached_property
    def design(self) -> Design:
        """Covariates beside the latent."""
        batch = self._categorical("batch_key", "batches")
        return Design.from_table(self.content["covariates"], batch) if "covariates" in self.content else Design(batch)

    @property
    def labels(self) -> Categorical | None:
        """The labels, if the fit was given some."""
        return self._categorical("labels_key", "labels")

    @property
    def options(self) -> dict[str, Any]:
        """What the model's constructor needs beside the sizes of its arrays."""
        return {name: self.param(name) for name in _OPTIONS} | {
            "use_observed_lib_size": "library" not in self.content["encoder"],
            "n_batch": 0 if self.design.batch is None else len(self.design.batch.levels),
            "n_labels": 0 if self.labels is None else len(self.labels.levels),
            "n_cats_per_cov": [len(column.levels) for column in self.design.categorical],
            "n_continuous_cov": len(self.design.continuous),
        }

    def covariate_settings(
        self, batch: str | None, covariates: Mapping[str, str | float] | None
    ) -> dict[str, str | float]:
        """Level or value of the covariates that are set, the batch among them.

        Raises
        ------
        ValueError
            If a batch is given and the fit has none.
        """
        settings = dict(covariates or {})
        if batch is not None:
            if self.design.batch is None:
                msg = f"batch={batch!r} was given, but the fit has no batch. Leave it out, or fit with batch_key."
                raise ValueError(msg)
            settings[self.design.batch.key] = batch
        return settings

    def theta_groups(self, adata: AnnData) -> NDArray[np.int64]:
        """Row of the stored log theta for each cell.

        Raises
        ------
        ValueError
            If dispersions differ between batches or labels, and a cell has one that the fit has not seen.
        """
        by = {"gene-batch": self.design.batch, "gene-label": self.labels}.get(self.param("dispersion"))
        if by is None or self.decoder.log_theta is None:
            return np.zeros(adata.n_obs, dtype=np.int64)
        return by.codes(obs_of(adata))

    def at_genes(self, names: pd.Index, values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Rows for `names` out of `values` of the fitted genes (n_genes x columns), zero for genes not fitted."""
        positions = self.positions_in(names)
        rows = np.zeros((len(names), values.shape[1]), dtype=np.float32)
        rows[positions[positions >= 0]] = values[positions >= 0]
        return rows

    def content_for(self, keys: Keys) -> dict[str, Any]:
        """The content for other keys or another object, sharing nothing with this one."""
        return deepcopy(dict(self.content)) | {"schema_version": SCHEMA_VERSION, "keys": keys.to_dict()}

    def _categorical(self, argument: str, levels: str) -> Categorical | None:
        if levels not in self.content:
            return None
        return Categorical(str(self.param(argument)), tuple(map(str, self.content[levels])))


def strings(values: Iterable[object]) -> NDArray[np.str_]:
    """Strings as they were written: files give them back in various types."""
    return np.array([str(value) for value in values], dtype=str)


def fits_in(adata: AnnData) -> dict[str, Mapping[str, Any]]:
    """Content of every fit in uns, by its key, as it stands there."""
    return {name: value for name, value in adata.uns.items() if hasattr(value, "keys") and "schema_version" in value}


def read(adata: AnnData, key: str = DEFAULT) -> Record:
    """The fit stored in ``adata.uns[key]``.

    Raises
    ------
    ValueError
        If there is none, if a newer version of the package wrote it, or if parts of it are gone or don't fit together.
    """
    fits = fits_in(adata)
    if key not in fits:
        found = ", ".join(map(repr, fits)) or "none"
        msg = f"uns[{key!r}] holds no fit. Fit one with sc_ldvae.tl.ldvae, or name it with key=. Fits here: {found}."
        raise ValueError(msg)
    content = fits[key]
    version = int(content["schema_version"])
    if version > SCHEMA_VERSION:
        msg = (
            f"uns[{key!r}] was written in format {version}, this version reads up to {SCHEMA_VERSION}. Update sc-ldvae."
        )
        raise ValueError(msg)
    _check_whole(content, key)
    keys = Keys.from_dict(content["keys"])
    for attribute, entry in (("obsm", keys.latent), ("obsm", keys.variance), ("varm", keys.loadings)):
        if entry not in getattr(adata, attribute):
            msg = f"uns[{key!r}] holds a fit, but its {attribute}[{entry!r}] is gone. Put it back, or fit again."
            raise ValueError(msg)
    return Record(keys, _from_format_1(content, keys, adata) if version == 1 else content)


def _check_whole(content: Mapping[str, Any], key: str) -> None:
    def refuse(what: str) -> None:
        msg = f"uns[{key!r}] is damaged: {what}. Read the object from its file again, or fit again."
        raise ValueError(msg)

    def check(names: Iterable[str], part: Mapping[str, Any], whole: str = "") -> None:
        for name in names:
            if name not in part:
                refuse(f"{whole + name!r} is missing")

    check(_PARTS, content)
    check(_KEYS, content["keys"], "keys/")
    for whole, part, shapes in _shapes(content):
        check(shapes, part, whole)
        for name, shape in shapes.items():
            if np.shape(part[name]) != shape:
                refuse(f"{whole + name!r} has the shape {np.shape(part[name])} in place of {shape}")


def _shapes(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], dict[str, tuple[int, ...]]]]:
    """Parts of the model by their path, with the shapes that their arrays have if they belong together."""
    params, decoder, encoder = content["params"], content["decoder"], content["encoder"]
    likelihood, dispersion = (str(params.get(name)) for name in ("gene_likelihood", "dispersion"))
    n_genes, n_latent = len(content["genes"]), len(content["explained_deviance"])
    n_columns = len(content["covariates"]["key"]) if "covariates" in content else 0
    affine = {"loadings": (n_genes, n_latent), "intercept": (n_genes,)}
    if n_columns or "covariate_effects" in decoder:
        affine["covariate_effects"] = (n_genes, n_columns)
    yield "decoder/", decoder, affine
    triangle = n_latent * (n_latent + 1) // 2
    optional = {"rotation": (n_latent, n_latent), "loadings_covariance": (n_genes, triangle)}
    yield "", content, {name: shape for name, shape in optional.items() if name in content}
    levels = {"gene-batch": "batches", "gene-label": "labels"}.get(dispersion, "")
    if likelihood != "poisson" and dispersion == "gene-cell":
        yield "decoder/log_theta/", decoder.get("log_theta", {}), affine
    elif likelihood != "poisson":
        yield "decoder/", decoder, {"log_theta": (len(content.get(levels, _ONE)), n_genes)}
    if likelihood == "zinb":
        yield "decoder/zero_inflation/", decoder.get("zero_inflation", {}), affine
    encoders = {"z": n_latent}
    if not (params.get("use_observed_lib_size") or "size_factor_key" in params):
        encoders["library"] = 1
        n_batches = len(content.get("batches", _ONE))
        yield "library_prior/", content.get("library_prior", {}), dict.fromkeys(_MOMENTS, (n_batches,))
    for name, width in encoders.items():
        part = encoder.get(name, {})
        n_hidden = len(part.get("bias_0", ()))
        shapes: dict[str, tuple[int, ...]] = {"weight_0": (n_hidden, n_genes), "bias_0": (n_hidden,)}
        for head in ("mean", "log_variance"):
            shapes |= {f"{head}_weight": (width, n_hidden), f"{head}_bias": (width,)}
        yield f"encoder/{name}/", part, shapes


def _from_format_1(content: Mapping[str, Any], keys: Keys, adata: AnnData) -> Mapping[str, Any]:
    """Format 1 did not say what a size factor of one stands for; the fitted cells do."""
    key = content["params"].get("size_factor_key")
    if key is None or not {str(key), keys.library} <= set(adata.obs):
        return content
    ratios = adata.obs[keys.library].to_numpy(dtype=np.float64) / adata.obs[str(key)].to_numpy(dtype=np.float64)
    return {**content, "size_factor_unit": float(np.median(ratios))}
