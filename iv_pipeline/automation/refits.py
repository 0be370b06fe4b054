"""The schedule that has what came since taken into the fit."""

import dagster as dg
from dagster._utils.schedules import is_valid_cron_schedule

from iv_pipeline.assets.refits import waiting_batches
from iv_pipeline.config import RefitConfig, Settings
from iv_pipeline.errors import ConfigError, InputError
from iv_pipeline.processes import only_fit
from iv_pipeline.storage.versions import accepted


def build_refit_schedule(config: RefitConfig) -> dg.ScheduleDefinition:
    """Start `refit` at the configured times, if there is anything to take in.

    Raises
    ------
    ConfigError
        If the times are no cron expression.
    """
    if not is_valid_cron_schedule(config.schedule):
        raise ConfigError(
            f"{config.schedule!r} is no cron expression",
            where="refit.schedule",
            fix="write one, such as '0 3 * * 0'",
        )

    @dg.schedule(
        job_name="refit",
        name="scheduled_refit",
        cron_schedule=config.schedule,
        execution_timezone=config.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Takes batches that have come since into the fit; without any it is skipped.",
    )
    def scheduled_refit(
        context: dg.ScheduleEvaluationContext, settings: dg.ResourceParam[Settings]
    ) -> dg.RunRequest | dg.SkipReason:
        return decide_on_refit(context.instance, settings)

    return scheduled_refit


def decide_on_refit(instance: dg.DagsterInstance, settings: Settings) -> dg.RunRequest | dg.SkipReason:
    """Ask for a refit if batches wait for one and nothing is made that it begins with."""
    with only_fit(instance) as busy:
        if busy:
            return dg.SkipReason(f"{busy} is under way: the refit waits for its next time")
    try:
        models = accepted(settings.data_root)
        joining = () if models is None else waiting_batches(settings, models)
    except InputError as error:
        return dg.SkipReason(str(error))
    if not joining:
        return dg.SkipReason("no batch with all descriptors has come since the last fit")
    return dg.RunRequest(tags={"iv_pipeline/joining": ", ".join(name for name, _ in joining)})
