"""The linearly decoded variational auto-encoder (Svensson et al. 2020, Bioinformatics 36:3418)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own name for it

from sc_ldvae._options import ModelOptions
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.nn._checks import check_choices, check_sizes, needed
from sc_ldvae.nn._decoder import Grouped, LinearDecoder
from sc_ldvae.nn._encoder import VARIANCE_FLOOR, Encoder, Normal
from sc_ldvae.nn._log_probs import LOG_PROBS
from sc_ldvae.nn._state import FACTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sc_ldvae._options import Dispersion, LatentDistribution
    from sc_ldvae.likelihoods import GeneLikelihood


class Posterior(NamedTuple):
    """What the encoders say of each cell."""

    z: Normal
    """Posterior of the latent, before the softmax of 'ln'."""
    log_library: Normal | None
    """Posterior of the log library; None where the library is observed."""


class CountParameters(NamedTuple):
    """Parameters of the distribution of the counts."""

    log_mu: Tensor
    """Log mean, n_cells x n_input; where there is a background, log of what is above it."""
    parts: Mapping[str, Tensor]
    """What the likelihood has beside the mean, each broadcastable to n_cells x n_input."""


class Elbo(NamedTuple):
    """Terms of the evidence lower bound, one value per cell, in nats."""

    log_likelihood: Tensor
    kl_z: Tensor
    kl_library: Tensor

    def per_cell(self, kl_weight: float | Tensor = 1.0) -> Tensor:
        """Evidence lower bound of each cell; `kl_weight` scales the latent's divergence, never the library's."""
        return self.log_likelihood - kl_weight * self.kl_z - self.kl_library

    def to(self, device: torch.device | str) -> Elbo:
        """The same on another device."""
        return Elbo(*(term.to(device) for term in self))


class _Draw(NamedTuple):
    """One draw from the posterior, and the log-likelihood of the counts given it."""

    posterior: Posterior
    z: Tensor
    """Before the softmax of 'ln'."""
    log_library: Tensor
    log_likelihood: Tensor


class LDVAE(nn.Module):
    """Linearly decoded variational auto-encoder of counts.

    A neural encoder, a linear decoder: each latent dimension has one loading per gene. For cell n and gene g::

        z_n   ~ Normal(0, I)                      or softmax of it ('ln')
        l_n   ~ LogNormal(mean, var of its batch) or the observed library
        rho_n = softmax(BatchNorm(W [z_n ; covariates_n]))
        x_ng  ~ NB(mean = l_n rho_ng, inverse dispersion = theta), ZINB or Poisson,
                 or 1 where such a Poisson count is above zero

    Surface proteins ('nb_background') have neither library nor softmax: their mean is
    ``exp(background_g) + exp(BatchNorm(W [z_n ; covariates_n]))``.

    Parameters
    ----------
    n_input
        Number of genes.
    n_batch
        Number of batches; 0 or 1 means that there is no batch effect.
    n_labels
        Number of labels, needed by ``dispersion='gene-label'``.
    n_hidden
        Width of the hidden layers of the encoders.
    n_latent
        Number of factors.
    n_layers_encoder
        Number of hidden layers of the latent's encoder.
    dropout_rate
        Share of hidden units dropped while training.
    dispersion
        Whether the inverse dispersion is one number per gene (``'gene'``), per gene and batch (``'gene-batch'``), per
        gene and label (``'gene-label'``), or its log a linear map of the latent (``'gene-cell'``). Only ``'nb'`` and
        ``'zinb'`` have one.
    log_variational
        Whether the encoders see ``log(1 + counts)``.
    gene_likelihood
        ``'nb'`` (negative binomial), ``'zinb'`` (zero-inflated), ``'poisson'``; ``'bernoulli'``: whether there are any,
        if they are Poisson; for peaks of accessible chromatin; ``'nb_background'``: above a background; for surface
        proteins.
    use_batch_norm
        Whether the decoder ends in BatchNorm.
    bias
        Whether the decoder has a bias of its own.
    latent_distribution
        ``'normal'``, or ``'ln'``: the logistic normal, softmax of a normal.
    use_observed_lib_size
        Whether the library is the cell's total count (or its size factor) and not a latent variable. It is true where
        the likelihood has no library.
    n_cats_per_cov
        Number of levels of each further categorical covariate.
    n_continuous_cov
        Number of continuous covariates.
    generator
        Source of the first weights; the global one of torch if None.

    Raises
    ------
    ValueError
        If a number is out of range, a name unknown, or a dispersion lacks its batches or labels.

    References
    ----------
    Svensson, Gayoso, Yosef, Pachter (2020). Interpretable factor models of single-cell RNA-seq via variational
    autoencoders. Bioinformatics 36:3418.

    Examples
    --------
    >>> import torch
    >>> from sc_ldvae.nn import LDVAE
    >>> counts = torch.poisson(torch.full((8, 50), 2.0))
    >>> model = LDVAE(n_input=50, n_latent=3, use_observed_lib_size=True)
    >>> model(counts).per_cell().shape
    torch.Size([8])
    >>> model.get_loadings().shape
    (50, 3)
    """

    library_log_means: Tensor
    library_log_vars: Tensor
    # As those of several modalities.
    fuses, weights = False, (1.0,)

    def __init__(
        self,
        n_input: int,
        n_batch: int = 0,
        n_labels: int = 0,
        n_hidden: int = ModelOptions.n_hidden,
        n_latent: int = ModelOptions.n_latent,
        n_layers_encoder: int = ModelOptions.n_layers_encoder,
        dropout_rate: float = ModelOptions.dropout_rate,
        dispersion: Dispersion = ModelOptions.dispersion,
        log_variational: bool = ModelOptions.log_variational,  # noqa: FBT001  the reference's signature
        gene_likelihood: GeneLikelihood = ModelOptions.gene_likelihood,
        use_batch_norm: bool = ModelOptions.use_batch_norm,  # noqa: FBT001  the reference's signature
        bias: bool = ModelOptions.bias,  # noqa: FBT001  the reference's signature
        latent_distribution: LatentDistribution = ModelOptions.latent_distribution,
        use_observed_lib_size: bool = ModelOptions.use_observed_lib_size,  # noqa: FBT001  the reference's signature
        *,
        n_cats_per_cov: Sequence[int] = (),
        n_continuous_cov: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_sizes(n_input=n_input, n_latent=n_latent, n_hidden=n_hidden, n_layers_encoder=n_layers_encoder)
        check_choices(dispersion, gene_likelihood, latent_distribution)
        if not 0 <= dropout_rate < 1:
            msg = f"dropout_rate must be at least 0 and below 1, but is {dropout_rate}."
            raise ValueError(msg)
        self.n_input, self.n_latent, self.n_batch, self.n_labels = n_input, n_latent, n_batch, n_labels
        self.n_cats_per_cov, self.n_continuous_cov = tuple(n_cats_per_cov), n_continuous_cov
        self.latent_distribution, self.log_variational = latent_distribution, log_variational
        self.gene_likelihood, self.dispersion = gene_likelihood, dispersion
        self.use_observed_lib_size = use_observed_lib_size or not LIKELIHOODS[gene_likelihood].has_library

        encoder = partial(Encoder, n_input, n_hidden=n_hidden, dropout_rate=dropout_rate)
        self.z_encoder = encoder(n_latent, n_layers=n_layers_encoder)
        self.l_encoder = None if self.use_observed_lib_size else encoder(1, n_layers=1)
        n_covariates = sum(n for n in (n_batch, *n_cats_per_cov) if n > 1) + n_continuous_cov
        decoder = partial(LinearDecoder, n_latent + n_covariates)
        self.decoder = decoder(n_input, bias=bias, use_batch_norm=use_batch_norm)
        self.parts = self._new_parts(partial(decoder, bias=bias, use_batch_norm=use_batch_norm), decoder)
        # NaN until set: a prior that nobody chose would bias the library without a word.
        self.register_buffer("library_log_means", torch.full((max(n_batch, 1),), torch.nan, **FACTORY))
        self.register_buffer("library_log_vars", torch.full((max(n_batch, 1),), torch.nan, **FACTORY))
        self.reset_parameters(generator)

    def forward(
        self,
        x: Tensor,
        batch_index: Tensor | None = None,
        labels: Tensor | None = None,
        cat_covs: Tensor | None = None,
        cont_covs: Tensor | None = None,
        size_factor: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Elbo:
        """Terms of the ELBO of each cell, from one draw of its posterior.

        Parameters
        ----------
        x
            Counts, n_cells x n_input.
        batch_index, labels
            Batch and label of each cell, integers, n_cells.
        cat_covs
            Levels of the categorical covariates, integers, n_cells x number of covariates.
        cont_covs
            Continuous covariates, n_cells x number of covariates.
        size_factor
            Library of each cell, n_cells, in place of its total count.
        generator
            Source of the draws and of dropout; the global one of torch if None.

        Returns
        -------
        Log-likelihood and divergences, each n_cells, in nats.
        """
        draw = self._draw(x, batch_index, labels, cat_covs, cont_covs, size_factor, generator)
        kl_z, log_library = draw.posterior.z.kl(0.0, 1.0), draw.posterior.log_library
        if log_library is None:
            return Elbo(draw.log_likelihood, kl_z, torch.zeros_like(kl_z))
        return Elbo(draw.log_likelihood, kl_z, log_library.kl(*self.library_prior(batch_index)))

    def log_weights(
        self,
        x: Tensor,
        batch_index: Tensor | None = None,
        labels: Tensor | None = None,
        cat_covs: Tensor | None = None,
        cont_covs: Tensor | None = None,
        size_factor: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log importance weight of one draw of each cell's posterior: ``log p(x, z, l) - log q(z, l | x)``, n_cells.

        The mean of its exponential over many draws is the marginal likelihood of the cell (Burda et al. 2016).
        Arguments as those of `forward`.
        """
        draw = self._draw(x, batch_index, labels, cat_covs, cont_covs, size_factor, generator)
        q = draw.posterior.z
        weights = draw.log_likelihood + q.log_density_ratio(draw.z, Normal(q.mean.new_zeros(()), q.mean.new_ones(())))
        if draw.posterior.log_library is None:
            return weights
        prior = Normal(*self.library_prior(batch_index))
        return weights + draw.posterior.log_library.log_density_ratio(draw.log_library, prior)

    def _draw(
        self,
        x: Tensor,
        batch_index: Tensor | None,
        labels: Tensor | None,
        cat_covs: Tensor | None,
        cont_covs: Tensor | None,
        size_factor: Tensor | None,
        generator: torch.Generator | None,
    ) -> _Draw:
        posterior = self.encode(x, generator)
        log_library = self.draw_library(posterior, x, size_factor, generator)
        z = posterior.z.rsample(generator)
        log_likelihood = self.log_likelihood(x, z, log_library, batch_index, labels, cat_covs, cont_covs)
        return _Draw(posterior, z, log_library, log_likelihood)

    def draw_library(
        self, posterior: Posterior, x: Tensor, size_factor: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        """Log library of each cell, n_cells x 1: observed, or one draw of its posterior."""
        if posterior.log_library is None:
            return (x.sum(1) if size_factor is None else size_factor).log()[:, None]
        return posterior.log_library.rsample(generator)

    def log_likelihood(
        self,
        x: Tensor,
        z: Tensor,
        log_library: Tensor,
        batch_index: Tensor | None = None,
        labels: Tensor | None = None,
        cat_covs: Tensor | None = None,
        cont_covs: Tensor | None = None,
    ) -> Tensor:
        """Of each cell's counts `x`, n_cells, given its normal variables (n_cells x n_latent) and log library."""
        covariates = self.covariates(batch_index, cat_covs, cont_covs)
        group = self.theta_group(batch_index, labels)
        return self.log_prob(x, self.decode(self.transform(z), covariates, log_library, group)).sum(1)

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Posterior:
        """Posterior of latent and log library of counts `x`, n_cells x n_input."""
        seen = x.log1p() if self.log_variational else x
        z = self.z_encoder(seen, generator)
        return Posterior(z, None if self.l_encoder is None else self.l_encoder(seen, generator))

    def posterior(self, x: Tensor, present: Tensor | None = None) -> tuple[Normal, list[Normal | None]]:  # noqa: ARG002
        """As that of several modalities."""
        posterior = self.encode(x)
        return posterior.z, [posterior.log_library]

    def transform(self, z: Tensor) -> Tensor:
        """Normal variables to the latent: themselves, or their softmax for 'ln'."""
        return z.softmax(1) if self.composition else z

    @property
    def views(self) -> tuple[LDVAE, ...]:
        """Models of the modalities, as :class:`JointLDVAE` has several: itself."""
        return (self,)

    @property
    def widths(self) -> list[int]:
        """Number of genes of each modality."""
        return [self.n_input]

    @property
    def posterior_module(self) -> nn.Module:
        """What gives the posterior of the normal variables."""
        return self.z_encoder

    @property
    def has_library(self) -> bool:
        """Whether the cells have one: observed, or latent."""
        return LIKELIHOODS[self.gene_likelihood].has_library

    @property
    def composition(self) -> bool:
        """Whether a cell's factors are shares of one ('ln')."""
        return self.latent_distribution == "ln"

    def covariates(
        self, batch_index: Tensor | None, cat_covs: Tensor | None = None, cont_covs: Tensor | None = None
    ) -> Tensor | None:
        """Columns that stand beside the latent: one per level of batch and categories, one per continuous covariate."""
        indices = [batch_index, *([] if cat_covs is None else cat_covs.unbind(1))]
        levels = (self.n_batch, *self.n_cats_per_cov)
        if len(indices) < len(levels) or (cont_covs is None and self.n_continuous_cov):
            msg = "The model was built with covariates: pass cat_covs and cont_covs, one column for each."
            raise ValueError(msg)
        columns = [
            F.one_hot(needed(index, "batch_index"), n).to(self.decoder.weight.dtype)
            for index, n in zip(indices, levels, strict=True)
            if n > 1
        ]
        if cont_covs is not None:
            columns.append(cont_covs)
        return torch.cat(columns, 1) if columns else None

    def decode(
        self, z: Tensor, covariates: Tensor | None, log_library: Tensor, theta_group: Tensor | None = None
    ) -> CountParameters:
        """Parameters of the counts' distribution, given the log library (n_cells x 1) and the rows of theta, too."""
        u = z if covariates is None else torch.cat([z, covariates], 1)
        eta = self.decoder(u)
        log_mu = log_library + eta.log_softmax(1) if self.has_library else eta
        parts = {name: part(theta_group if isinstance(part, Grouped) else u) for name, part in self.named_parts()}
        return CountParameters(log_mu, parts)

    def theta_group(self, batch_index: Tensor | None, labels: Tensor | None) -> Tensor | None:
        """Group of each cell in parts that have one value per group; None where there is one group."""
        grouped = [part for _, part in self.named_parts() if isinstance(part, Grouped)]
        if not grouped or len(grouped[0].table) == 1:
            return None
        if self.dispersion == "gene-label":
            return needed(labels, "labels")
        return needed(batch_index, "batch_index")

    def log_prob(self, x: Tensor, parameters: CountParameters) -> Tensor:
        """Elementwise log probability of counts `x`, n_cells x n_input, in nats."""
        return LOG_PROBS[self.gene_likelihood](x, parameters.log_mu, *parameters.parts.values())

    def named_parts(self) -> Iterator[tuple[str, Grouped | LinearDecoder]]:
        """What decodes each part of the likelihood, by name, in the order of the likelihood's parts."""
        parts: Any = self.parts
        yield from parts.items()

    @torch.no_grad()
    def typical(self) -> dict[str, NDArray[np.float32]]:
        """Parts of the likelihood in an average cell, n_genes each; none for those that no cell changes."""
        typical = {
            name: part.table.mean(0) if isinstance(part, Grouped) else part.intercept
            for name, part in self.named_parts()
        }
        return {name: values.cpu().numpy() for name, values in typical.items() if values is not None}

    def get_loadings(self) -> NDArray[np.float32]:
        """Loadings of the decoder, n_input x n_latent, BatchNorm folded in, as the reference gives them.

        :func:`sc_ldvae.tl.ldvae` also centres, orders and signs them.
        """
        weight, _ = self.decoder.folded()
        return weight[:, : self.n_latent].detach().cpu().numpy()

    @torch.no_grad()
    def set_library_prior(self, library: Tensor, batch_index: Tensor | None = None) -> None:
        """Take mean and variance of the log library of each batch from cells' total counts `library`, n_cells."""
        log_library = library.log()
        for batch in range(len(self.library_log_means)):
            own = log_library if self.n_batch < 2 else log_library[needed(batch_index, "batch_index") == batch]  # noqa: PLR2004
            self.library_log_means[batch] = own.mean()
            self.library_log_vars[batch] = own.var(correction=0).clamp(min=VARIANCE_FLOOR)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw every weight anew, uniform within one over the square root of its inputs, as torch's linear layers."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.reset_parameters()
            elif isinstance(module, nn.Linear):
                bound = module.in_features**-0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                module.bias.uniform_(-bound, bound, generator=generator)
        for decoder in self._decoders():
            bound = decoder.weight.shape[1] ** -0.5
            decoder.weight.uniform_(-bound, bound, generator=generator)

    def log_prior(self) -> Tensor:
        """Log density, up to a constant, of the dispersions: standard normal for each log theta and its slopes.

        Against more than a few cells it weighs little. Without it, a gene whose training cells look Poisson gets an
        infinite theta, and one new cell with a burst of that gene costs more than all others together. Each log
        background has it, too: where the foreground explains all, nothing else says what the background is.
        """
        parts = [*self._parts_on("dispersion"), *self._parts_on("gene")]
        squares = [parameter.square().sum() for part in parts for parameter in part.parameters()]
        return -0.5 * torch.stack(squares).sum() if squares else self.decoder.weight.new_zeros(())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters that learn at different speeds: ``'encoder'``, ``'decoder'``, ``'dispersion'``."""
        encoders = [encoder for encoder in (self.z_encoder, self.l_encoder) if encoder is not None]
        groups: dict[str, Sequence[nn.Module]] = {
            "encoder": encoders,
            "decoder": [*self._decoders(), *self._parts_on("gene")],
            "dispersion": self._parts_on("dispersion"),
        }
        return {name: [p for module in modules for p in module.parameters()] for name, modules in groups.items()}

    def _new_parts(
        self, as_decoder: Callable[[int], LinearDecoder], linear: Callable[..., LinearDecoder]
    ) -> nn.ModuleDict:
        n_genes = self.n_input
        modules: dict[str, nn.Module] = {}
        for part in LIKELIHOODS[self.gene_likelihood].parts:
            if part.depends_on == "factors":
                modules[part.name] = as_decoder(n_genes)
            elif part.depends_on == "gene":
                modules[part.name] = Grouped(1, n_genes)
            elif self.dispersion == "gene-cell":
                modules[part.name] = linear(n_genes, bias=True, use_batch_norm=False)
            else:
                modules[part.name] = Grouped(self._n_groups(), n_genes)
        return nn.ModuleDict(modules)

    def _n_groups(self) -> int:
        if self.dispersion == "gene-label":
            if self.n_labels < 1:
                msg = "dispersion='gene-label' needs labels: n_labels is 0. Name them (labels_key in tl.ldvae)."
                raise ValueError(msg)
            return self.n_labels
        return max(self.n_batch, 1) if self.dispersion == "gene-batch" else 1

    def _decoders(self) -> list[LinearDecoder]:
        """Of the log proportions, and of the parts that are decoded alike."""
        return [self.decoder, *self._parts_on("factors")]

    def _parts_on(self, what: str) -> list[Any]:
        parts, known = dict(self.named_parts()), LIKELIHOODS[self.gene_likelihood].parts
        return [parts[part.name] for part in known if part.depends_on == what]

    def library_prior(self, batch_index: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and variance of the log library of each cell, n_cells x 1, or 1 x 1 where they are all the same."""
        # No CUDA graph can wait for the answer; what it is captured from has been checked.
        captured = self.library_log_means.is_cuda and torch.cuda.is_current_stream_capturing()
        if not captured and self.library_log_means.isnan().any():
            msg = "The prior of the library is not set: call set_library_prior, or pass use_observed_lib_size=True."
            raise ValueError(msg)
        rows = slice(None) if len(self.library_log_means) == 1 else needed(batch_index, "batch_index")
        return self.library_log_means[rows, None], self.library_log_vars[rows, None]
