"""What became of every image and every name since the run before."""

from __future__ import annotations

import numpy as np
import pandas as pd

NOW = {"cluster": "Int32", "name": "string", "is_outlier": "boolean"}
"""What is compared, and its types; all of them know missing values."""
_AS_BEFORE = {column: f"{column}_before" for column in NOW}


def since(now: pd.DataFrame, stored: pd.DataFrame | None) -> pd.DataFrame:
    """Every image's cluster, name and verdict beside those of the run before.

    Parameters
    ----------
    now
        Columns `image_path`, `cluster`, `name`, `is_outlier`, one row an image.
    stored
        What this function gave for the run before; None if there was none.

    Returns
    -------
    pandas.DataFrame
        `image_path`, `cluster`, `name`, `is_outlier`, the same three with ``_before``, and `change`: ``new`` or
        ``gone``, if only one of the runs has the image, ``moved``, if its cluster has another number, ``kept``
        otherwise. Images that are gone come last. If nothing has changed, `stored` as it is: a run that is run
        again does not make the change before it forgotten.
    """
    state = _typed(now)
    if stored is None:
        return _beside(state, state.iloc[:0])
    then = _typed(stored[stored["change"] != "gone"])
    return stored if then.equals(state) else _beside(state, then)


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    typed = frame[["image_path", *NOW]].reset_index(drop=True).astype({"image_path": "string", **NOW})
    return typed.assign(name=typed["name"].fillna(""))


def _beside(state: pd.DataFrame, then: pd.DataFrame) -> pd.DataFrame:
    before = then.rename(columns=_AS_BEFORE)
    gone = before[~before["image_path"].isin(state["image_path"])]
    frame = pd.concat([state.merge(before, on="image_path", how="left"), gone], ignore_index=True)
    is_new, is_gone = frame["cluster_before"].isna(), frame["cluster"].isna()
    moved = (frame["cluster"] != frame["cluster_before"]).fillna(False).astype(bool)
    change = np.select(
        [is_new.to_numpy(), is_gone.to_numpy(), moved.to_numpy()], ["new", "gone", "moved"], "kept"
    )
    return frame.assign(change=change)


def count_changes(frame: pd.DataFrame) -> dict[str, int]:
    """How many images are new, gone, moved or kept, and flagged or not as before; how many clusters and names."""
    count = frame["change"].value_counts()
    both = frame[frame["change"].isin(["kept", "moved"])]
    flagged, was = both["is_outlier"].astype(bool), both["is_outlier_before"].astype(bool)
    names, earlier = (
        frame[frame[c].ge(0).fillna(False)].drop_duplicates(c).set_index(c)[n]  # noise is none
        for c, n in (("cluster", "name"), ("cluster_before", "name_before"))
    )
    known = names.index.intersection(earlier.index)
    return {
        **{f"images_{change}": int(count.get(change, 0)) for change in ("new", "gone", "moved", "kept")},
        "newly_flagged": int((flagged & ~was).sum()),
        "no_longer_flagged": int((~flagged & was).sum()),
        "clusters_renamed": int((names.loc[known] != earlier.loc[known]).sum()),
        "clusters_new": int((~names.index.isin(earlier.index)).sum()),
        "clusters_gone": int((~earlier.index.isin(names.index)).sum()),
    }
