"""Whether a record is whole: which entries it needs, and the shapes that they have if they belong together."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.record._blocks import BLOCK_COLUMNS, blocks_of
from sc_ldvae.record._keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sc_ldvae.likelihoods import Block

_PARTS = ("keys", "params", "genes", "decoder", "encoder", "history", "explained_deviance")
_MOMENTS = ("log_mean", "log_variance")
_ONE = ("",)
# Whose levels are the groups of cells, for parts of the likelihood with one value per group.
_LEVELS = {"gene-batch": "batches", "gene-label": "labels"}
# Names of entries that every format has.
_KEYS = tuple(field.name for field in fields(Keys) if field.name != "loadings_se")


def check_whole(content: Mapping[str, Any], key: str) -> None:
    """Refuse a record of which parts are gone or do not fit together.

    Raises
    ------
    ValueError
        The sentence names the entry.
    """

    def refuse(what: str) -> None:
        msg = f"uns[{key!r}] is damaged: {what}. Read the object from its file again, or fit again."
        raise ValueError(msg)

    def check(names: Iterable[str], part: Mapping[str, Any], whole: str = "") -> None:
        for name in names:
            if name not in part:
                refuse(f"{whole + name!r} is missing")

    check(_PARTS, content)
    check(_KEYS, content["keys"], "keys/")
    blocks = content.get("blocks", dict.fromkeys(BLOCK_COLUMNS, ()))
    check(BLOCK_COLUMNS, blocks, "blocks/")
    if not _even(blocks):
        refuse("the columns of 'blocks' differ in length")
    for whole, part, shapes in _shapes(content):
        check(shapes, part, whole)
        for name, shape in shapes.items():
            if np.shape(part[name]) != shape:
                refuse(f"{whole + name!r} has the shape {np.shape(part[name])} in place of {shape}")
    if not _cover(blocks_of(content), len(content["genes"])):
        refuse("'blocks' does not say of each gene which block it belongs to")


def _even(blocks: Mapping[str, Any]) -> bool:
    """Whether all columns are as long as each other."""
    return len({np.shape(blocks[name]) for name in BLOCK_COLUMNS}) == 1


def _cover(blocks: Sequence[Block], n_genes: int) -> bool:
    """Whether stretches follow each other from the first gene to the last."""
    return [0, *(block.stop for block in blocks)] == [*(block.start for block in blocks), n_genes]


def _shapes(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], dict[str, tuple[int, ...]]]]:
    """Parts of the model by their path, with the shapes that their arrays have if they belong together."""
    params, decoder, encoder = content["params"], content["decoder"], content["encoder"]
    n_genes, n_latent = len(content["genes"]), len(content["explained_deviance"])
    n_columns = len(content["covariates"]["key"]) if "covariates" in content else 0
    affine = {"loadings": (n_genes, n_latent), "intercept": (n_genes,)}
    if n_columns or "covariate_effects" in decoder:
        affine["covariate_effects"] = (n_genes, n_columns)
    yield "decoder/", decoder, affine
    triangle = n_latent * (n_latent + 1) // 2
    optional = {"rotation": (n_latent, n_latent), "loadings_covariance": (n_genes, triangle)}
    yield "", content, {name: shape for name, shape in optional.items() if name in content}
    for block in blocks_of(content):
        n_groups = len(content.get(_LEVELS.get(block.dispersion, ""), _ONE))
        for part in LIKELIHOODS[block.gene_likelihood].parts:
            if part.by_dispersion and block.dispersion != "gene-cell":
                yield "decoder/", decoder, {part.name: (n_groups, n_genes)}
            else:
                yield f"decoder/{part.name}/", decoder.get(part.name, {}), affine
    encoders = {"z": n_latent}
    if not (params.get("use_observed_lib_size") or "size_factor_key" in params):
        encoders["library"] = 1
        n_batches = len(content.get("batches", _ONE))
        yield "library_prior/", content.get("library_prior", {}), dict.fromkeys(_MOMENTS, (n_batches,))
    for name, width in encoders.items():
        yield f"encoder/{name}/", encoder.get(name, {}), _encoder_shapes(encoder.get(name, {}), width, n_genes)


def _encoder_shapes(encoder: Mapping[str, Any], width: int, n_genes: int) -> dict[str, tuple[int, ...]]:
    n_hidden = len(encoder.get("bias_0", ()))
    shapes: dict[str, tuple[int, ...]] = {"weight_0": (n_hidden, n_genes), "bias_0": (n_hidden,)}
    for head in ("mean", "log_variance"):
        shapes |= {f"{head}_weight": (width, n_hidden), f"{head}_bias": (width,)}
    return shapes
