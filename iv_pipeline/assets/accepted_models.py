"""Stage `accepted_models`: the set of models that labels what comes."""

import dagster as dg
import pandas as pd

from iv_pipeline.assets.delivery import joined_batches, open_delivery
from iv_pipeline.assets.model import labels_its_own_fit, sha256_of_clusters
from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.storage.batches import labelled_facts
from iv_pipeline.storage.formats import read_parquet
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.models import read_facts, read_model, version_of
from iv_pipeline.storage.tables import IMAGE_PATH, read_table
from iv_pipeline.storage.versions import ModelSet, accept, accepted, clean, next_version, settle


@stage(group="results", kinds=("json",), partitioned=False, heavy=True, deps=["model", "summary"])
def accepted_models(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Result:
    """The models of the last fit of every descriptor, as one version that later images are labelled by.

    A run that a person starts is accepted once it is summarised; the refit on schedule decides by its rule.
    """
    root = settings.data_root
    if done := settle(root):
        context.log.warning("%s had not been finished: its files are in place now", done)
    before = accepted(root)
    models = _fitted_models(context, settings, before)
    found = ModelSet(next_version(root), models, _batches(settings, before))
    if before is not None and before.says_the_same(found):
        found = before
    accept(root, found)
    referred = [facts["model_version"] for facts in labelled_facts(root)]
    for removed in clean(root, found, before, settings.config.retention.versions, referred):
        context.log.info("no longer needed, removed: %s", removed)
    rows = [{"descriptor": name, "model": model} for name, model in found.models.items()]
    return Result(
        found.to_facts(),
        lambda: {
            "version": found.version,
            "joined_batches": len(found.batches),
            "models": dg.MetadataValue.md(pd.DataFrame(rows).to_markdown(index=False)),
        },
    )


def _batches(settings: Settings, before: ModelSet | None) -> tuple[tuple[str, str], ...]:
    """The batches that the last fit was made of: excluded ones leave when the image index is made anew."""
    joined = () if before is None else before.batches
    remaining = joined_batches(settings, before)
    if remaining == joined:
        return joined
    index = read_parquet(settings.data_root / file_of("image_index"))
    return remaining if index[IMAGE_PATH].to_list() == open_delivery(settings).paths else joined


def _fitted_models(
    context: dg.AssetExecutionContext, settings: Settings, before: ModelSet | None
) -> dict[str, str]:
    """Version of the last model of every descriptor, if it labels its own fit; of others the one in force."""
    root = settings.data_root
    models = {} if before is None else dict(before.models)
    for name in settings.config.partitions:
        path = root / file_of("model", name)
        if not path.exists():
            continue
        facts = read_facts(path)
        made = version_of(facts["fingerprint"])
        if models.get(name) == made:
            continue
        clusters = read_table(root / file_of("clusters", name))
        if "clusters_sha256" not in facts["fitted_on"]:
            context.log.warning("the model of %s is of an earlier version and is not accepted", name)
        elif facts["fitted_on"]["clusters_sha256"] != sha256_of_clusters(clusters):
            context.log.warning("the model of %s is not of its last clusters and is not accepted", name)
        elif not labels_its_own_fit(facts):
            context.log.warning("the model of %s does not label its own fit and is not accepted", name)
        else:
            read_model(path)  # whether its arrays can be read
            models[name] = made
    return models
