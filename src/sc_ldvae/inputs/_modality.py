"""One AnnData out of what the user passed, and its annotation."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData, Raw
from scipy.sparse import issparse

from sc_ldvae import record
from sc_ldvae._lazy import array_of, frame_of
from sc_ldvae._quiet import quiet
from sc_ldvae._said import said
from sc_ldvae.counts import NotCountsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sc_ldvae._typing import Data

RAW_HOLDS_COUNTS = "adata.raw holds counts: pass adata.raw.to_adata()."


def pick_modality(data: Data, modality: str | None) -> AnnData:
    """The AnnData itself, or the named modality of a MuData.

    Raises
    ------
    TypeError
        If `data` is neither.
    ValueError
        If a MuData's modality is not named or unknown, or an AnnData's is named.
    """
    if isinstance(data, AnnData):
        if modality is not None:
            msg = f"modality={modality!r} was given, but data is an AnnData. Leave it out, or pass the MuData."
            raise ValueError(msg)
        return data
    modalities = _modalities(data)
    if modality is None:
        names = ", ".join(map(said, modalities))
        msg = f"data is a MuData, and this is asked of one of its modalities. Pass modality, one of {names}."
        raise ValueError(msg)
    if modality not in modalities:
        msg = f"modality={modality!r} is not in the MuData. Name one of {', '.join(map(said, modalities))}."
        raise ValueError(msg)
    adata = modalities[modality]
    if not isinstance(adata, AnnData):
        msg = f"modality={modality!r} is a {type(adata).__name__}, but must be an AnnData. Pass the MuData in it."
        raise TypeError(msg)
    return adata


def is_mudata(data: object) -> bool:
    """Whether it has modalities: by its attribute, not its class, for mudata need not be installed."""
    return isinstance(getattr(data, "mod", None), Mapping)


def _modalities(data: object) -> Mapping[str, object]:
    found = getattr(data, "mod", None)
    if not isinstance(found, Mapping):
        hint = " Pass adata.raw.to_adata()." if isinstance(data, Raw) else ""
        msg = f"data is a {type(data).__name__}, but must be an AnnData or a MuData.{hint}"
        raise TypeError(msg)
    return found


def obs_of(adata: Data) -> pd.DataFrame:
    """The annotation of the cells, in memory."""
    return frame_of(adata.obs)


@contextmanager
def told_whose(data: Data, whose: Data, *, and_all: bool = False) -> Iterator[None]:
    """Sentences about obs say whose they mean, where there are several: the MuData's, or that of a modality in it.

    So do those about counts in raw.

    Parameters
    ----------
    data
        What was passed.
    whose
        The AnnData in it whose obs is read; anything else that is made of a MuData has the MuData's.
    and_all
        What only the MuData has is read beside it.
    """
    modalities = _modalities(data) if is_mudata(data) else {}
    name = next((name for name, adata in modalities.items() if adata is whose), None)
    try:
        yield
    except record.ObsError as error:
        if not is_mudata(data):
            raise
        own = None if name is None else f"modality {said(name)}"
        told = (f"{own} and its MuData" if and_all else own) if own else "the MuData"
        msg = f"In {told}: {error}"
        # Whoever called this within such a context of his own has nothing to add.
        raise ValueError(msg) from error
    except NotCountsError as error:
        if name is not None:
            error.to_do = of_raw(error.to_do, name, "pass")
        raise
    except ValueError as error:
        sentence = str(error) if name is None else of_raw(str(error), name, "pass")
        if sentence == str(error):
            raise
        raise ValueError(sentence) from error


def of_raw(sentence: str, modality: str, to_do: str) -> str:
    """The sentence, in which raw is that of a modality."""
    own = f"mdata[{modality!r}].raw"
    return sentence.replace(RAW_HOLDS_COUNTS, f"{own} holds counts: {to_do} {own}.to_adata().")


def pulled(data: Data) -> set[str]:
    """Columns of the obs of a MuData that are those of its modalities, under their names."""
    modalities: Mapping[str, AnnData] = getattr(data, "mod", {})
    return {f"{name}:{column}" for name, adata in modalities.items() for column in adata.obs.columns}


def obs_for(data: Data, modality: str | None) -> pd.DataFrame:
    """The annotation of the cells: of the object itself, or of a modality, beside it what only the MuData has."""
    if modality is None:
        return obs_of(data)
    own = obs_of(pick_modality(data, modality))
    of_all = obs_of(data)
    more = [name for name in of_all if name not in own]
    if not more or not of_all.index.is_unique:
        return own
    return pd.concat([own, of_all[more].reindex(own.index)], axis=1)


def with_others(data: Data, obs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """`obs`, and beside it `keys` that are ``'<modality>:<name>'``: columns of that one's obs, or features in its X."""
    modalities: Mapping[str, AnnData] = getattr(data, "mod", {})
    more = {}
    for key in keys:
        for name, adata in modalities.items():
            own = key.removeprefix(f"{name}:")
            if key in obs or own == key or not adata.obs_names.is_unique:
                continue
            if own in adata.obs:
                more[key] = record.column_of(obs_of(adata), own, "keys").reindex(obs.index)
            elif own in adata.var_names and adata.X is not None:
                more[key] = _feature(adata, own).reindex(obs.index)
    return obs.assign(**more)


def _feature(adata: AnnData, name: str) -> pd.Series[float]:
    values = array_of(adata[:, [name]].X)
    return pd.Series((values.toarray() if issparse(values) else np.asarray(values))[:, 0], adata.obs_names)


def copied(data: Data) -> Data:
    """A copy, without what its package has to say of names in it that repeat."""
    with quiet():
        return data.copy()


def changed(data: Data, modality: str | None, write: Callable[[Any], None], *, copy: bool) -> Data | None:
    """Let `write` change the object, or a copy, which comes back."""
    result = copied(data) if copy else data
    write(result if modality is None and is_mudata(result) else pick_modality(result, modality))
    return result if copy else None


def fitted_of(data: Data, key: str, modality: str | None) -> tuple[Any, record.Record | record.JointRecord]:
    """An AnnData and its fit; or a MuData and a fit of several of its modalities, where none is named.

    Raises
    ------
    TypeError, ValueError
        If there is no such object or fit.
    """
    if modality is None and is_mudata(data) and record.joint_fits_in(data):
        return data, record.read_joint(data, key)
    adata = pick_modality(data, modality)
    return adata, record.read(adata, key)
