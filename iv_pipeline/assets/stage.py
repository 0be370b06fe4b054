"""What all stages have in common: how they become Dagster assets, and what they say.

A stage is a function that takes a context, the settings and the stages it reads, and returns a `Result`.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Literal

import dagster as dg
import pandas as pd

from iv_pipeline.errors import Notice
from iv_pipeline.metering import Meter, release_memory
from iv_pipeline.processes import mark_process
from iv_pipeline.storage.io_managers import Written, describe, failing_in_one_sentence
from iv_pipeline.storage.layout import FILES

Group = Literal["delivery", "representation", "clustering", "outliers", "results", "batches"]

BATCHES = dg.DynamicPartitionsDefinition(name="batch")
"""Batches that came through the inbox, as they come."""

PARTIAL = dg.AssetIn(metadata={"allow_missing_partitions": True})
"""A fan-in of the partitions that exist; the others are named in the log."""
BATCH_POOL = "batches"
"""Batches are labelled one after another: each is compared with those before it."""
NOTICES = "notices"
"""Metadata of a materialization, and attribute of a stored table, with the sentences of its notices."""
HEAVY_POOL = "heavy"
"""Assets that fill the machine's memory or cores; of the daemon's runs one at a time holds a place in it."""


@dataclass(frozen=True)
class Check:
    """The answer to one of a stage's questions about itself."""

    name: str
    passed: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a stage made.

    Attributes
    ----------
    value
        To be stored.
    metadata
        What to show; called once the value is stored, when a lazy value has been computed.
    checks
        The stage's checks; called after that.
    notices
        What people should know of their input: logged as warnings, shown as metadata, and kept with a table
        (`notices_of`), for the report.
    """

    value: Any
    metadata: Callable[[], Mapping[str, Any]] = dict
    checks: Callable[[], Iterable[Check]] = tuple
    notices: Sequence[Notice] = ()


def with_notices(result: Result) -> Any:
    """The value of a stage as it is stored: a table keeps the notices."""
    if result.notices and isinstance(result.value, pd.DataFrame):
        result.value.attrs[NOTICES] = [str(notice) for notice in result.notices]
    return result.value


def notices_of(table: pd.DataFrame) -> list[str]:
    """Sentences of the notices that were stored with a stage's table."""
    return list(table.attrs.get(NOTICES, ()))


def noticed(event: dg.DagsterEvent) -> list[str]:
    """Sentences of the notices that came with a materialization; none for other events."""
    if not event.is_step_materialization:
        return []
    shown = event.step_materialization_data.materialization.metadata.get(NOTICES)
    return [line.removeprefix("- ") for line in str(shown.value).splitlines()] if shown is not None else []


@dataclass(frozen=True)
class Stage:
    """A stage before it becomes an asset: the function, and what Dagster is told about it."""

    function: Callable[..., Result]
    group: Group
    kinds: frozenset[str]
    partitioned: bool
    by_batch: bool
    heavy: bool
    pool: str | None
    checks: dict[str, str]
    warnings: dict[str, str]
    code_version: str
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the asset."""
        return self.function.__name__

    def to_asset(self, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
        """The asset, partitioned by `partitions` if the stage is made for each descriptor."""
        specs = [
            dg.AssetCheckSpec(name, asset=self.name, blocking=name in self.checks, description=question)
            for name, question in (self.checks | self.warnings).items()
        ]
        decorate = dg.asset(
            name=self.name,
            group_name=self.group,
            description=inspect.getdoc(self.function),
            kinds=set(self.kinds),
            code_version=self.code_version,
            partitions_def=BATCHES if self.by_batch else partitions if self.partitioned else None,
            pool=HEAVY_POOL if self.heavy else self.pool,
            check_specs=specs,
            metadata={"file": FILES[self.name]},
            **self.options,
        )
        asset: dg.AssetsDefinition = decorate(_compute(self.function, self.name, set(self.warnings)))
        return asset


def stage(
    *,
    group: Group,
    kinds: Iterable[str] = ("python",),
    partitioned: bool = True,
    by_batch: bool = False,
    heavy: bool = False,
    pool: str | None = None,
    checks: Mapping[str, str] | None = None,
    warnings: Mapping[str, str] | None = None,
    code_version: str = "1",
    **options: Any,
) -> Callable[[Callable[..., Result]], Stage]:
    """Make a function a stage.

    Parameters
    ----------
    group
        Where the asset stands in the graph.
    kinds
        Tags shown on the asset.
    partitioned
        Whether it is made once for each descriptor.
    by_batch
        Whether it is made once for each batch of the inbox instead.
    heavy
        Whether two of its kind must not run at once.
    pool
        Another pool, whose assets do not run at once either.
    checks
        Names of blocking checks, and the question that each answers.
    warnings
        The same of checks that warn and hold up nothing.
    code_version
        Raised when the same input gives another output.
    options
        Further arguments of `dagster.asset`.
    """

    def decorate(function: Callable[..., Result]) -> Stage:
        return Stage(
            function,
            group,
            frozenset(kinds),
            partitioned,
            by_batch,
            heavy,
            pool,
            dict(checks or {}),
            dict(warnings or {}),
            code_version,
            options,
        )

    return decorate


def _compute(
    function: Callable[..., Result], name: str, warnings: AbstractSet[str]
) -> Callable[..., Iterator[Any]]:
    """The asset's body: run the function under a meter, store what it made, then answer its checks."""

    @functools.wraps(function)
    def compute(context: dg.AssetExecutionContext, **inputs: Any) -> Iterator[Any]:
        release_memory()  # of the stage before
        mark_process(context.instance, context.run)
        with Meter() as meter:
            with failing_in_one_sentence():
                result = function(context, **inputs)
            notices = [str(notice) for notice in result.notices]
            for notice in notices:
                context.log.warning(notice)
            yield dg.Output(Written(with_notices(result), _shown(result.metadata, notices), meter))
            context.log.info(_progress(context, name, result.value, meter))
            for check in result.checks():
                severity = (
                    dg.AssetCheckSeverity.WARN if check.name in warnings else dg.AssetCheckSeverity.ERROR
                )
                yield dg.AssetCheckResult(
                    check_name=check.name,
                    passed=check.passed,
                    severity=severity,
                    metadata=dict(check.metadata),
                )

    # Dagster reads inputs from the function's signature, and would take its return type for the asset's
    signature = inspect.signature(function)
    compute.__signature__ = signature.replace(return_annotation=signature.empty)  # type: ignore[attr-defined]
    compute.__annotations__ = {k: v for k, v in function.__annotations__.items() if k != "return"}
    del compute.__wrapped__
    return compute


def _shown(metadata: Callable[[], Mapping[str, Any]], notices: list[str]) -> Callable[[], Mapping[str, Any]]:
    """A stage's metadata, and its notices if it has any."""
    if not notices:
        return metadata
    listed = dg.MetadataValue.md("\n".join(f"- {notice}" for notice in notices))
    return lambda: {**metadata(), NOTICES: listed}


def _progress(context: dg.AssetExecutionContext, name: str, value: Any, meter: Meter) -> str:
    where = f" · {context.partition_key}" if context.has_partition_key else ""
    rows = describe(value).get("dagster/row_count")
    how_many = f" · {rows:,} rows" if rows is not None else ""
    return f"{name}{where}{how_many} · {meter.seconds:.1f} s"
