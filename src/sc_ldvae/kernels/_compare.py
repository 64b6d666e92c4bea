"""Distribution of each gene's log expression within groups of cells, and how far apart two groups are.

Gene after gene, over all cells: nothing of size cells x genes is ever held.
"""

from __future__ import annotations

import numpy as np

from sc_ldvae.kernels._jit import exp, log, part_of_kernel
from sc_ldvae.kernels._parallel import parallel_kernel
from sc_ldvae.kernels._softmax import softmax
from sc_ldvae.kernels._sums import add_scaled, linear_map, positions

# Cells and genes whose values stay in the cache together.
_CELLS, _GENES = 1024, 16
# Gauss-Hermite quadrature of a normal variable: nodes in standard deviations, and their weights.
_NODES = np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)], np.float32)
_WEIGHTS = np.array([1 / 6, 2 / 3, 1 / 6])
_LOG2_E = np.float32(1 / np.log(2))


@parallel_kernel
def normalise(which, n_slices, u, decoder, loadings, scale, competing, log_sums, centres):
    """What the softmax takes from every gene of a cell: its expected log normaliser, and its slopes.

    Parameters
    ----------
    n_slices
        Slices of the cells.
    u, decoder
        Inputs, cells x inputs (factors first), and linear map, inputs x genes, to the log proportions.
    loadings
        Factors x genes.
    scale
        Posterior standard deviation of each factor, times its share of one for 'ln', cells x factors.
    competing
        1 for 'ln', where one factor's gain is the others' loss, else 0.
    log_sums
        Filled: n_cells; to second order in the posterior standard deviations.
    centres
        Filled: mean of the genes' slopes, cells x factors.
    """
    n_cells, n_factors, n_genes = len(u), len(loadings), decoder.shape[1]
    inputs, factors, first = positions(u.shape[1]), positions(n_factors), positions(1)
    buffers = np.empty((3, n_genes), u.dtype)
    eta, proportions, own = buffers[0], buffers[1], buffers[2]
    log_proportion, half = np.empty(1, u.dtype), u.dtype.type(0.5)
    for cell in range(which * n_cells // n_slices, (which + 1) * n_cells // n_slices):
        linear_map(eta, decoder, inputs, u[cell])
        softmax(eta, first, proportions, log_proportion)
        linear_map(own, loadings, factors, u[cell])
        log_sum = eta[0] - log_proportion[0]
        for k in range(n_factors):
            row, mean, square = loadings[k], u.dtype.type(0), u.dtype.type(0)
            for g in range(n_genes):
                slope = row[g] - competing * own[g]
                mean += proportions[g] * slope
                square += proportions[g] * slope * slope
            centres[cell, k] = mean
            log_sum += half * scale[cell, k] ** 2 * (square - mean * mean)
        log_sums[cell] = log_sum


# Every array is an argument, as in `count_loss`.
@parallel_kernel
def compare(
    which,
    n_slices,
    u,
    scale,
    centres,
    decoder,
    loadings,
    competing,
    log_sums,
    group,
    sizes,
    tests,
    pseudocount,
    largest,
    width,
    lag,
    out,
):
    """Compare groups of cells, gene by gene.

    The log expression y = log2(proportion + pseudocount) of a gene in a group is a mixture over its cells, each with
    its own mean and variance; two groups are compared over all pairs of cells.

    Parameters
    ----------
    n_slices
        Slices of the genes.
    u, scale, centres
        As in `normalise`, but transposed: one column per cell.
    decoder, loadings
        As in `normalise`, but transposed: one row per gene; the genes to compare.
    competing, log_sums
        As in `normalise`.
    group, sizes
        Group of each cell, and cells per group.
    tests
        Group and reference group of each test, n_tests x 2; -1: all other groups.
    pseudocount
        Added to the proportions, above zero.
    largest
        What no proportion is above.
    width, lag
        Width of the bins of y, and the threshold in bins.
    out
        Filled: tests x genes x 7: probability that y is above by the threshold, below by it, and above at all; mean and
        variance of the difference; mean proportions of the group and of its reference. Double precision.
    """
    n_genes, n_cells, n_groups = len(decoder), u.shape[1], len(sizes)
    lowest = np.log2(pseudocount)
    n_bins = int((np.log2(largest + pseudocount) - lowest) / width) + 2
    shift, inverse_width, eps = u.dtype.type(lowest), u.dtype.type(1 / width), u.dtype.type(pseudocount)
    histograms, sums = np.empty((_GENES, n_groups, n_bins)), np.empty((_GENES, n_groups, 3))
    rows = np.empty((5, _CELLS), u.dtype)
    first, last = which * n_genes // n_slices, (which + 1) * n_genes // n_slices
    for first_gene in range(first, last, _GENES):
        n_tile = min(_GENES, last - first_gene)
        histograms[:] = 0
        sums[:] = 0
        for start in range(0, n_cells, _CELLS):
            stop = min(start + _CELLS, n_cells)
            n = stop - start
            mean, sd, own, y, proportion = rows[0][:n], rows[1][:n], rows[2][:n], rows[3][:n], rows[4][:n]
            groups, normaliser = group[start:stop], log_sums[start:stop]
            for i in range(n_tile):
                weights, slopes = decoder[first_gene + i], loadings[first_gene + i]
                for j in range(n):
                    mean[j] = -normaliser[j]
                own[:] = 0
                for k in range(len(weights)):
                    add_scaled(mean, u[k][start:stop], weights[k])
                for k in range(len(slopes)):
                    add_scaled(own, u[k][start:stop], competing * slopes[k])
                _spread(sd, scale, centres, slopes, own, start, stop)
                histogram, moments = histograms[i], sums[i]
                for node in range(len(_NODES)):
                    step, weight = _NODES[node], _WEIGHTS[node]
                    for j in range(n):
                        proportion[j] = exp(mean[j] + step * sd[j])
                    for j in range(n):
                        y[j] = log(proportion[j] + eps) * _LOG2_E
                    for j in range(n):
                        own_moments = moments[groups[j]]
                        value = float(y[j])
                        place = int((y[j] - shift) * inverse_width)
                        histogram[groups[j], min(max(place, 0), n_bins - 1)] += weight
                        own_moments[0] += weight * value
                        own_moments[1] += weight * value * value
                        own_moments[2] += weight * proportion[j]
        for i in range(n_tile):
            _test(histograms[i], sums[i], sizes, tests, lag, first_gene + i, out)


@part_of_kernel
def _spread(sd, scale, centres, slopes, own, start, stop):
    """Posterior standard deviation of one gene's log proportion in each cell."""
    sd[:] = 0
    for k in range(len(slopes)):
        own_scale, centre, slope = scale[k][start:stop], centres[k][start:stop], slopes[k]
        for j in range(len(sd)):
            sd[j] += (own_scale[j] * (slope - own[j] - centre[j])) ** 2
    for j in range(len(sd)):
        sd[j] = np.sqrt(sd[j])


@part_of_kernel
def _test(histograms, sums, sizes, tests, lag, gene, out):
    n_bins, n_all = histograms.shape[1], sizes.sum()
    other = np.empty(n_bins)
    for t in range(len(tests)):
        a, b = tests[t, 0], tests[t, 1]
        n_a, n_b = float(sizes[a]), float(n_all - sizes[a] if b < 0 else sizes[b])
        own, moments = histograms[a], np.zeros(3)
        other[:] = 0
        for one in range(len(sizes)):
            if one == b or (b < 0 and one != a):
                for j in range(n_bins):
                    other[j] += histograms[one, j]
                for j in range(3):
                    moments[j] += sums[one, j]
        mean_a, mean_b = sums[a, 0] / n_a, moments[0] / n_b
        result = out[t, gene]
        result[0] = _above(own, other, lag) / (n_a * n_b)
        result[1] = _above(other, own, lag) / (n_a * n_b)
        result[2] = _above(own, other, 0) / (n_a * n_b)
        result[3] = mean_a - mean_b
        result[4] = max(sums[a, 1] / n_a - mean_a**2, 0.0) + max(moments[1] / n_b - mean_b**2, 0.0)
        result[5] = sums[a, 2] / n_a
        result[6] = moments[2] / n_b


@part_of_kernel
def _above(a, b, lag):
    """Weight of the pairs in which the first value is above the second by so many bins.

    Values are spread evenly over their bins: half of the pairs whose bins are just that far apart count.
    """
    n, beyond, total = len(a), 0.0, 0.0
    for j in range(n - 1, -1, -1):
        if j + lag < n:
            total += b[j] * (beyond + 0.5 * a[j + lag])
            beyond += a[j + lag]
    return total
