"""Stage `drift`: whether what was learnt still fits the images of a batch."""

import dagster as dg
import pandas as pd

from iv_pipeline.assets.image_index import identities_of
from iv_pipeline.assets.stage import Check, Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.labelling import REFERENCE, arrays_of, model_path
from iv_pipeline.learn.drift import Limits, Reference, measure_drift
from iv_pipeline.report import plots
from iv_pipeline.storage.batches import LabelledBatch, StoredBatch, labelled_facts, new_rows
from iv_pipeline.storage.formats import read_parquet
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.models import read_model

MEASURED = ("refused", "psi_clusters", "psi_distances")


@stage(
    group="batches",
    kinds=("parquet",),
    by_batch=True,
    warnings={"models_still_fit": "Are the images of this batch like those that the models were fitted on?"},
)
def drift(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], labelled_batch: LabelledBatch
) -> Result:
    """How far a batch lies from what was learnt: images refused, shifts of clusters and of distances."""
    config, facts = settings.config.drift, labelled_batch.facts
    limits = Limits(config.psi, config.refused)
    stored = StoredBatch.of(settings.data_root, facts["batch"], facts["fingerprint"])
    new = new_rows(stored.index)  # what was known before says nothing new
    vehicles = identities_of(stored.index)[new]
    rows = []
    for name, labels in labelled_batch.labels.items():
        model = read_model(model_path(settings.data_root, name, facts["model_version"]))
        reference = Reference.from_arrays(arrays_of(model.arrays, REFERENCE))
        rows.append({"descriptor": name, **measure_drift(labels[new], reference, limits, vehicles)})
    came = {key: facts[key] for key in ("batch", "labelled_at", "model_version")}
    frame = pd.DataFrame(rows).assign(**came)
    frame = frame[[*came, *(column for column in frame if column not in came)]]
    for row in frame[frame["drifted"]].to_dict("records"):
        context.log.warning("batch %s · %s: %s", row["batch"], row["descriptor"], row["reasons"])
    history = pd.concat([drift_history(settings, without=facts["batch"]), frame], ignore_index=True)
    by_name = frame.set_index("descriptor")
    return Result(
        frame,
        lambda: {
            "drifted": int(frame["drifted"].sum()),
            **{f"{what}_{name}": float(by_name[what][name]) for what in MEASURED for name in by_name.index},
            "over_time": dg.MetadataValue.md(plots.inline(plots.drift_over_time(history, limits))),
            "measured": dg.MetadataValue.md(frame.round(3).to_markdown(index=False)),
        },
        lambda: [_still_fit(frame)],
    )


def _still_fit(frame: pd.DataFrame) -> Check:
    drifted = frame[frame["drifted"]]
    reasons = {row["descriptor"]: row["reasons"] for row in drifted.to_dict("records")}
    return Check("models_still_fit", drifted.empty, reasons)


def drift_history(settings: Settings, without: str | None = None) -> pd.DataFrame:
    """Drift of every labelled batch so far, in the order in which they were labelled."""
    root = settings.data_root
    names = [facts["batch"] for facts in labelled_facts(root) if facts["batch"] != without]
    paths = [root / file_of("drift", name) for name in names]
    frames = [read_parquet(path) for path in paths if path.exists()]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
