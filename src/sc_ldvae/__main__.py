"""The command line: ``python -m sc_ldvae fit counts.h5ad -o fitted.h5ad``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from sc_ldvae._typing import Data

logger = logging.getLogger("sc_ldvae")

_NOT_FOR_TL = ("command", "counts", "backed", "output", "n_genes", "genome", "raw")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it worked, 2 if what it was given can't be used."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    asked = vars(_parser().parse_args(arguments))
    try:
        _fit(asked)
    except (ValueError, TypeError, ArithmeticError, OSError, ImportError, MemoryError) as error:
        sentence = str(error) or f"{type(error).__name__}."
        logger.error("sc_ldvae: %s", sentence)  # noqa: TRY400  users get the sentence, not the traceback
        return 2
    return 0


def _fit(asked: dict[str, Any]) -> None:
    import matplotlib as mpl

    from sc_ldvae import datasets, fit, get, io, pl, tl
    from sc_ldvae.counts import NotCountsError

    mpl.use("Agg")
    counts, output = asked["counts"], Path(asked["output"])
    if asked["n_genes"] < 1:
        msg = f"n_genes must be at least 1, but is {asked['n_genes']}."
        raise ValueError(msg)
    if asked["backed"]:
        data = _backed(counts, raw=asked["raw"])
    else:
        data = datasets.pbmc68k_counts() if counts is None else io.read_counts(counts, genome=asked["genome"])
        data = _of_raw(data) if asked["raw"] else data
    _check_output(data, output)
    output.parent.mkdir(parents=True, exist_ok=True)
    given = {name: value for name, value in asked.items() if value is not None or name == "loadings_prior"}
    options = {name: value for name, value in given.items() if name not in _NOT_FOR_TL}
    try:
        tl.ldvae(data, **options)
    except NotCountsError as error:
        if getattr(data, "raw", None) is None:
            raise
        msg = f"{error} Here: add --raw, if the counts are in raw."
        raise ValueError(msg) from error

    if fit.place()[0] > 0:
        # Of several processes, the first writes.
        return
    where = {"key": asked["key_added"] or "ldvae", "modality": asked["modality"]}
    picture, table = (output.with_name(f"{output.stem}_{rest}") for rest in ("loadings.png", "top_genes.csv"))
    if asked["backed"]:
        io.write_result(data, output)
    else:
        _write(data, output)
    pl.loadings(data, n_genes=asked["n_genes"], show=False, save=picture, **where)
    get.top_genes(data, asked["n_genes"], **where).to_csv(table)

    summary = get.factors(data, **where)
    left, total = (~summary["vanished"]).sum(), summary.attrs["total_explained_deviance"]
    logger.info("%d factors explain %.1f %% of the held-out deviance.", left, 100 * total)
    for path in (output, picture, table):
        logger.info("Wrote %s", path)


def _backed(counts: str | None, *, raw: bool) -> AnnData:
    """Counts that stay on disk."""
    import anndata as ad

    from sc_ldvae import io

    if counts is None or raw or Path(counts).suffix not in {".h5ad", ".zarr"}:
        msg = "--backed was given, but only X and layers of a .h5ad or .zarr file can stay on disk. Leave it out."
        raise ValueError(msg)
    if Path(counts).suffix == ".h5ad" and Path(counts).exists():
        # Where it is plain, it is read in place.
        return ad.read_h5ad(counts, backed="r")
    opened: AnnData = io.open(counts)
    return opened


def _of_raw(data: Data) -> AnnData:
    """What stands in raw, with its genes, and with the cells as they are."""
    raw = getattr(data, "raw", None)
    if raw is None:
        msg = f"--raw was given, but data is a {type(data).__name__} without raw. Leave it out."
        raise ValueError(msg)
    counts: AnnData = raw.to_adata()
    return counts


def _check_output(data: Data, output: Path) -> None:
    """Before the fit, not after it."""
    suffixes = (".h5mu",) if hasattr(data, "mod") else (".h5ad", ".zarr")
    if output.suffix not in suffixes:
        msg = f"--output {output} must end in {' or '.join(suffixes)}, for data is a {type(data).__name__}."
        raise ValueError(msg)


def _write(data: Data, output: Path) -> None:
    if output.suffix == ".zarr":
        data.write_zarr(output)
    else:
        data.write(output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sc_ldvae", description=sys.modules["sc_ldvae"].__doc__)
    fit = parser.add_subparsers(dest="command", required=True).add_parser(
        "fit",
        help="fit counts; write them with the factors, a picture of the loadings and a table of top genes",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    fit.add_argument("counts", nargs="?", help=".h5ad, .zarr, .h5mu or 10x .h5 file; the embedded PBMC if left out")
    fit.add_argument("--backed", action="store_true", help="leave the counts on disk, and write all but them")
    fit.add_argument("-o", "--output", default="fitted.h5ad", help="file to write; picture and table go beside it")
    fit.add_argument("--n-genes", type=int, default=10, help="genes per factor and direction in picture and table")
    _add_data_options(fit.add_argument_group("data"))
    _add_model_options(fit.add_argument_group("model"))
    _add_training_options(fit.add_argument_group("training"))
    return parser


def _add_data_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--modality", help="modality of an .h5mu file")
    group.add_argument("--layer", help="layer of the raw counts, if not X")
    group.add_argument("--raw", action="store_true", help="the counts are in raw, as in files of CELLxGENE")
    group.add_argument("--genome", help="genome to read from a 10x .h5 file of several")
    group.add_argument("--mask-var", help="boolean column of var: genes to fit (highly_variable, if there)")
    for name in ("batch", "labels", "size-factor"):
        group.add_argument(f"--{name}-key", help="column of obs")
    for name in ("categorical", "continuous"):
        group.add_argument(f"--{name}-covariate-keys", nargs="+", help="columns of obs")
    group.add_argument("--key-added", help="name of the results")
    group.add_argument("--train-size", type=_share_or_key, default=0.9, help="share of the cells, or column of obs")


def _add_model_options(group: argparse._ArgumentGroup) -> None:
    from sc_ldvae._options import Dispersion, LatentDistribution, ModelOptions
    from sc_ldvae.likelihoods import LIKELIHOODS

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


def _add_training_options(group: argparse._ArgumentGroup) -> None:
    from sc_ldvae._options import Schedule

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


if __name__ == "__main__":
    sys.exit(main())
