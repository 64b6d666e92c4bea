"""What :func:`sc_ldvae.tl.ldvae` is asked: of one object, or of several modalities of a MuData."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sc_ldvae import record
from sc_ldvae._options import ModelOptions
from sc_ldvae._typing import UNSET
from sc_ldvae.inputs._counts import check_object, gene_mask
from sc_ldvae.inputs._joint import joint_request_of, modalities_of
from sc_ldvae.inputs._modality import pick_modality, told_whose
from sc_ldvae.inputs._mudata import check_free, check_mudata, is_view
from sc_ldvae.inputs._request import request_of

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sc_ldvae._typing import Data, Mask
    from sc_ldvae.fit import Request
    from sc_ldvae.inputs._annotations import Annotations
    from sc_ldvae.inputs._joint import Modalities, Modality
    from sc_ldvae.inputs._request import Options


class ByModality(NamedTuple):
    """Arguments that are of one modality: one value, or for a joint fit one by name."""

    layer: Any = None
    mask_var: Any = UNSET
    size_factor_key: Any = None
    modality_weights: Any = None

    @property
    def mappings(self) -> list[str]:
        """Names of those that are given by the names of modalities."""
        return [name for name, value in self._asdict().items() if isinstance(value, Mapping)]


@dataclass
class AskedOfOne:
    """A fit of an AnnData, or of one modality of a MuData alone."""

    data: Data
    modality: str | None
    given: ByModality
    options: Options

    def find(self) -> None:
        """Find what is to be fitted, and refuse what can't be.

        Raises
        ------
        ValueError, TypeError
            If something does not fit the data.
        """
        self.cells: AnnData = pick_modality(self.data, self.modality)
        check_object(self.cells)
        if self.given.mappings:
            name = self.given.mappings[0]
            msg = f"{name} names modalities, which only a joint fit has. Pass modalities=, or one value."
            raise TypeError(msg)
        self.mask: Mask = gene_mask(self.cells, self.given.mask_var)

    @property
    def n_genes(self) -> int:
        """Number of genes to fit."""
        return int(self.mask.sum())

    def check_free(self, keys: record.Keys) -> None:
        """Refuse names that are taken.

        Raises
        ------
        ValueError
            If a joint fit has them.
        """
        if self.modality is not None and is_view(self.data, keys.uns, self.modality):
            msg = (
                f"uns[{keys.uns!r}] of modality {self.modality!r} is part of a joint fit. Give this one another name "
                f"(key_added), or remove the joint fit: del mdata.uns[{keys.uns!r}]."
            )
            raise ValueError(msg)

    def request(self) -> Request:
        """What is asked for, checked."""
        self.annotations: Annotations
        columns = replace(self.options.columns, size_factor_key=self.given.size_factor_key)
        options = self.options._replace(columns=columns, layer=self.given.layer)
        with told_whose(self.data, self.cells):
            request, self.annotations = request_of(self.cells, self.mask, options)
        return request

    def write(self, result: Data, keys: record.Keys, new: record.JointFit, others: Mapping[str, Any]) -> None:
        """Put the fit into the object, or its copy."""
        params = {**_params(self.options), "modality": self.modality, **others}
        params |= {"layer": self.given.layer, "size_factor_key": self.given.size_factor_key}
        params["mask_var"] = None if self.given.mask_var is UNSET else self.given.mask_var
        asked = self.annotations.asked(self.mask, params)
        record.write_fit(pick_modality(result, self.modality), keys, new.alone, asked)


@dataclass
class AskedOfSeveral:
    """A joint fit of modalities of a MuData."""

    data: Data
    modality: str | None
    modalities: Modalities
    given: ByModality
    options: Options
    hide_modality: float

    def find(self) -> None:
        """Find what is to be fitted, and refuse what can't be.

        Raises
        ------
        ValueError, TypeError
            If something does not fit the data.
        """
        from sc_ldvae.fit import place

        if self.modality is not None:
            msg = f"modality={self.modality!r} and modalities were both given. Pass modality for one of them alone."
            raise ValueError(msg)
        self.cells: MuData = check_mudata(self.data, "modalities")
        n_processes = place()[1]
        if n_processes > 1:
            msg = f"modalities was given, but {n_processes} processes fit together. Fit them jointly in one process."
            raise ValueError(msg)
        if isinstance(self.modalities, Mapping) and self.options.model.gene_likelihood != ModelOptions.gene_likelihood:
            msg = "gene_likelihood and modalities were both given. Say in modalities which likelihood each has."
            raise ValueError(msg)
        self._modalities: list[Modality] = modalities_of(
            self.cells,
            self.modalities,
            self.options,
            layer=self.given.layer,
            mask_var=self.given.mask_var,
            size_factor_key=self.given.size_factor_key,
            weights=self.given.modality_weights,
        )

    @property
    def n_genes(self) -> int:
        """Number of genes to fit, of the modality that has most."""
        return max(int(one.mask.sum()) for one in self._modalities)

    def check_free(self, keys: record.Keys) -> None:
        """Refuse names that are taken.

        Raises
        ------
        ValueError
            If one of the modalities has a fit of its own under them.
        """
        check_free(self.cells, keys.uns, [one.name for one in self._modalities])

    def request(self) -> Request:
        """What is asked for, checked."""
        self.annotations: Annotations
        request, self.annotations = joint_request_of(self.cells, self._modalities, self.options, self.hide_modality)
        return request

    def write(self, result: Data, keys: record.Keys, new: record.JointFit, others: Mapping[str, Any]) -> None:
        """Put the fit into the object, or its copy."""
        asked = {}
        for one in self._modalities:
            own = {"modality": one.name, "layer": one.layer, "gene_likelihood": one.gene_likelihood}
            own |= {"size_factor_key": one.size_factor_key, "mask_var": None if one.mask_var is UNSET else one.mask_var}
            params = {**_params(self.options), **own, **others}
            unit = None if one.size_factor_key is None else one.size_factor_unit
            asked[one.name] = record.Asked(params, one.mask, self.annotations.design, self.annotations.labels, unit)
        weights = [one.weight for one in self._modalities]
        record.write_joint_fit(
            check_mudata(result, "data"), keys, new, asked, weights=weights, hide_modality=self.hide_modality
        )


def asked_of(
    data: Data,
    modality: str | None,
    modalities: Modalities | None,
    given: ByModality,
    options: Options,
    hide_modality: float,
) -> AskedOfOne | AskedOfSeveral:
    """A fit of one object, or if `modalities` are named of these together."""
    if modalities is None:
        return AskedOfOne(data, modality, given, options)
    return AskedOfSeveral(data, modality, modalities, given, options, hide_modality)


def _params(options: Options) -> dict[str, Any]:
    return {**vars(options.columns), **vars(options.model), **vars(options.schedule)}
