"""What can be said of factors: deviance, errors, information, stability, rotation, meaning. Knows arrays and counts."""

from __future__ import annotations

from sc_ldvae.assess._association import Column, association
from sc_ldvae.assess._decoded import Decoded
from sc_ldvae.assess._deviance import (
    Explained,
    cells_for_deviance,
    deviance_on_held_out,
    deviances_without,
    explained_deviance,
    null_proportions,
    together,
)
from sc_ldvae.assess._enrichment import Enrichment, enriched
from sc_ldvae.assess._errors import Errors, errors
from sc_ldvae.assess._information import gene_information
from sc_ldvae.assess._matching import directions, matched, softmaxes, spanned
from sc_ldvae.assess._modality_rotation import by_modality
from sc_ldvae.assess._regression import Known, Regression, regressed
from sc_ldvae.assess._rotation import ROTATIONS, Method, principal, promax, varimax
from sc_ldvae.assess._scan import Scan, recommended, scan_table
from sc_ldvae.assess._shares import Deviances
from sc_ldvae.assess._signs import signs
from sc_ldvae.assess._stability import Stability, stability

__all__ = [
    "ROTATIONS",
    "Column",
    "Decoded",
    "Deviances",
    "Enrichment",
    "Errors",
    "Explained",
    "Known",
    "Method",
    "Regression",
    "Scan",
    "Stability",
    "association",
    "by_modality",
    "cells_for_deviance",
    "deviance_on_held_out",
    "deviances_without",
    "directions",
    "enriched",
    "errors",
    "explained_deviance",
    "gene_information",
    "matched",
    "null_proportions",
    "principal",
    "promax",
    "recommended",
    "regressed",
    "scan_table",
    "signs",
    "softmaxes",
    "spanned",
    "stability",
    "together",
    "varimax",
]
