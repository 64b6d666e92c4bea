"""Fit the linearly decoded VAE to an AnnData, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sc_ldvae._arguments import door
from sc_ldvae._options import ModelOptions, Schedule
from sc_ldvae._typing import UNSET

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import torch

    from sc_ldvae import inputs
    from sc_ldvae._options import Dispersion, LatentDistribution, LoadingsPrior
    from sc_ldvae._typing import Data, Mask, Seed, Unset
    from sc_ldvae.likelihoods import GeneLikelihood


@door
def ldvae(
    data: Data,
    n_latent: int = ModelOptions.n_latent,
    *,
    modality: str | None = None,
    modalities: inputs.Modalities | None = None,
    layer: inputs.PerModality | str | None = None,
    mask_var: inputs.PerModality | Mask | Sequence[bool] | str | Unset | None = UNSET,
    batch_key: str | None = None,
    labels_key: str | None = None,
    categorical_covariate_keys: Sequence[str] | None = None,
    continuous_covariate_keys: Sequence[str] | None = None,
    size_factor_key: inputs.PerModality | str | None = None,
    gene_likelihood: GeneLikelihood = ModelOptions.gene_likelihood,
    dispersion: Dispersion = ModelOptions.dispersion,
    latent_distribution: LatentDistribution = ModelOptions.latent_distribution,
    use_observed_lib_size: bool = ModelOptions.use_observed_lib_size,
    log_variational: bool = ModelOptions.log_variational,
    use_batch_norm: bool = ModelOptions.use_batch_norm,
    bias: bool = ModelOptions.bias,
    n_hidden: int = ModelOptions.n_hidden,
    n_layers_encoder: int = ModelOptions.n_layers_encoder,
    dropout_rate: float = ModelOptions.dropout_rate,
    hide_modality: float = 0.3,
    modality_weights: inputs.PerModality | None = None,
    loadings_prior: LoadingsPrior | None = Schedule.loadings_prior,
    max_epochs: int | None = Schedule.max_epochs,
    batch_size: int = Schedule.batch_size,
    lr: float = Schedule.lr,
    train_size: float | str = 0.9,
    early_stopping: bool = Schedule.early_stopping,
    device: str | torch.device = "auto",
    rng: Seed | Unset = UNSET,
    random_state: Seed | Unset = UNSET,
    checkpoint: str | PathLike[str] | None = None,
    resume: bool = False,
    key_added: str | None = None,
    copy: bool = False,
    progress: bool = True,
) -> Data | None:
    """Fit the linearly decoded variational auto-encoder (LDVAE) to raw counts.

    A neural encoder finds a few factors per cell; a linear decoder gives each factor one loading per gene, its effect
    on the log expression proportion [Svensson20]_. Factors come ordered by the deviance that they explain, their
    loadings centred over genes and signed so that the heavier tail is positive.

    Parameters
    ----------
    data
        Annotated counts, cells x genes, in memory or on disk (backed, or opened with :func:`sc_ldvae.io.open`); or a
        MuData, of which one `modality` is fitted, or several `modalities` together.
    n_latent
        Number of factors; with an adaptive prior the most that there can be.
    modality
        Modality of a MuData to fit, in place.
    modalities
        Modalities of a MuData to fit together, each with its likelihood, such as ``{'rna': 'nb', 'prot':
        'nb_background', 'atac': 'bernoulli'}``; or their names, all with `gene_likelihood`. Cells are matched by name,
        and may lack modalities. Covariates are columns of the MuData's `obs` then, and the next arguments may be
        mappings by modality.
    layer
        Layer that holds the raw counts; `X` if None. For `modalities` one for all, or a mapping.
    mask_var
        Genes to fit: a boolean array, or a boolean column of `var`. By default the column ``'highly_variable'`` if
        there is one, else all genes; None means all genes. For `modalities` one for all, or a mapping.
    batch_key
        Column of `obs` with the batches, whose effects the decoder takes out.
    labels_key
        Column of `obs` with the labels that ``dispersion='gene-label'`` needs.
    categorical_covariate_keys
        Columns of `obs` with further categories whose effects the decoder takes out.
    continuous_covariate_keys
        Columns of `obs` with numbers whose linear effects the decoder takes out, per standard deviation.
    size_factor_key
        Column of `obs` with positive size factors that stand for the library, at any scale: they are multiplied so
        that their mean is the mean total count. The library is then not latent. Not for ``'nb_background'``. For
        `modalities` a mapping to columns of each modality's `obs`.
    gene_likelihood
        ``'nb'`` (negative binomial), ``'zinb'`` (zero-inflated), ``'poisson'``, ``'bernoulli'`` or ``'nb_background'``.
        ``'bernoulli'``, for peaks of accessible chromatin: whether a Poisson count is above zero. It takes any counts,
        and whatever is above zero for one; library and encoders see the counts as they are. ``'nb_background'``, for
        surface proteins (CITE-seq): negative binomial above a background. Proteins have no library: totals are biology,
        cells may have no counts, and loadings are effects on the log foreground itself, what is above the background of
        each protein.
    dispersion
        Whether the inverse dispersion theta is one number per gene (``'gene'``), per gene and batch
        (``'gene-batch'``), per gene and label (``'gene-label'``), or a log-linear function of the factors
        (``'gene-cell'``).
    latent_distribution
        ``'normal'``, or ``'ln'``: softmax of a normal, so that a cell's factors sum to one.
    use_observed_lib_size
        Take each cell's total count over the fitted genes for its library, instead of inferring it.
    log_variational
        Show the encoders ``log(1 + counts)`` instead of the counts.
    use_batch_norm
        End the decoder in BatchNorm. It is folded into the loadings after the fit.
    bias
        Give the decoder a bias of its own, needed only without BatchNorm.
    n_hidden, n_layers_encoder, dropout_rate
        Width, number and dropout of the encoder's hidden layers.
    hide_modality
        With `modalities`: share of the cells that show and explain one of their modalities alone, others in every step.
        Without, encoders learn to rely on each other, and say little where cells lack a modality.
    modality_weights
        With `modalities`: what the log-likelihood of each is multiplied by in training, by name; 1 where none is given.
        A modality with few features does not drown, so there is rarely a reason.
    loadings_prior
        ``'adaptive'``: the loadings of each factor, and the effects of each covariate, have a normal prior around zero
        whose scale is learnt from the cells. Factors whose evidence is negative after 45 % of the training vanish:
        their loadings and their latent are exactly zero. The others go on without the prior. Fits of less than 300
        steps are too short for that, and factors that are shares of one (``'ln'``) do not vanish. None: all factors
        stay, as in the reference.
    max_epochs
        Passes over the training cells. By default as many as make 350 steps, or 6 times the square root of the number
        of cells where that is more, and with a `loadings_prior` a tenth more; at least 1.
    batch_size
        Cells per step, of each process where `torchrun` has started several.
    lr
        Peak learning rate of the one-cycle schedule, for the decoder. The encoders learn at 0.15 times this rate, the
        dispersions at 1.5 times.
    train_size
        Share of the cells to train on, drawn at random; or a boolean column of `obs`, true for them. The others are
        held out: at most 5,000 of them, evenly spaced, decide which state is kept.
    early_stopping
        Stop when the held-out ELBO has not improved for 40 % of `max_epochs`.
    device
        ``'cpu'``, ``'cuda'``, any device of torch; ``'auto'`` is a CUDA GPU if there is one, else the CPU.
    rng
        Seed or generator of everything random, 0 by default; None for a different fit each time.
    random_state
        The same, by scanpy's older name.
    checkpoint
        File that keeps the state of the training (``.npz``): it is replaced, whole, after every evaluation and every
        minute.
    resume
        Go on from the state in `checkpoint`, if there is one, to the same bits as without a break. It has to be of the
        same counts, arguments (`rng` and so the held-out cells among them) and versions.
    key_added
        Name of the results in place of the defaults, see below.
    copy
        Return a changed copy and leave `data` as it is.
    progress
        Show a progress bar.

    Returns
    -------
    None, or the copy. With `key_added`, the entries are called as in brackets:

    ``obsm['X_ldvae']`` (``obsm[key_added]``)
        Latent: posterior mean of the factors, n_obs x n_latent.
    ``obsm['X_ldvae_variance']`` (``obsm[key_added + '_variance']``)
        Posterior variance of the factors, n_obs x n_latent; for ``'ln'`` before the softmax.
    ``varm['ldvae_loadings']`` (``varm[key_added]``)
        Loadings, n_vars x n_latent: effect of one unit of a factor on the log expression proportion (natural log),
        relative to the average fitted gene; zero for genes that were not fitted. For ``'nb_background'`` the effect on
        the log foreground, relative to nothing.
    ``varm['ldvae_loadings_se']`` (``varm[key_added + '_se']``)
        Their standard errors, n_vars x n_latent, from the observed Fisher information of each gene's counts, given the
        latent; NaN for genes that were not fitted (files of earlier versions have zero), which
        :func:`scanpy.pl.ranking` does not take: give it ``adata[:, adata.uns['ldvae']['genes']]``.
    ``obs['ldvae_library']`` (``obs[key_added + '_library']``)
        Library: total counts of a cell over the fitted genes that the model scales by. Not for ``'nb_background'``.
    ``obs['ldvae_held_out']`` (``obs[key_added + '_held_out']``)
        Whether the cell was held out.
    ``uns['ldvae']`` (``uns[key_added]``)
        Record: parameters, decoder, encoder, history, explained deviance, reason of the stop.

    A joint fit puts all of this into every one of its `modalities`, of its own cells and genes, so that each of them is
    a fitted AnnData; and into the MuData the latent and its variance of all cells, the loadings of all genes, and a
    record that holds those of the modalities. With ``'nb_background'`` there is no library.

    With Z the latent, C the covariates, l the library and the arrays of ``uns['ldvae']['decoder']``, the mean of the
    fitted genes' counts, zero inflation aside, is
    ``l * softmax(Z @ loadings.T + intercept + C @ covariate_effects.T)``, and for ``'nb_background'``
    ``exp(log_background) + exp(Z @ loadings.T + intercept + C @ covariate_effects.T)``.

    Raises
    ------
    ValueError
        If the counts are not counts, a cell has none, an argument does not fit the data, or a checkpoint is damaged or
        of another fit. `data` is not changed.
    TypeError
        If an argument has the wrong type.
    FloatingPointError
        If the fit diverges.
    OSError
        If a file changes while it is read, or if a checkpoint, a copy of slow counts or the results have no room on
        disk.

    See Also
    --------
    sc_ldvae.pl.loadings : Plot the top genes of each factor.
    sc_ldvae.get.loadings : Loadings as a frame.

    References
    ----------
    .. [Svensson20] Svensson, Gayoso, Yosef, Pachter (2020). Interpretable factor models of single-cell RNA-seq via
       variational autoencoders. Bioinformatics 36:3418.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> adata.obsm["X_ldvae"].shape, adata.varm["ldvae_loadings"].shape
    ((200, 3), (50, 3))

    Two modalities together:

    >>> from mudata import MuData
    >>> prot = sc_ldvae.datasets.simulate(n_obs=200, n_vars=20, n_latent=3, gene_likelihood="nb_background")
    >>> prot.var_names = [f"protein{i}" for i in range(20)]
    >>> mdata = MuData({"rna": adata, "prot": prot})
    >>> modalities = {"rna": "nb", "prot": "nb_background"}
    >>> sc_ldvae.tl.ldvae(mdata, 3, modalities=modalities, key_added="joint", max_epochs=2, progress=False)
    >>> mdata.obsm["joint"].shape, mdata["prot"].varm["joint"].shape
    ((200, 3), (20, 3))
    """
    from sc_ldvae import fit, inputs, record

    columns = inputs.Columns(
        batch_key=batch_key,
        labels_key=labels_key,
        categorical_covariate_keys=categorical_covariate_keys,
        continuous_covariate_keys=continuous_covariate_keys,
    )
    model = ModelOptions(
        n_latent=n_latent,
        gene_likelihood=gene_likelihood,
        dispersion=dispersion,
        latent_distribution=latent_distribution,
        use_observed_lib_size=use_observed_lib_size,
        log_variational=log_variational,
        use_batch_norm=use_batch_norm,
        bias=bias,
        n_hidden=n_hidden,
        n_layers_encoder=n_layers_encoder,
        dropout_rate=dropout_rate,
    )
    schedule = Schedule(
        max_epochs=max_epochs,
        batch_size=batch_size,
        lr=lr,
        early_stopping=early_stopping,
        loadings_prior=loadings_prior,
    )
    options = inputs.Options(columns, model, schedule, device=device)
    given = inputs.ByModality(layer, mask_var, size_factor_key, modality_weights)
    asked = inputs.asked_of(data, modality, modalities, given, options, hide_modality)
    inputs.check_key(key_added)
    inputs.check_whole(n_latent=n_latent)
    state_file = inputs.checkpoint_of(checkpoint, resume=resume)
    asked.find()
    inputs.check_n_latent(n_latent, asked.n_genes)
    asked.check_free(record.Keys.named(key_added))
    generator = inputs.generator_of(rng, random_state)
    with inputs.told_whose(asked.data, asked.cells):
        held_out = inputs.split(asked.cells, train_size, generator)
    request = asked.request()
    rank, n_ranks = fit.place()
    rounds = fit.rounds_of(schedule, int((~held_out).sum()), n_ranks)
    with fit.progress_bar(rounds, shown=progress and rank == 0) as watcher:
        new = fit.fit(request, held_out, generator, watcher, state_file, resume=resume)
    result = inputs.copied(data) if copy else data
    asked.write(result, record.Keys.named(key_added), new, {"train_size": train_size, "key_added": key_added})
    return result if copy else None
