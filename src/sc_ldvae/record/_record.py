"""A fit as it stands in an AnnData: read, checked, brought to the current format."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_ldvae._options import ModelOptions, Schedule
from sc_ldvae._said import said
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.record._any_record import AnyRecord
from sc_ldvae.record._blocks import blocks_of, table_of
from sc_ldvae.record._covariance import unpacked
from sc_ldvae.record._decoder import Decoder
from sc_ldvae.record._design import Categorical, Design
from sc_ldvae.record._folded import Folded
from sc_ldvae.record._others import OTHERS
from sc_ldvae.record._sealed import SCHEMA_VERSION, sealed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sc_ldvae._options import Levels
    from sc_ldvae.likelihoods import Block
    from sc_ldvae.record._keys import Keys

# The name of the only modality of a fit that is no joint one.
ALONE = ""


@dataclass(frozen=True)
class Record(AnyRecord):
    """A fit as it was read from an AnnData.

    A rotated fit has two frames: that in which its factors are shown, to which the latent in obsm, the loadings and the
    explained deviance belong; and that of the model, in which the posterior is independent over factors.
    """

    keys: Keys
    content: Mapping[str, Any]

    @property
    def genes(self) -> NDArray[np.str_]:
        """Names of the fitted genes."""
        genes: NDArray[np.str_] = self.content["genes"]
        return genes

    @property
    def other_genes(self) -> NDArray[np.str_]:
        """Names of genes outside of the fit of which the loadings are known."""
        genes: NDArray[np.str_] = self.content[OTHERS]["genes"] if OTHERS in self.content else self.genes[:0]
        return genes

    @property
    def known_genes(self) -> NDArray[np.str_]:
        """Names of the fitted genes, and after them of the others."""
        return np.concatenate([self.genes, self.other_genes])

    def positions_in(self, names: pd.Index) -> NDArray[np.intp]:
        """Position of each fitted gene among other names; -1 where it is not.

        Raises
        ------
        ValueError
            If names repeat.
        """
        return self.known_positions_in(names)[: len(self.genes)]

    def known_positions_in(self, names: pd.Index) -> NDArray[np.intp]:
        """The same of each known gene."""
        if not names.is_unique:
            repeated = names[names.duplicated()][0]
            msg = f"var_names are not unique (for example {said(repeated)}). Call adata.var_names_make_unique() first."
            raise ValueError(msg)
        return names.get_indexer(pd.Index(self.known_genes))

    @property
    def views(self) -> dict[str, Record]:
        """Itself, as a fit of several modalities has one record of each."""
        return {ALONE: self}

    @property
    def prior_scale(self) -> NDArray[np.float64] | None:
        """Standard deviation of the prior of each factor's loadings, n_latent, where they had one."""
        return self.content.get("prior_scale")

    @property
    def fingerprint(self) -> str:
        """Tells this fit from every other one, also after it was written to a file."""
        loadings = np.ascontiguousarray(self.content["decoder"]["loadings"], np.float32)
        return blake2b(loadings.tobytes(), digest_size=8).hexdigest()

    def param(self, name: str) -> Any:  # noqa: ANN401  any argument of the fit
        """An argument of the fit as a plain string, number or boolean; None where it was not given."""
        return self.content["params"].get(name)

    @cached_property
    def shown_decoder(self) -> Decoder:
        """The stored decoder, in the frame in which the factors are shown."""
        likelihood = LIKELIHOODS[self.blocks[0].gene_likelihood]
        return Decoder.from_dict(self.content["decoder"], likelihood, self.content.get(OTHERS))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Stretches of genes with a likelihood each: one, for each modality of a joint fit has its own record."""
        return blocks_of(self.content)

    @property
    def has_library(self) -> bool:
        """Whether the cells have one; without, that of each is 1."""
        return any(LIKELIHOODS[block.gene_likelihood].has_library for block in self.blocks)

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
        return self.content.get("rotation")

    def turn_to(self, rotation: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Matrix that takes the shown latent to that of another `rotation` of the model's."""
        return rotation if self.rotation is None else np.linalg.solve(self.rotation, rotation)

    @property
    def loadings_covariance(self) -> NDArray[np.floating[Any]] | None:
        """Covariance of the estimates of each gene's shown loadings, n_genes x n_latent x n_latent, if it is known."""
        if "loadings_covariance" not in self.content:
            return None
        return unpacked(self.content["loadings_covariance"], self.n_latent)

    @property
    def covariate_effects_se(self) -> NDArray[np.float32] | None:
        """Standard errors of the covariate effects, n_genes x columns of the design, if they are known."""
        if not self.design.columns:
            return np.zeros((len(self.genes), 0), np.float32)
        return self.content.get("covariate_effects_se")

    @property
    def others_covariance(self) -> NDArray[np.floating[Any]]:
        """The same of the genes outside of the fit."""
        return unpacked(self.content[OTHERS]["loadings_covariance"], self.n_latent)

    @property
    def known_covariance(self) -> NDArray[np.floating[Any]] | None:
        """The same of the fitted genes, and after them of the others."""
        fitted = self.loadings_covariance
        if fitted is None or OTHERS not in self.content:
            return fitted
        return np.concatenate([fitted, self.others_covariance])

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
    def levels(self) -> Levels:
        """How many levels batch, labels and covariates have."""
        return self.design.levels(self.labels)

    @cached_property
    def options(self) -> ModelOptions:
        """What the fit was asked for of the model; the default where it does not say."""
        options = replace(ModelOptions(n_latent=self.n_latent), **self._given(ModelOptions, but=("n_latent",)))
        return replace(options, use_observed_lib_size="library" not in self.content["encoder"])

    @property
    def schedule(self) -> Schedule:
        """What it was asked for of the training."""
        # None is not stored, and was all that there was before format 6.
        return Schedule(**{"loadings_prior": None} | self._given(Schedule))

    @property
    def composition(self) -> bool:
        """Whether a cell's factors are shares of one ('ln')."""
        return self.options.composition

    @property
    def expert(self) -> bool:
        """Whether it was fitted together with other modalities: then its encoder is one of several."""
        return "modalities" in self.content

    @property
    def folded(self) -> Folded:
        """The model, in its own frame."""
        prior = self.content.get("library_prior")
        return Folded(self.decoder, self.content["encoder"], prior, self.options, self.levels, expert=self.expert)

    @property
    def size_factor_unit(self) -> float | None:
        """Library that a size factor of one stands for; None where there are no size factors, or nobody knows."""
        return self.content.get("size_factor_unit")

    @property
    def history(self) -> dict[str, NDArray[Any]]:
        """One value per round, by name."""
        return dict(self.content["history"])

    @property
    def end(self) -> dict[str, Any]:
        """How the training ended: ``stop_reason`` and ``best_epoch``."""
        return {name: self.content[name] for name in ("stop_reason", "best_epoch")}

    def covariate_settings(
        self, batch: str | float | None, covariates: Mapping[str, str | float] | None
    ) -> dict[str, str | float]:
        """Level or value of the covariates that are set, the batch among them.

        Raises
        ------
        ValueError
            If a batch is given and the fit has none, or `covariates` gives it another level.
        """
        settings = dict(covariates or {})
        if batch is None:
            return settings
        if self.design.batch is None:
            msg = f"batch={batch!r} was given, but the fit has no batch. Leave it out, or fit with batch_key."
            raise ValueError(msg)
        key = self.design.batch.key
        if str(settings.setdefault(key, batch)) != str(batch):
            msg = f"batch={batch!r}, but covariates gives {settings[key]!r} for {key!r}, which is the batch. Give one."
            raise ValueError(msg)
        return settings

    def groups(self, obs: pd.DataFrame) -> NDArray[np.int64]:
        """Group of each cell, for parts of the likelihood that have one value per group.

        Raises
        ------
        ValueError
            If dispersions differ between batches or labels, and a cell has one that the fit has not seen.
        """
        by = {"gene-batch": self.design.batch, "gene-label": self.labels}.get(self.blocks[0].dispersion)
        if by is None or not self.decoder.parts:
            return np.zeros(len(obs), dtype=np.int64)
        return by.codes(obs)

    def at_genes(self, names: pd.Index, values: NDArray[np.floating[Any]], fill: float) -> NDArray[np.float32]:
        """Rows for `names` out of `values` of the known genes (n_known x columns), `fill` for all others."""
        positions = self.known_positions_in(names)
        rows = np.full((len(names), values.shape[1]), fill, dtype=np.float32)
        rows[positions[positions >= 0]] = values[positions >= 0]
        return rows

    def varm_for(self, names: pd.Index) -> dict[str, NDArray[np.float32]]:
        """Entries of varm for genes of these names: loadings, and where they are known their standard errors.

        Of genes without loadings those are zero, for scanpy's plots want numbers, and their errors NaN.
        """
        loadings, covariance = self.shown_decoder.known.loadings, self.known_covariance
        entries = {self.keys.loadings: self.at_genes(names, loadings, fill=0)}
        if covariance is not None:
            entries[self.keys.loadings_se] = self.at_genes(
                names, np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)), fill=np.nan
            )
        return entries

    def content_for(self, keys: Keys) -> dict[str, Any]:
        """The content in the current format for other keys or another object, sharing nothing with this one."""
        now = {"schema_version": SCHEMA_VERSION, "keys": keys.to_dict(), "blocks": table_of(self.blocks)}
        return sealed(deepcopy(dict(self.content)) | now)

    def _categorical(self, argument: str, levels: str) -> Categorical | None:
        if levels not in self.content:
            return None
        return Categorical(str(self.param(argument)), tuple(self.content[levels].tolist()))

    def _given(self, cls: type, but: tuple[str, ...] = ()) -> dict[str, Any]:
        """The fields of a class of options that the fit was given."""
        values = {field.name: self.param(field.name) for field in fields(cls) if field.name not in but}
        return {name: value for name, value in values.items() if value is not None}
