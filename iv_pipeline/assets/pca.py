"""Stage `pca`: the principal components behind each scaler, from the statistics alone."""

import dagster as dg
import numpy as np

from iv_pipeline.assets.init import block_widths
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import SCALERS, Settings
from iv_pipeline.learn.pca import PCA, fit_pca, pack_maps
from iv_pipeline.learn.scaling import fit_scaler
from iv_pipeline.learn.statistics import Statistics
from iv_pipeline.report import plots
from iv_pipeline.storage.tables import VectorTable


@stage(
    group="representation",
    kinds=("numpy", "scipy"),
    heavy=True,
    checks={
        "variance_kept": "Do the components keep the configured variance, or are they as many as allowed?"
    },
    code_version="2",
)
def pca(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    init: VectorTable,
    statistics: dict[str, np.ndarray],
) -> Result:
    """Principal components behind each scaler: scaler and PCA as one affine map."""
    config = settings.config.pca
    fitted = Statistics.from_arrays(statistics)
    maps: dict[str, PCA] = {
        kind: fit_pca(
            fitted, fit_scaler(kind, fitted, block_widths(init)), config.variance, config.max_components
        )
        for kind in SCALERS
    }
    kept = {kind: float(m.explained_variance_ratio.sum()) for kind, m in maps.items()}
    for kind, share in kept.items():
        if share < config.variance:
            context.log.warning(
                "%s: %d components keep %.1f %% of the variance", kind, maps[kind].n_components, 100 * share
            )
    most = min(config.max_components, fitted.n_features, max(fitted.n_usable - 1, 1))
    enough = all(kept[k] >= config.variance - 1e-9 or m.n_components == most for k, m in maps.items())
    ratios = {kind: m.explained_variance_ratio for kind, m in maps.items()}
    return Result(
        pack_maps(maps),
        lambda: {
            **{f"components_{kind}": m.n_components for kind, m in maps.items()},
            **{f"variance_kept_{kind}": round(share, 4) for kind, share in kept.items()},
            "explained_variance": dg.MetadataValue.md(plots.inline(plots.variance_curve(ratios))),
        },
        lambda: [Check("variance_kept", enough, kept)],
    )
