"""What a latent is worth to the next step: do neighbours share their label, do clusters match the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import scanpy as sc
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = ("unlabelled", "nan")
RESOLUTIONS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


def label_accuracy(latent: np.ndarray, labels: pd.Series) -> float:
    """Accuracy of a 15-nearest-neighbour classifier, 5-fold cross-validation."""
    latent, labels = _labelled(latent, labels)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(cross_val_score(KNeighborsClassifier(15), latent, labels, cv=folds).mean())


def cluster_agreement(latent: np.ndarray, labels: pd.Series) -> float:
    """Adjusted Rand index of Leiden clusters and labels, at the best of a few resolutions."""
    latent, labels = _labelled(latent, labels)
    cells = ad.AnnData(latent.astype(np.float32))
    sc.pp.neighbors(cells, use_rep="X")
    scores = []
    for resolution in RESOLUTIONS:
        sc.tl.leiden(cells, resolution, flavor="igraph", n_iterations=2, directed=False)
        scores.append(adjusted_rand_score(labels, cells.obs["leiden"]))
    return float(max(scores))


def _labelled(latent: np.ndarray, labels: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    known = (~labels.astype(str).isin(UNKNOWN)).to_numpy()
    return latent[known], labels[known].astype(str).to_numpy()
