"""What can be asked on the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

import sc_ldvae
from sc_ldvae._options import Dispersion, LatentDistribution, ModelOptions, Schedule
from sc_ldvae._typing import UNSET
from sc_ldvae.likelihoods import LIKELIHOODS


def parser() -> argparse.ArgumentParser:
    """The parser of all commands, which calls the program as it was called."""
    script = "sc-ldvae"
    called = script if Path(sys.argv[0]).stem == script else "python -m sc_ldvae"
    whole = argparse.ArgumentParser(prog=called, description=sc_ldvae.__doc__)
    whole.add_argument("--version", action="version", version=f"{script} {sc_ldvae.__version__}")
    commands = whole.add_subparsers(dest="command", required=True)
    fit = commands.add_parser(
        "fit",
        help="fit counts; write them with the factors, a picture of the loadings and a table of top genes",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    fit.add_argument("counts", nargs="?", help=".h5ad, .zarr, .h5mu or 10x .h5 file; the embedded PBMC if left out")
    fit.add_argument("--backed", action="store_true", help="leave the counts on disk, and write all but them")
    fit.add_argument("-o", "--output", default="fitted.h5ad", help="file to write; picture and table go beside it")
    fit.add_argument("--force", action="store_true", help="replace files that are there already")
    fit.add_argument("--n-genes", type=int, default=10, help="genes per factor and direction in picture and table")
    fit.add_argument("--gene-symbols", metavar="COLUMN", help="column of var: genes' names in picture and table")
    _add_data_options(fit.add_argument_group("data"))
    _add_model_options(fit.add_argument_group("model"))
    _add_training_options(fit.add_argument_group("training"))
    compiling = commands.add_parser("compile", help="compile all kernels now, which otherwise the first calls do")
    compiling.add_argument("--gene-likelihood", choices=LIKELIHOODS, help="those of one likelihood alone")
    return whole


def _add_data_options(group: argparse._ArgumentGroup) -> None:
    one_or_several = group.add_mutually_exclusive_group()
    one_or_several.add_argument("--modality", help="modality of an .h5mu file to fit alone")
    one_or_several.add_argument(
        "--modalities",
        nargs="+",
        metavar="NAME=LIKELIHOOD",
        help="modalities of an .h5mu file to fit together, such as rna=nb prot=nb_background, or names alone",
    )
    group.add_argument("--layer", help="layer of the raw counts, if not X")
    group.add_argument("--raw", action="store_true", help="the counts are in raw, as in files of CELLxGENE")
    group.add_argument("--genome", help="genome to read from a 10x .h5 file of several")
    genes = group.add_mutually_exclusive_group()
    genes.add_argument(
        "--mask-var",
        type=_name_or_none,
        default=UNSET,
        # The formatter is not to add what it takes for the default.
        help="boolean column of var: genes to fit; none: all (default: highly_variable, if there, else all)"
        "%(default).0s",
    )
    genes.add_argument(
        "--n-top-genes",
        type=int,
        help="fit so many genes, which scanpy finds most variable (flavor seurat_v3); of --modalities those of genes "
        "that have more",
    )
    for name in ("batch", "labels", "size-factor"):
        group.add_argument(f"--{name}-key", help="column of obs")
    for name in ("categorical", "continuous"):
        group.add_argument(f"--{name}-covariate-keys", nargs="+", help="columns of obs")
    group.add_argument("--key-added", help="name of the results")
    group.add_argument("--train-size", type=_share_or_key, default=0.9, help="share of the cells, or column of obs")


def _add_model_options(group: argparse._ArgumentGroup) -> None:
    model = ModelOptions()
    group.add_argument("--n-latent", type=int, default=model.n_latent, help="number of factors")
    group.add_argument("--gene-likelihood", choices=LIKELIHOODS, default=model.gene_likelihood, help="of the counts")
    group.add_argument(
        "--dispersion", choices=get_args(Dispersion), default=model.dispersion, help="what theta depends on"
    )
    group.add_argument(
        "--latent-distribution", choices=get_args(LatentDistribution), default=model.latent_distribution, help="of z"
    )
    group.add_argument("--use-observed-lib-size", action="store_true", help="library is the total count")
    for name in ("log-variational", "use-batch-norm", "bias"):
        default = getattr(model, name.replace("-", "_"))
        group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=default, help="as tl.ldvae")
    group.add_argument("--n-hidden", type=int, default=model.n_hidden, help="width of the encoder")
    group.add_argument(
        "--n-layers-encoder", type=int, default=model.n_layers_encoder, help="hidden layers of the encoder"
    )
    group.add_argument("--dropout-rate", type=float, default=model.dropout_rate, help="in the encoder")
    group.add_argument(
        "--hide-modality",
        type=float,
        default=0.3,
        help="with --modalities: share of the cells that show one of them alone, others in every step",
    )


def _add_training_options(group: argparse._ArgumentGroup) -> None:
    schedule = Schedule()
    group.add_argument("--max-epochs", type=int, help="by default from the number of cells")
    group.add_argument("--batch-size", type=int, default=schedule.batch_size, help="cells per step")
    group.add_argument("--lr", type=float, default=schedule.lr, help="peak learning rate")
    group.add_argument(
        "--loadings-prior",
        type=_name_or_none,
        default=schedule.loadings_prior,
        metavar="{adaptive,none}",
        help="adaptive: factors that the cells do not support vanish",
    )
    for name in ("early-stopping", "progress"):
        group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=True, help="as tl.ldvae")
    group.add_argument("--checkpoint", metavar="FILE", help="keep the state of the training in this .npz file")
    group.add_argument("--resume", action="store_true", help="go on from the state in the checkpoint, if there is one")
    group.add_argument("--device", default="auto", help="cpu, cuda, ... or auto")
    group.add_argument("--rng", type=int, default=0, metavar="SEED", help="seed of everything random")


def _name_or_none(text: str) -> str | None:
    return None if text == "none" else text


def _share_or_key(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
