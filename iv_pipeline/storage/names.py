"""Names that people give to clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from iv_pipeline.errors import InputError
from iv_pipeline.storage.formats import read_csv
from iv_pipeline.storage.layout import NAMES

if TYPE_CHECKING:
    from upath import UPath


def given_names(data_root: UPath, descriptor: str) -> dict[int, str]:
    """Names that people gave in `Names/<descriptor>.csv`, by cluster; also of clusters that are gone.

    Raises
    ------
    InputError
        If the file has no columns `cluster` and `name`, or a cluster that is no number.
    """
    path = data_root / NAMES.format(descriptor=descriptor)
    if not path.exists():
        return {}
    given = read_csv(path)
    if not {"cluster", "name"} <= set(given.columns):
        raise InputError(f"{path} needs the columns 'cluster' and 'name', it has {', '.join(given.columns)}")
    numbers = pd.to_numeric(given["cluster"], errors="coerce")
    if numbers.isna().any():
        line = int(numbers.isna().to_numpy().argmax()) + 2
        raise InputError(f"{path}, line {line}: {given['cluster'].iloc[line - 2]!r} is no cluster number")
    named = given["name"].notna()
    return dict(zip(numbers[named].astype(int), given["name"][named].astype(str), strict=True))
