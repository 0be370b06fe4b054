"""Stage `accepted_models`: the set of models that labels what comes."""

import dagster as dg
import pandas as pd

from iv_pipeline.assets.stage import Result, stage
from iv_pipeline.config import Settings
from iv_pipeline.storage.batches import labelled_facts
from iv_pipeline.storage.layout import file_of
from iv_pipeline.storage.models import read_facts, version_of
from iv_pipeline.storage.versions import ModelSet, accepted, clean, known_versions, remember


@stage(group="results", kinds=("json",), partitioned=False, deps=["model", "summary"])
def accepted_models(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Result:
    """The models of the last fit of every descriptor, as one version that later images are labelled by.

    A run that a person starts is accepted once it is summarised; the refit on schedule decides by its rule.
    """
    root, current = settings.data_root, accepted(settings.data_root)
    models = fitted_models(settings)
    batches = () if current is None else current.batches
    found = ModelSet(max(known_versions(root), default=0) + 1, models, batches)
    if current is not None and current.says_the_same(found):
        found = current
    remember(root, found)
    referred = [facts["model_version"] for facts in labelled_facts(root)]
    for removed in clean(root, found, settings.config.retention.versions, referred):
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


def fitted_models(settings: Settings) -> dict[str, str]:
    """Version of the last model of every descriptor that has one."""
    paths = {name: settings.data_root / file_of("model", name) for name in settings.config.partitions}
    return {
        name: version_of(read_facts(path)["fingerprint"]) for name, path in paths.items() if path.exists()
    }
