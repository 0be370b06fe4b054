"""What a terminal shows while the pipeline runs: one line a stage."""

import logging
import sys

import dagster as dg

SKIPPED_STEP = "Dependencies for step"


class _Formatter(logging.Formatter):
    """The message as it was written, without Dagster's prefix of run and step."""

    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", None) or {}
        message = meta.get("orig_message") or record.getMessage()
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"{self.formatTime(record, '%H:%M:%S')}  {level}{message}"


def _is_event(record: logging.LogRecord) -> bool:
    """Whether Dagster wrote it about its own doings; failures are told by whoever started the run."""
    meta = getattr(record, "dagster_meta", None) or {}
    return meta.get("dagster_event") is not None or str(meta.get("orig_message")).startswith(SKIPPED_STEP)


@dg.logger(
    config_schema={"log_level": dg.Field(str, is_required=False, default_value="INFO")},
    description="One line a stage; Dagster's own events (at level DEBUG) are in the UI.",
)
def console(init_context: dg.InitLoggerContext) -> logging.Logger:
    """A logger on standard error."""
    logger = logging.getLogger("iv_pipeline.console")
    logger.setLevel(init_context.logger_config["log_level"])
    logger.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    handler.addFilter(lambda record: not _is_event(record))
    logger.handlers = [handler]  # Dagster makes the logger anew for every run of this process
    return logger
