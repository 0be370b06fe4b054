"""The IO manager: every stage's value in the file that the layout names for it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
from upath import UPath

from iv_pipeline.errors import InputError, MissingStageError, reason_of
from iv_pipeline.metering import Meter
from iv_pipeline.storage.batches import LabelledBatch
from iv_pipeline.storage.columns import NEWEST_COLUMNS, describe_column
from iv_pipeline.storage.formats import format_of
from iv_pipeline.storage.layout import FILES, file_of
from iv_pipeline.storage.tables import VectorTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@contextlib.contextmanager
def failing_in_one_sentence(where: object = "") -> Iterator[None]:
    """Fail the step with the one sentence of wrong input, or of what the operating system refused.

    Parameters
    ----------
    where
        File to name if the error names none.
    """
    try:
        yield
    except InputError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    except OSError as error:
        raise dg.Failure(reason_of(error, where), allow_retries=False) from error


@dataclass
class Written:
    """What an asset hands to the IO manager: the value, and what to say once it lies on disk.

    Attributes
    ----------
    value
        A lazy table, a frame, named arrays or a text.
    metadata
        Called after writing, when a lazy value has been computed.
    meter
        Running since the asset began.
    """

    value: Any
    metadata: Callable[[], Mapping[str, Any]] = dict
    meter: Meter = field(default_factory=Meter)


class StageIOManager(dg.UPathIOManager):
    """Stores each asset where `iv_pipeline.storage.layout.FILES` says, in the format of the suffix.

    A file is written under a temporary name and renamed, so that a killed run leaves the previous one whole.
    """

    def get_asset_relative_path(self, context: dg.InputContext | dg.OutputContext) -> UPath:
        """The layout's path, with the partition still to be filled in."""
        return UPath(FILES[context.asset_key.to_python_identifier()])

    def get_path_for_partition(
        self, context: dg.InputContext | dg.OutputContext, path: UPath, partition: str
    ) -> UPath:
        """The path with the partition filled in."""
        relative = self.get_asset_relative_path(context)
        root = path.parents[len(relative.parts) - 1]
        return root / file_of(context.asset_key.to_python_identifier(), partition)

    def handle_output(self, context: dg.OutputContext, obj: Written) -> None:
        """Store a value and say what it is, then let go of it: Dagster keeps what a run puts out until its end."""
        super().handle_output(context, obj)
        obj.value, obj.metadata = None, dict

    def dump_to_path(self, context: dg.OutputContext, obj: Written, path: UPath) -> None:
        """Write the value; wrong input that a lazy value meets fails the run with its one sentence."""
        del context
        with failing_in_one_sentence(path):
            format_of(path).write(obj.value, path)

    def load_input(self, context: dg.InputContext) -> Any:
        """Open what an asset reads; if it is not there, the run fails with one sentence."""
        with failing_in_one_sentence():
            return self._fan_in(context) if is_fan_in(context) else super().load_input(context)

    def _fan_in(self, context: dg.InputContext) -> dict[str, Any]:
        """The partitions that there are, by name; where one alone is configured, Dagster gives its bare value."""
        loaded = super().load_input(context)
        names = context.asset_partition_keys
        found = loaded if len(names) > 1 else {names[0]: loaded}
        found = {name: value for name, value in found.items() if value is not None}
        if not found:
            asset = context.asset_key.to_user_string()
            raise MissingStageError(
                f"no descriptor has '{asset}' yet", fix="run the job 'full_pipeline' for at least one"
            )
        return found

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Any:
        """Open the value; tables stay on disk.

        Raises
        ------
        MissingStageError
            If the stage has not been made.
        InputError
            If an earlier version of this package made it.
        """
        name = context.asset_key.to_user_string()
        if not path.exists():
            raise MissingStageError("is not there", where=path, fix=f"materialize '{name}' first")
        value = format_of(path).read(path)
        newest = NEWEST_COLUMNS.get(name)
        if newest is not None and newest not in value.columns:
            raise InputError(
                f"is of an earlier version, without the column '{newest}'",
                where=path,
                fix=f"materialize '{name}' again",
            )
        return value

    def get_metadata(self, context: dg.OutputContext, obj: Written) -> dict[str, Any]:
        """Rows, dimensions, bytes, seconds and peak memory, and what the asset has to say."""
        path = (
            next(iter(self._get_paths_for_partitions(context).values()))
            if context.has_asset_partitions
            else self._get_path(context)
        )
        return facts_of(obj, path, context.asset_key.to_python_identifier())


def facts_of(written: Written, path: UPath, table: str) -> dict[str, Any]:
    """What Dagster shows of a value of the stage `table` that lies at `path`."""
    facts = {**describe(written.value, table), "bytes": path.stat().st_size, **written.metadata()}
    facts["seconds"] = round(written.meter.seconds, 3)
    facts["peak_memory_mb"] = round(written.meter.peak_anonymous_bytes / 2**20, 1)
    return {name: _readable(value) for name, value in facts.items()}


def _readable(value: Any) -> Any:
    """Six digits of a fraction: Dagster shows all that it is given."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def is_fan_in(context: dg.InputContext) -> bool:
    """Whether the input is all partitions of an asset; such inputs say that some of them may be missing."""
    return context.has_asset_partitions and bool(
        (context.definition_metadata or {}).get("allow_missing_partitions")
    )


def describe(value: Any, table: str = "") -> dict[str, Any]:
    """Rows, dimensions and columns of the value of the stage `table`, as far as it has them."""
    if isinstance(value, VectorTable):
        dimensions = {f"dimensions_{c}": value.vectors(c).shape[1] for c in value.vector_columns}
        columns = [_column(table, f.name, f.type) for f in value.schema]
        return {
            "dagster/row_count": value.n_rows,
            **dimensions,
            "dagster/column_schema": dg.TableSchema(columns),
        }
    if isinstance(value, LabelledBatch):
        value = next(iter(value.labels.values()))
    if isinstance(value, pd.DataFrame):
        columns = [_column(table, name, dtype) for name, dtype in value.dtypes.items()]
        return {"dagster/row_count": len(value), "dagster/column_schema": dg.TableSchema(columns)}
    return {}


def _column(table: str, name: object, dtype: object) -> dg.TableColumn:
    return dg.TableColumn(str(name), str(dtype), description=describe_column(table, str(name)) or None)


class StageStore(dg.ConfigurableIOManagerFactory[StageIOManager]):
    """The IO manager as a resource: a folder, or any fsspec URL."""

    data_root: str

    def create_io_manager(self, context: dg.InitResourceContext) -> StageIOManager:
        """The IO manager of this data root."""
        del context
        return StageIOManager(base_path=UPath(self.data_root))
