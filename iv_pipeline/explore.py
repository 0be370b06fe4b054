"""Hands one descriptor's labels, map, neighbors and thumbnails to Apple's Embedding Atlas."""

from __future__ import annotations

import shutil
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iv_pipeline.assets.delivery import open_delivery
from iv_pipeline.assets.neighbors import graph_of
from iv_pipeline.engine import map_ordered
from iv_pipeline.errors import InputError, MissingStageError
from iv_pipeline.report.pictures import thumbnail_of
from iv_pipeline.storage.formats import FORMATS
from iv_pipeline.storage.layout import ATLAS, file_of
from iv_pipeline.storage.tables import IMAGE_PATH, replacing

if TYPE_CHECKING:
    import pandas as pd
    from upath import UPath

    from iv_pipeline.config import Settings
    from iv_pipeline.learn.neighbors import NeighborGraph
    from iv_pipeline.storage.image_store import ImageStore

ROWS = 4096
"""Images whose thumbnails are in memory at once."""
THUMBNAIL = (96, 72)
"""Width and height of thumbnails, pixels: 1.8 kB each for real photos, 0.75 GB for 416,314 of them."""
STAGES = ("image_index", "final", "projection", "neighbors")
"""What the table is made of."""
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def atlas_command(settings: Settings, descriptor: str, options: list[str]) -> list[str]:
    """The command that opens a descriptor in Embedding Atlas, of a table that is written if it is not up to date.

    Parameters
    ----------
    settings
        Of the pipeline.
    descriptor
        A descriptor or combination that has been run.
    options
        More arguments for ``embedding-atlas``.

    Raises
    ------
    InputError
        If Embedding Atlas is not installed, the descriptor unknown, the data root no folder of this machine, or a
        stage has not been made.
    """
    program = shutil.which("embedding-atlas", path=str(Path(sys.executable).parent))
    if program is None:
        raise InputError(
            "Embedding Atlas is not installed here",
            fix=f"install and open it with 'make explore DESCRIPTOR={descriptor}'",
        )
    settings.config.blocks(descriptor)
    if settings.data_root.protocol not in ("", "file", "local"):
        raise InputError(
            "Embedding Atlas reads files of this machine alone",
            where=settings.data_root,
            fix="copy it into a folder",
        )
    table = write_atlas_table(settings, descriptor)
    columns = ["--x", "x", "--y", "y", "--neighbors", "neighbors", "--pagerank", "pagerank"]
    columns += ["--disable-projection"]
    columns += ["--duckdb", "server"]  # the browser asks for what it shows
    if "image" in pq.read_schema(str(table)).names:
        columns += ["--image", "image"]
    return [program, str(table), *columns, *options]


def write_atlas_table(settings: Settings, descriptor: str) -> UPath:
    """Write what Embedding Atlas shows of a descriptor, if one of its stages is newer; the path of the table.

    One row for each image on the map: the columns of its Final CSV, true labels, ``x`` and ``y``, ``neighbors`` as
    row numbers and distances, ``pagerank``, by which the images that stand for a region are picked, and ``image``,
    a thumbnail, where there is an archive.
    """
    path = settings.data_root / ATLAS.format(descriptor=descriptor)
    made_of = [settings.data_root / file_of(stage, descriptor) for stage in STAGES]
    for stage, file in zip(STAGES, made_of, strict=True):
        if not file.exists():
            raise MissingStageError(
                "is not there", where=file, fix=f"materialize '{stage}' of {descriptor} first"
            )
    if (
        path.exists()
        and path.stat().st_mtime > max(file.stat().st_mtime for file in made_of)
        and _is_whole(path)
    ):
        return path
    index, final, projection, neighbors = (FORMATS[file.suffix].read(file) for file in made_of)
    frame = final.merge(index[[IMAGE_PATH, *[c for c in index if c.startswith("label")]]], on=IMAGE_PATH)
    frame[["x", "y"]] = projection[["x2", "y2"]]
    placed = frame["x"].notna().to_numpy()  # the others have no vector that could be used
    graph = graph_of(neighbors, placed)
    frame = frame[placed].reset_index(drop=True).assign(pagerank=_pagerank(graph))
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(frame, graph, open_delivery(settings).archive(), path)
    return path


def _is_whole(path: UPath) -> bool:
    """Whether a table has the columns that are asked for; earlier ones had not."""
    return "pagerank" in pq.read_schema(str(path)).names


def _pagerank(graph: NeighborGraph) -> list[float]:
    """How often a walk from image to neighboring image comes by: Embedding Atlas would need PyTorch for this."""
    import igraph

    rows = np.repeat(np.arange(graph.n_rows), graph.n_neighbors)
    edges = np.column_stack([rows, graph.indices.ravel()])
    ranks: list[float] = igraph.Graph(n=graph.n_rows, edges=edges, directed=True).pagerank()
    return ranks


def _write(frame: pd.DataFrame, graph: NeighborGraph, archive: ImageStore | None, path: UPath) -> None:
    starts = range(0, max(len(frame), 1), ROWS)

    def batch(i: int) -> pa.Table:
        rows = slice(starts[i], starts[i] + ROWS)
        table = pa.Table.from_pandas(frame.iloc[rows], preserve_index=False)
        table = table.append_column("neighbors", _neighbors(graph, rows))
        if archive is None:
            return table
        paths = frame[IMAGE_PATH].iloc[rows]
        images = [
            {"bytes": thumbnail_of(archive.glimpse(path), THUMBNAIL)[0], "path": path} for path in paths
        ]
        return table.append_column("image", pa.array(images, _IMAGE))

    tables = map_ordered(batch, len(starts))
    first = next(tables)
    with replacing(path) as sink, pq.ParquetWriter(sink, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)


def _neighbors(graph: NeighborGraph, rows: slice) -> pa.Array:
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(values[rows].ravel()), values.shape[1]).cast(
            pa.list_(pa.from_numpy_dtype(values.dtype))
        )
        for values in (graph.indices, graph.distances)
    ]
    return pa.StructArray.from_arrays(columns, ["ids", "distances"])
