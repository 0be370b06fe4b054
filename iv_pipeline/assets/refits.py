"""Stage `refits`: a fit that takes in what has come since, accepted if it is not worse."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from iv_pipeline.assets.candidate import Candidate, CheckFailedError
from iv_pipeline.assets.clustering_trials import judges_of
from iv_pipeline.assets.delivery import open_delivery
from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.engine import SideBySide
from iv_pipeline.errors import InputError
from iv_pipeline.labelling import unpack_labeller
from iv_pipeline.learn.acceptance import CHANGES, Terms, compare_fits, objections
from iv_pipeline.learn.clustering import NOISE
from iv_pipeline.learn.criteria import Score, fit_predictor, mean_score
from iv_pipeline.learn.evaluation import label_accuracy
from iv_pipeline.learn.statistics import finite_rows
from iv_pipeline.processes import only_fit
from iv_pipeline.storage.answers import given_names
from iv_pipeline.storage.batches import StoredBatch, labelled_facts
from iv_pipeline.storage.formats import read_parquet
from iv_pipeline.storage.hand_off import read_csv, write_csv
from iv_pipeline.storage.layout import MODEL, file_of
from iv_pipeline.storage.models import read_model, version_of
from iv_pipeline.storage.tables import read_table
from iv_pipeline.storage.versions import (
    ModelSet,
    accepted,
    clean,
    known_versions,
    next_version,
    promote,
    settle,
)


@stage(
    group="batches", kinds=("csv",), partitioned=False, heavy=True, deps=["accepted_models", "labelled_batch"]
)
def refits(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Result:
    """What has come since joins the fit set; the new fit takes the place of the old one if it is not worse.

    One row for each refit and descriptor, the latest last: scores before and after, what became of the clusters,
    and why it was accepted or not.
    """
    with only_fit(context.instance, but=context.run.run_id, waiting=False) as busy:
        if busy:
            raise InputError(f"{busy} is under way", fix="start the refit when it has ended")
        return _refit(context, settings)


def _refit(context: dg.AssetExecutionContext, settings: Settings) -> Result:
    root = settings.data_root
    if done := settle(root):
        context.log.warning("%s had not been finished: its files are in place now", done)
    models = accepted(root)
    joining = () if models is None else waiting_batches(settings, models)
    if models is None or not joining:
        context.log.info(
            "no batch with all descriptors has come since the last fit: there is nothing to take in"
        )
        return Result(next(_history(settings), pd.DataFrame(columns=_FIRST)))
    candidate = Candidate(settings, models, joining, context.log)
    rows = _compared(candidate)
    is_accepted = bool((rows["reason"] == "").all())
    frame = rows.assign(
        refit=datetime.now(UTC).isoformat(timespec="seconds"),
        batches="; ".join(name for name, _ in joining),
        accepted=is_accepted,
        version=models.version,
    )
    frame = frame[[*_FIRST, *(column for column in frame if column not in _FIRST)]]
    if is_accepted:
        frame["version"] = next_version(root)
    history = pd.concat([*_history(settings), frame], ignore_index=True)
    if is_accepted:
        # it takes its place with the other files, whatever becomes of this process
        write_csv(history, candidate.root / file_of("refits"))
        _accept(context, candidate, int(frame["version"].iloc[0]))
    else:
        _refuse(context, candidate, rows)
    numbers = {
        "kept_share": frame["kept_share"].min(),
        **{f"score_{row['descriptor']}": row["score_after"] for row in rows.to_dict("records")},
    }
    return Result(
        history,
        lambda: {
            "accepted": is_accepted,
            "version": int(frame["version"].iloc[0]),
            "joined_images": int(frame["images_joined"].max()) if is_accepted else 0,
            **{name: float(number) for name, number in numbers.items() if np.isfinite(number)},
            "why": _why(rows),
            "compared": dg.MetadataValue.md(frame.round(3).to_markdown(index=False)),
        },
    )


MEASURES = (
    *(
        "score_before",
        "score_after",
        "score_error",
        "kept_share",
        *(f"clusters_{change}" for change in CHANGES),
    ),
    *("refused_before", "refused_after", "accuracy_before", "accuracy_after"),
)
_FIRST = ("refit", "version", "accepted", "descriptor", "reason", "batches")


def _compared(candidate: Candidate) -> pd.DataFrame:
    """One row a descriptor; a single one with the reason if a check has stopped the candidate."""
    try:
        candidate.run()
        return pd.DataFrame([_compare(candidate, name) for name in candidate.descriptors])
    except CheckFailedError as failed:
        measures = dict.fromkeys((*MEASURES, "images", "images_joined"), np.nan)
        row = {"descriptor": failed.descriptor, **measures, "names_lost": "", "reason": str(failed)}
        return pd.DataFrame([row])
    except BaseException:
        candidate.discard()
        raise


def waiting_batches(settings: Settings, models: ModelSet) -> tuple[tuple[str, str], ...]:
    """Name and version of each batch that can join: labelled, with all descriptors, and with new images.

    None, if the fit that they would make has been made after the one in force: a person has rolled it back, and it
    is made again once something else has come, too.

    Raises
    ------
    InputError
        If a batch that has joined is excluded by now, or the delivery cannot be used.
    """
    if left := {name for name, _ in models.batches} & set(settings.config.refit.exclude):
        raise InputError(
            "has joined the fit and is excluded by now",
            where=f"batch {', '.join(sorted(left))}",
            fix="run the pipeline once without it ('make run') before the next refit",
        )
    wanted = set(settings.config.descriptors)
    stay = {*(name for name, _ in models.batches), *settings.config.refit.exclude}
    came = [
        StoredBatch.of(settings.data_root, facts["batch"], facts["fingerprint"])
        for facts in labelled_facts(settings.data_root)
        if facts["batch"] not in stay and wanted <= set(facts["came"])
    ]
    if not came:
        return ()
    found = [(batch.name, batch.version) for batch in open_delivery(settings).with_new_images(came)]
    grown = (*models.batches, *found)
    later = [known for known in known_versions(settings.data_root).values() if known.version > models.version]
    rolled_back = any(known.batches == grown for known in later)
    return () if rolled_back else tuple(found)


def _compare(candidate: Candidate, name: str) -> dict[str, Any]:
    """The candidate's clusters of a descriptor beside those of the fit in force, and what speaks against them."""
    settings, root = candidate.current, candidate.root
    config = settings.config
    index = read_parquet(root / file_of("image_index"))
    before = read_table(settings.data_root / file_of("clusters", name)).column("cluster").to_numpy()
    path = MODEL.format(descriptor=name, version=candidate.models.models[name])
    joined = SideBySide([candidate.fit_set.joined(b, len(candidate.joining)) for b in config.blocks(name)])
    old_labels = unpack_labeller(read_model(settings.data_root / path)).label(joined)
    new_labels = unpack_labeller(read_model(root / file_of("model", name))).label(joined)
    old = np.concatenate([before, old_labels["cluster"].to_numpy()]).astype(np.int32)
    new = read_table(root / file_of("clusters", name)).column("cluster").to_numpy().astype(np.int32)
    if len(old) != len(new):
        raise InputError(
            f"the delivery has changed since the fit of {name} in force",
            fix="run the pipeline on it before a refit",
        )
    score = _score_of(candidate, name, old != NOISE)
    compared = compare_fits(old, new, len(before), given_names(settings.data_root, name), score)
    truth = index["label"] if "label" in index else pd.Series(index=index.index, dtype=object)
    terms = Terms(config.refit.score_loss, config.refit.kept_share)
    return {
        "descriptor": name,
        "images": len(index),
        "images_joined": len(old_labels),
        **compared,
        "refused_before": float(old_labels["status"].str.startswith("unknown").mean()),
        "refused_after": float(new_labels["status"].str.startswith("unknown").mean()),
        "accuracy_before": _accuracy(old, truth),
        "accuracy_after": _accuracy(new, truth),
        "reason": "; ".join(objections(compared, terms)),
    }


def _score_of(candidate: Candidate, name: str, labelled: np.ndarray) -> Callable[[np.ndarray], Score]:
    """How well other descriptors predict clusters of the images that are `labelled`, on the candidate's sample.

    What the old fit refuses is left out: it would count as one more cluster of its, and one easily told.
    """
    config = candidate.current.config
    views = read_table(candidate.root / file_of("views"))
    usable = np.logical_and.reduce([finite_rows(views.vectors(c).to_array()) for c in views.vector_columns])
    usable &= labelled[views.column("row").to_numpy()]
    rows = views.column("row").to_numpy()[usable]
    judges = judges_of(config, name, views, usable).values()
    predictors = [fit_predictor(X, config.seed) for X in judges]

    def score(labels: np.ndarray) -> Score:
        return mean_score([p.score(labels[rows], config.trials.naming_budget) for p in predictors])

    return score


def _accuracy(labels: np.ndarray, truth: pd.Series) -> float:
    """How well the clusters label images of which the label is known; it is told, and no part of the rule."""
    return label_accuracy(labels, truth) if truth.notna().sum() > 1 else np.nan


def _accept(context: dg.AssetExecutionContext, candidate: Candidate, version: int) -> None:
    """Put the candidate in force."""
    settings = candidate.current
    models = {
        name: version_of(read_model(candidate.root / file_of("model", name)).fingerprint)
        for name in candidate.descriptors
    }
    grown = ModelSet(version, models, (*candidate.models.batches, *candidate.joining))
    promote(settings.data_root, grown)
    for made in candidate.made:
        context.log_event(
            dg.AssetMaterialization(
                made.stage, partition=made.partition, metadata=dict(made.metadata), description="by a refit"
            )
        )
    context.log_event(dg.AssetMaterialization("accepted_models", metadata={"version": version}))
    referred = [facts["model_version"] for facts in labelled_facts(settings.data_root)]
    for removed in clean(
        settings.data_root, grown, candidate.models, settings.config.retention.versions, referred
    ):
        context.log.info("no longer needed, removed: %s", removed)
    context.log.info("the refit is accepted: version %d labels what comes", version)


def _refuse(context: dg.AssetExecutionContext, candidate: Candidate, rows: pd.DataFrame) -> None:
    candidate.discard()
    context.log.warning(
        "the refit is not accepted, version %d stays in force: %s", candidate.models.version, _why(rows)
    )


def _why(rows: pd.DataFrame) -> str:
    against = [f"{row['descriptor']}: {row['reason']}" for row in rows.to_dict("records") if row["reason"]]
    return " · ".join(against) or "no descriptor is worse by the rule"


def _history(settings: Settings) -> Iterator[pd.DataFrame]:
    """Refits before this one, if there were any."""
    path = settings.data_root / file_of("refits")
    if path.exists() and len(history := read_csv(path)):
        yield history
