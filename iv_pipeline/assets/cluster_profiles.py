"""Stage `cluster_profiles`: what each cluster is."""

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.delivery import gallery, open_delivery
from iv_pipeline.assets.image_index import identities_of
from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.engine import map_ordered
from iv_pipeline.learn.colors import describe_images
from iv_pipeline.learn.profiles import (
    Geometry,
    describe_geometry,
    identity_agreement,
    majority,
    propose_name,
)
from iv_pipeline.report.contact_sheet import contact_sheet
from iv_pipeline.report.plots import inline
from iv_pipeline.storage.image_store import ImageStore
from iv_pipeline.storage.tables import IMAGE_PATH, VectorTable

SHEET_IMAGES = 24
SHEET_BYTES = 24_000
SHOWN_CLUSTERS = 48
"""Clusters whose most central image is shown in Dagster, the largest ones."""
SHOWN = ["cluster", "size", "cohesion", "separation", "color", "majority_label", "proposed_name"]


@stage(group="results", kinds=("pandas", "pillow", "parquet"), code_version="2")
def cluster_profiles(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    clusters: VectorTable,
    image_index: pd.DataFrame,
) -> Result:
    """Of each cluster: size, cohesion, separation, exemplars, colors, labels, a proposed name, a sheet."""
    labels = clusters.column("cluster").to_numpy()
    confidence = clusters.column("confidence").to_numpy()
    X = clusters.vectors(clusters.vector_columns[-1]).to_array()  # the last is what was clustered
    agreement = identity_agreement(labels, identities_of(image_index))
    archive = open_delivery(settings).archive()
    if archive is None:
        context.log.warning("no image archive: clusters are described without their colors and pictures")
    geometries = describe_geometry(X, labels, confidence)

    def profile(i: int) -> dict[str, object]:
        cluster = geometries[i].cluster
        members = np.flatnonzero(labels == cluster)
        found = _profile(geometries[i], members, image_index, archive)
        return found | {"identity_agreement": agreement.get(cluster, np.nan)}

    frame = pd.DataFrame(list(map_ordered(profile, len(geometries))))
    by_size = frame.sort_values("size", ascending=False)
    return Result(
        frame,
        lambda: {
            "n_clusters": len(frame),
            "clusters": dg.MetadataValue.md(frame[SHOWN].round(3).to_markdown(index=False)),
            **gallery(archive, [central[0] for central in by_size["central"].head(SHOWN_CLUSTERS)]),
            f"cluster_{by_size['cluster'].iloc[0]}": dg.MetadataValue.md(
                inline(by_size["contact_sheet"].iloc[0])
            ),
        },
    )


def _profile(
    geometry: Geometry, members: np.ndarray, image_index: pd.DataFrame, archive: ImageStore | None
) -> dict[str, object]:
    paths = image_index[IMAGE_PATH]
    exemplars = {
        kind: paths.iloc[getattr(geometry, kind)].to_list() for kind in ("central", "typical", "borderline")
    }
    shown = list(dict.fromkeys([*exemplars["central"], *exemplars["typical"]]))[:SHEET_IMAGES]
    images = [(path, _read(archive, path)) for path in shown]
    seen = describe_images(data for _, data in images if data is not None)
    label = majority(image_index["label"].iloc[members]) if "label" in image_index else ("", np.nan)
    color = "" if seen["color"] in {"unknown", "mixed colors"} else seen["color"]
    brightness = seen["brightness"] if seen["n_images"] else np.nan
    name, evidence = propose_name(label, (color, seen["confidence"]), brightness)
    return {
        "cluster": geometry.cluster,
        "size": geometry.size,
        "share": geometry.size / len(image_index),
        "cohesion": geometry.cohesion,
        "separation": geometry.separation,
        "nearest_cluster": geometry.nearest_cluster,
        "centroid_distances": geometry.distances.tolist(),
        **exemplars,
        "color": color,
        "color_share": seen["confidence"],
        "brightness": brightness,
        "majority_label": label[0],
        "majority_share": label[1],
        "proposed_name": name,
        "evidence": evidence,
        "contact_sheet": contact_sheet(images, max_bytes=SHEET_BYTES),
    }


def _read(archive: ImageStore | None, path: str) -> bytes | None:
    return None if archive is None else archive.glimpse(path)
