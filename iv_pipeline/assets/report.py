"""Stage `report`: what people look at."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.delivery import open_delivery
from iv_pipeline.assets.drift import drift_history
from iv_pipeline.assets.stage import PARTIAL, Result, notices_of, stage
from iv_pipeline.config import Settings
from iv_pipeline.learn.drift import Limits
from iv_pipeline.learn.pca import unpack_maps
from iv_pipeline.report.later import Later
from iv_pipeline.report.page import ReportData, render_report
from iv_pipeline.storage.answers import given_names
from iv_pipeline.storage.batches import labelled_facts
from iv_pipeline.storage.hand_off import read_csv
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.versions import ModelSet, accepted


@stage(
    group="results",
    kinds=("html",),
    partitioned=False,
    deps=["accepted_models"],
    ins=dict.fromkeys(
        ("pca", "clustering_trials", "cluster_profiles", "final", "changes", "projection"), PARTIAL
    ),
    code_version="7",
)
def report(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    image_index: pd.DataFrame,
    image_quality: pd.DataFrame,
    summary: pd.DataFrame,
    comparison: pd.DataFrame,
    pca: dict[str, dict[str, np.ndarray]],
    ranked_outliers: pd.DataFrame,
    clustering_trials: dict[str, pd.DataFrame],
    cluster_profiles: dict[str, pd.DataFrame],
    final: dict[str, pd.DataFrame],
    changes: dict[str, pd.DataFrame],
    projection: dict[str, pd.DataFrame],
    evaluation: pd.DataFrame,
    descriptor_accuracy: pd.DataFrame,
    crossings: pd.DataFrame,
    attributes: pd.DataFrame,
    review: pd.DataFrame,
) -> Result:
    """One self-contained HTML page: what is known of the images, clusters with their pictures, outliers."""
    models = accepted(settings.data_root)
    data = ReportData(
        summary=summary,
        comparison=comparison,
        outliers=ranked_outliers,
        images=image_index,
        trials=clustering_trials,
        profiles=cluster_profiles,
        final=final,
        changes=changes,
        projection=projection,
        evaluation=evaluation,
        descriptor_accuracy=descriptor_accuracy,
        variance={name: _variance(maps) for name, maps in pca.items()},
        constant={name: _constant_features(settings, name) for name in final},
        names={name: given_names(settings.data_root, name) for name in final},
        crossings=crossings,
        later=None if models is None else _later(settings, models),
        archive=open_delivery(settings).archive(),
        attributes=attributes,
        review=review,
        notices=[*notices_of(image_index), *notices_of(image_quality)],
    )
    page = render_report(data)
    return Result(page, lambda: {"descriptors": len(final), "page_bytes": len(page.encode())})


def _later(settings: Settings, models: ModelSet) -> Later:
    """Batches, drift and refits, read as they lie there: they are made whenever something comes."""
    config, root = settings.config.drift, settings.data_root
    refits = root / file_of("refits")
    return Later(
        version=models.version,
        joined=[name for name, _ in models.batches],
        batches=labelled_facts(root),
        drift=drift_history(settings),
        refits=read_csv(refits) if refits.exists() else pd.DataFrame(),
        limits=Limits(config.psi, config.refused),
    )


def _variance(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {kind: fitted.explained_variance_ratio for kind, fitted in unpack_maps(maps).items()}


def _constant_features(settings: Settings, descriptor: str) -> list[int]:
    """Features that say nothing, read without the covariance beside them, which is large."""
    path = settings.data_root / file_of("statistics", descriptor)
    with path.open("rb") as source, np.load(source, allow_pickle=False) as stored:
        constant: list[int] = np.flatnonzero(stored["minimum"] == stored["maximum"]).tolist()
    return constant
