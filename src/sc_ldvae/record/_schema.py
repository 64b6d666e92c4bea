"""What a record consists of: names, kinds, shapes and ranges of its entries, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae._options import ModelOptions, Schedule
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.record._blocks import BLOCK_COLUMNS, blocks_of
from sc_ldvae.record._entry import Entry, Sizes, checked, double, single, text, whole
from sc_ldvae.record._keys import Keys
from sc_ldvae.record._others import OTHERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sc_ldvae.likelihoods import Block

_LEAST = float(np.finfo(np.float32).tiny)


# Entries that not every fit has; those of other parts follow in `_parts_of`.
_BLOCKS = {name: (text if kind is str else whole)("blocks") for name, kind in BLOCK_COLUMNS.items()}
_PRIOR = {"log_mean": single("priors"), "log_variance": single("priors", least=0)}
_COVARIATES = {
    "key": text("columns"),
    "level": text("columns"),
    "mean": double("columns"),
    "sd": double("columns", least=_LEAST),
}
_HISTORY = {
    "epoch": double("rounds", least=0, rather_whole=True),
    "elbo": double("rounds"),
    "elbo_held_out": double("rounds", optional=True),
    # Fits from elsewhere may have no more than an ELBO.
    "kl_weight": double("rounds", least=0, optional=True),
    "lr": double("rounds", least=0, optional=True),
}
# Names that formats before the current one lack.
_LATER_KEYS = ("loadings_se", "fit")
_KEYS = {field.name: text(optional=field.name in _LATER_KEYS) for field in fields(Keys)}
_WHOLE = {
    "genes": text("genes", distinct=True),
    "batches": text("batches", optional=True, distinct=True),
    "labels": text("labels", optional=True, distinct=True),
    "size_factor_unit": double(least=_LEAST, most=1 / _LEAST, optional=True),
    "explained_deviance": double("latent"),
    "prior_scale": double("latent", least=0, optional=True),
    "total_explained_deviance": double(),
    "elbo_held_out": double(optional=True),
    "n_epochs": whole(),
    "best_epoch": double(least=0, rather_whole=True),
    "stop_reason": text(),
    "rotation": double("latent", "latent", optional=True),
    "modalities": text("modalities", optional=True, distinct=True),
    "checksum": text(optional=True),
}
_ERRORS = {"loadings_covariance": single("genes", "triangle", optional=True)}
_ERRORS_OF_EFFECTS = {"covariate_effects_se": single("genes", "columns", least=0, optional=True)}
# Whose levels are the groups of cells, for parts of the likelihood with one value per group.
_LEVELS = {"gene-batch": "batches", "gene-label": "labels"}
_ONE, _HIDDEN = ("",), "hidden units of {}"
# Files may have made doubles of whole numbers and of truth values.
_OPTIONS: dict[str, type] = {
    field.name: type(field.default) for options in (ModelOptions, Schedule) for field in fields(options)
} | {"max_epochs": int}


def typed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of a record, as `plain` gave them, in the kinds and shapes that they had when they were written.

    Raises
    ------
    ValueError
        If some are gone, or are not what they have to be. The sentence is about one of them, and begins with its name.
    """
    sizes = Sizes()
    record = checked(content, "", _WHOLE, sizes)
    sizes["triangle"] = sizes["latent"] * (sizes["latent"] + 1) // 2
    sizes["priors"] = len(record.get("batches", _ONE))
    record |= checked(content, "", _ERRORS, sizes)
    keys = checked(_part(content, "keys"), "keys/", _KEYS, sizes)
    record |= {"keys": keys, "params": _params(_part(content, "params"))}
    for name, table in (("blocks", _BLOCKS), ("covariates", _COVARIATES), ("library_prior", _PRIOR)):
        if name in content:
            record[name] = checked(_part(content, name), f"{name}/", table, sizes)
    record["history"] = checked(_part(content, "history"), "history/", _HISTORY, sizes)
    blocks = blocks_of(record)
    if [0, *(block.stop for block in blocks)] != [*(block.start for block in blocks), sizes["genes"]]:
        msg = "'blocks' does not say of each gene which block it belongs to"
        raise ValueError(msg)
    _check_params(record, blocks)
    sizes.setdefault("columns", 0)
    record |= checked(content, "", _ERRORS_OF_EFFECTS, sizes)
    if "n_hidden" in record["params"]:
        sizes[_HIDDEN.format("z")] = sizes[_HIDDEN.format("library")] = record["params"]["n_hidden"]
    record |= {name: _nested(content, name, table, sizes) for name, table in _parts_of(content, record)}
    if "rotation" in record and np.linalg.matrix_rank(record["rotation"]) < sizes["latent"]:
        msg = "'rotation' can't be undone"
        raise ValueError(msg)
    return record


def _check_params(record: Mapping[str, Any], blocks: tuple[Block, ...]) -> None:
    """Arguments that stand elsewhere in the record, too."""
    params, batches = record["params"], record.get("batches", ())
    for name in ("gene_likelihood", "dispersion"):
        if any(params.get(name) != getattr(block, name) for block in blocks):
            msg = f"'params/{name}' is another than in 'blocks'"
            raise ValueError(msg)
    for key, levels in (("batch_key", "batches"), ("labels_key", "labels")):
        if levels in record and key not in params:
            msg = f"'params/{key}' is missing"
            raise ValueError(msg)
    # Without covariates, those of the decoder have another shape.
    if len(batches) > 1 and "covariates" in record and params["batch_key"] not in record["covariates"]["key"]:
        msg = "'params/batch_key' is none of 'covariates/key'"
        raise ValueError(msg)


def _parts_of(content: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tables of decoder and encoder, which hang on the likelihood, the covariates and the number of layers."""
    params = record["params"]
    effects = {"covariate_effects": single("genes", "columns", optional="covariates" not in record)}
    affine = {"loadings": single("genes", "latent"), "intercept": single("genes")} | effects
    decoder: dict[str, Any] = dict(affine)
    for block in blocks_of(record):
        n_groups = len(record.get(_LEVELS.get(block.dispersion, ""), _ONE))
        for part in LIKELIHOODS[block.gene_likelihood].parts:
            if part.depends_on == "gene":
                decoder[part.name] = single(1, "genes")
            else:
                by_group = part.depends_on == "dispersion" and block.dispersion != "gene-cell"
                decoder[part.name] = single(n_groups, "genes") if by_group else affine
    yield "decoder", decoder
    observed = bool(params.get("use_observed_lib_size", False)) or "size_factor_key" in params
    observed = observed or not any(LIKELIHOODS[block.gene_likelihood].has_library for block in blocks_of(record))
    encoders = {"z": _encoder(content, params, "z", "latent")}
    if not observed:
        encoders["library"] = _encoder(content, params, "library", 1)
        if "library_prior" not in record:
            msg = "'library_prior' is missing"
            raise ValueError(msg)
    yield "encoder", encoders
    if OTHERS in content:
        yield (
            OTHERS,
            {
                "genes": text("others", distinct=True),
                **{name: entry._replace(shape=("others", *entry.shape[1:])) for name, entry in affine.items()},
                "loadings_covariance": single("others", "triangle"),
            },
        )


def _encoder(content: Mapping[str, Any], params: Mapping[str, Any], name: str, width: int | str) -> dict[str, Entry]:
    stored = _part(_part(content, "encoder"), name, "encoder/")
    counted = sum(one.startswith("weight_") for one in stored)
    # The library's encoder has one hidden layer, whatever was asked for.
    n_layers = 1 if name == "library" else params.get("n_layers_encoder", counted)
    if n_layers < counted:
        msg = f"'encoder/{name}' has {counted} layers in place of {n_layers}"
        raise ValueError(msg)
    # One that is gone is enough to be told of, however many are said to be there.
    n_layers = min(n_layers, counted + 1)
    hidden = _HIDDEN.format(name)
    table: dict[str, Entry] = {}
    for i in range(n_layers):
        table |= {f"weight_{i}": single(hidden, hidden if i else "genes"), f"bias_{i}": single(hidden)}
    for head in ("mean", "log_variance"):
        table |= {f"{head}_weight": single(width, hidden), f"{head}_bias": single(width)}
    return table


def _part(content: Mapping[str, Any], name: str, path: str = "") -> Mapping[str, Any]:
    part = content.get(name)
    if not isinstance(part, Mapping):
        msg = f"{path + name!r} {'is missing' if part is None else 'is no dict'}"
        raise ValueError(msg)  # noqa: TRY004  no argument: an entry is damaged
    return part


def _nested(content: Mapping[str, Any], name: str, table: Mapping[str, Any], sizes: Sizes, path: str = "") -> Any:
    part, entries = _part(content, name, path), dict[str, Any]()
    for one, entry in table.items():
        if isinstance(entry, Entry):
            entries |= checked(part, f"{path}{name}/", {one: entry}, sizes)
        else:
            entries[one] = _nested(part, one, entry, sizes, f"{path}{name}/")
    return entries


def _params(params: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in params.items():
        if isinstance(value, Mapping) or value.ndim > 1 or (value.dtype.kind == "f" and not np.isfinite(value).all()):
            msg = f"'params/{name}' is no argument of a fit"
            raise ValueError(msg)
    return {name: _param(name, value) for name, value in params.items()}


def _param(name: str, value: NDArray[Any]) -> Any:
    if name.endswith("_keys"):
        return np.atleast_1d(value)
    kind = str if name.endswith("_key") else _OPTIONS.get(name)
    if value.size != 1:
        given: Any = value
        right = kind is None
    else:
        given = value.item()
        kind = kind or type(given)
        right = (kind is str) == isinstance(given, str) and kind(given) == given
    if not right:
        msg = f"'params/{name}' is no argument of a fit"
        raise ValueError(msg)
    return given if kind is None else kind(given)
