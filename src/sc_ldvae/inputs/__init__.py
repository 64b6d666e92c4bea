"""What users passed: found, checked, typed. Knows AnnData and MuData; torch is loaded by what needs a model."""

from __future__ import annotations

from sc_ldvae.inputs._annotations import Annotations, Columns
from sc_ldvae.inputs._asked import ByModality, asked_of
from sc_ldvae.inputs._columns import columns_of
from sc_ldvae.inputs._counts import check_genes, check_object, counts_of, gene_mask, split
from sc_ldvae.inputs._files import checkpoint_of, new_file
from sc_ldvae.inputs._groups import grouped, tests_of
from sc_ldvae.inputs._joint import Modalities, PerModality, named
from sc_ldvae.inputs._layer import Layer, layer_of
from sc_ldvae.inputs._modality import (
    changed,
    copied,
    fitted_of,
    is_mudata,
    obs_for,
    obs_of,
    pick_modality,
    pulled,
    told_whose,
    with_others,
)
from sc_ldvae.inputs._mudata import check_free, check_mudata, is_view, modality_of
from sc_ldvae.inputs._names import (
    check_any,
    check_once,
    factor_positions,
    factors_shown,
    gene_positions,
    gene_positions_by_modality,
    known_places,
)
from sc_ldvae.inputs._net import targets_of
from sc_ldvae.inputs._numbers import (
    check_key,
    check_n_latent,
    check_whole,
    device_of,
    generator_of,
    torch_seed,
)
from sc_ldvae.inputs._others import counts_of_others, other_genes
from sc_ldvae.inputs._renaming import new_names_of
from sc_ldvae.inputs._request import Options, request_of, request_of_record
from sc_ldvae.inputs._rotation import of_modalities, rotation, rotation_of, softmaxes
from sc_ldvae.inputs._settings import Covariates, Factors, factor_values, gene_columns
from sc_ldvae.inputs._stored import (
    MissingGenes,
    Scorable,
    encoder_of,
    fitted_counts,
    for_encoder,
    for_likelihood,
)
from sc_ldvae.inputs._stored_joint import for_joint_encoder, joint_encoder_of, joint_request_of_record
from sc_ldvae.inputs._to_decode import to_decode
from sc_ldvae.inputs._to_score import to_score

__all__ = [
    "Annotations",
    "ByModality",
    "Columns",
    "Covariates",
    "Factors",
    "Layer",
    "MissingGenes",
    "Modalities",
    "Options",
    "PerModality",
    "Scorable",
    "asked_of",
    "changed",
    "check_any",
    "check_free",
    "check_genes",
    "check_key",
    "check_mudata",
    "check_n_latent",
    "check_object",
    "check_once",
    "check_whole",
    "checkpoint_of",
    "columns_of",
    "copied",
    "counts_of",
    "counts_of_others",
    "device_of",
    "encoder_of",
    "factor_positions",
    "factor_values",
    "factors_shown",
    "fitted_counts",
    "fitted_of",
    "for_encoder",
    "for_joint_encoder",
    "for_likelihood",
    "gene_columns",
    "gene_mask",
    "gene_positions",
    "gene_positions_by_modality",
    "generator_of",
    "grouped",
    "is_mudata",
    "is_view",
    "joint_encoder_of",
    "joint_request_of_record",
    "known_places",
    "layer_of",
    "modality_of",
    "named",
    "new_file",
    "new_names_of",
    "obs_for",
    "obs_of",
    "of_modalities",
    "other_genes",
    "pick_modality",
    "pulled",
    "request_of",
    "request_of_record",
    "rotation",
    "rotation_of",
    "softmaxes",
    "split",
    "targets_of",
    "tests_of",
    "to_decode",
    "to_score",
    "told_whose",
    "torch_seed",
    "with_others",
]
