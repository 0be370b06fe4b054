"""What each part of the page says, ready to be written into its template: frames in, plain values out."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from iv_pipeline.engine import map_ordered
from iv_pipeline.learn.changes import count_changes
from iv_pipeline.learn.comparison import square
from iv_pipeline.learn.selection import described
from iv_pipeline.report import plots
from iv_pipeline.report.pictures import data_uri, fit_bytes, thumbnails

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from iv_pipeline.storage.image_store import ImageStore

MAX_CARDS = 100
"""Clusters of a descriptor that the page shows, the largest ones."""
MAX_OUTLIERS = 40
MAX_REASONS = 12
MAX_TRIALS = 12
MAX_PATHS = 20
MAX_CROSSED = 12
"""Clusters of a descriptor that a cross table shows, the largest ones."""

_SWATCHES = {
    "white": "#f4f4f2",
    "grey": "#8f959c",
    "black": "#1d1f22",
    "red": "#c8323c",
    "orange": "#e2812b",
    "yellow": "#e6c437",
    "green": "#45935a",
    "blue": "#3a6fc0",
    "purple": "#80529f",
    "pink": "#dc8fae",
    "brown": "#85603f",
}
_STATUS_ORDER = {"ok": 0, "noise": 1}


@dataclass(frozen=True)
class Bar:
    """Size of one cluster beside the largest; noise is cluster −1."""

    cluster: int
    size: int
    height: float
    color: str


@dataclass(frozen=True)
class ClusterCard:
    """One cluster; numbers that are unknown are NaN, words that are unknown are empty."""

    cluster: int
    ink: str
    name: str
    given: str
    proposed: str
    size: int
    share: float
    color: str
    swatch: str
    label: str
    label_share: float
    identity: float
    cohesion: float
    separation: float
    nearest: int | None
    evidence: str
    sheet: str


@dataclass(frozen=True)
class HeatMap:
    """Agreement of every pair; ``cells[i][j]`` is NaN where it is unknown."""

    title: str
    shows_title: bool
    names: list[str]
    cells: list[list[float]]


@dataclass(frozen=True)
class CrossTable:
    """Of each cluster of one descriptor, the shares that fall into those of another; rows and columns by size."""

    first: str
    second: str
    rows: list[str]
    columns: list[str]
    cells: list[list[float]]


@dataclass(frozen=True)
class Change:
    """What the run before said otherwise about one descriptor; ranks are NaN where they are unknown."""

    descriptor: str
    rank: float
    previous_rank: float
    is_first: bool
    counts: dict[str, int]


@dataclass(frozen=True)
class Plot:
    """One plot as data URIs, drawn for light pages and for dark ones; sizes in CSS pixels."""

    light: str
    dark: str
    width: int
    height: int


@dataclass(frozen=True)
class DescriptorSection:
    """All that is known of one descriptor; a part whose stage has not run is empty."""

    key: str
    name: str
    reason: str
    n_images: int
    n_clusters: int
    map_uri: str
    points: dict[str, Any] | None
    curve: Plot | None
    variance: Plot | None
    criterion: str
    trials: list[dict[str, Any]]
    dropped: str
    bars: list[Bar]
    cards: list[ClusterCard]
    names_elsewhere: dict[int, str]


@dataclass(frozen=True)
class OutlierCard:
    """One suspicious image; `picture` is empty where there is none, and `note` says why."""

    rank: int
    path: str
    score: float
    quality_score: float
    anomaly: float
    reasons: list[str]
    picture: str
    note: str


@dataclass(frozen=True)
class Quality:
    """How many rows of each descriptor could be used, and which could not."""

    statuses: list[str]
    counts: list[tuple[str, list[int]]]
    unusable: list[tuple[str, list[str]]]
    n_unusable: int
    missing: list[str]
    n_missing: int


def text(value: object) -> str:
    """A cell as text; empty cells of CSV and Parquet come back as NaN, None or NA."""
    is_nan = isinstance(value, float | np.floating) and np.isnan(value)
    return "" if value is None or value is pd.NA or is_nan else str(value)


def texts(values: pd.Series[Any]) -> pd.Series[str]:
    """All cells of a column as `text`, at once."""
    return values.astype(object).where(values.notna(), "").astype(str)


def number(value: object) -> float:
    """A cell as a number, NaN where there is none."""
    if isinstance(value, int | float | np.integer | np.floating):  # pandas takes a thousand times as long
        return float(value)
    return float(pd.to_numeric(pd.Series([value], dtype=object), errors="coerce").astype(float).iloc[0])


def describe_descriptor(
    key: str,
    name: str,
    trials: pd.DataFrame | None,
    profiles: pd.DataFrame | None,
    final: pd.DataFrame | None,
    projection: pd.DataFrame | None,
    variance: Mapping[str, NDArray[np.float64]] | None,
    given: Mapping[int, str],
    points: dict[str, Any] | None,
    sheet_bytes: int,
) -> DescriptorSection:
    """Maps, curves and cards of one descriptor from the stages that there are.

    Parameters
    ----------
    key
        Start of the section's anchors in the page.
    name
        Of the descriptor.
    trials, profiles, final, projection
        Frames of its stages, None where a stage has not run.
    variance
        Explained variance ratio of its components behind each scaler.
    given
        Names that people gave to its clusters.
    points
        What its maps show, as `iv_pipeline.report.maps.points_of` makes it.
    sheet_bytes
        What each contact sheet keeps to.
    """
    won = trials[trials["won"].astype(bool)] if trials is not None else None
    sizes = _sizes(final, profiles)
    cards = [] if profiles is None else _cards(profiles, given, sheet_bytes)
    shown = {card.cluster for card in cards}
    return DescriptorSection(
        key=key,
        name=name,
        reason=text(won["reason"].iloc[0]) if won is not None and len(won) else "",
        n_images=0 if final is None else len(final),
        n_clusters=int((sizes.index >= 0).sum()),
        map_uri=_map(final, projection),
        points=points,
        curve=plot_of(plots.selection_curve, trials),
        variance=plot_of(plots.variance_curve, variance),
        criterion="" if trials is None or trials.empty else str(trials["criterion"].iloc[0]),
        trials=_best_trials(trials),
        dropped=_dropped(trials),
        bars=_bars(sizes),
        cards=cards,
        names_elsewhere={cluster: name for cluster, name in given.items() if cluster not in shown},
    )


def _sizes(final: pd.DataFrame | None, profiles: pd.DataFrame | None) -> pd.Series[int]:
    """Images of each cluster, largest first, noise last."""
    if final is not None:
        usable = final[~texts(final["status"]).str.startswith("unusable")]
        counts = usable["cluster"].astype(int).value_counts()
    elif profiles is not None:
        counts = profiles.set_index("cluster")["size"].astype(int)
    else:
        return pd.Series(dtype=int, index=pd.Index([], dtype=int))
    order = sorted(counts.index, key=lambda cluster: (cluster < 0, -counts[cluster], cluster))
    return counts.loc[order]


def _bars(sizes: pd.Series[int]) -> list[Bar]:
    shown = pd.concat([sizes[sizes.index >= 0].head(MAX_CARDS), sizes[sizes.index < 0]])
    largest = max(shown.max(), 1) if len(shown) else 1
    return [
        Bar(cluster, size, round(100 * size / largest, 2), plots.cluster_color(cluster))
        for cluster, size in zip(shown.index.to_list(), shown.to_list(), strict=True)
    ]


def _map(final: pd.DataFrame | None, projection: pd.DataFrame | None) -> str:
    if final is None or projection is None:
        return ""
    at = projection.drop_duplicates("image_path").set_index("image_path")[["x2", "y2"]]
    coordinates = at.reindex(final["image_path"]).to_numpy(np.float32)
    return data_uri(plots.map_2d(coordinates, final["cluster"].to_numpy(np.int32), size=4.6))


def plot_of(draw: Callable[..., bytes], data: pd.DataFrame | Mapping[str, Any] | None) -> Plot | None:
    """What `draw` makes of `data` for both kinds of pages; None where there is nothing to draw."""
    if data is None or len(data) == 0:
        return None
    light = draw(data, transparent=True)
    width, height = Image.open(io.BytesIO(light)).size
    return Plot(data_uri(light), data_uri(plots.on_dark(light)), width, height)


def _best_trials(trials: pd.DataFrame | None) -> list[dict[str, Any]]:
    if trials is None or trials.empty:
        return []
    criterion = str(trials["criterion"].iloc[0])
    best = trials.sort_values(["won", "round", criterion], ascending=False, kind="stable").head(MAX_TRIALS)
    best["vectors"] = [described(*pair) for pair in best[["scaler", "representation"]].to_numpy()]
    columns = [
        "vectors",
        "algorithm",
        "n_clusters",
        "predictability",
        "stability",
        "silhouette",
        "round",
        "won",
    ]
    return best.reindex(columns=columns).to_dict("records")  # type: ignore[return-value]


def _dropped(trials: pd.DataFrame | None) -> str:
    """Which vectors the first round dropped, the best of them first, in a sentence; empty if it dropped none."""
    if trials is None or trials.empty:
        return ""
    early = trials[trials["round"] < 2].sort_values(str(trials["criterion"].iloc[0]), ascending=False)
    if early.empty or (trials["round"] < 2).all():
        return ""
    names = [described(*pair) for pair in early[["scaler", "representation"]].to_numpy()]
    n_rows, algorithm = int(early["n_rows"].iloc[0]), early["algorithm"].iloc[0]
    dropped = ", ".join(dict.fromkeys(names))
    return f"Dropped in round 1, by {algorithm} on {n_rows:,} images: {dropped}."


def _cards(profiles: pd.DataFrame, given: Mapping[int, str], sheet_bytes: int) -> list[ClusterCard]:
    shown = profiles.sort_values(["size", "cluster"], ascending=[False, True]).head(MAX_CARDS)
    known = set(shown["cluster"].astype(int))
    rows = shown.to_dict("records")
    return list(map_ordered(lambda i: _card(rows[i], given, known, sheet_bytes), len(rows)))


def _card(row: Mapping[Any, Any], given: Mapping[int, str], known: set[int], sheet_bytes: int) -> ClusterCard:
    cluster = int(row["cluster"])
    proposed = text(row["proposed_name"])
    color = text(row["color"])
    nearest = number(row["nearest_cluster"])
    # a cluster of which no image could be read has no brightness, and a sheet of empty tiles
    seen = np.isfinite(number(row["brightness"])) and isinstance(row["contact_sheet"], bytes)
    return ClusterCard(
        cluster=cluster,
        ink=plots.cluster_color(cluster),
        name=given.get(cluster) or proposed,
        given=given.get(cluster, ""),
        proposed=proposed,
        size=int(row["size"]),
        share=number(row["share"]),
        color=color,
        swatch=_SWATCHES.get(color.split(" ")[-1], ""),
        label=text(row["majority_label"]),
        label_share=number(row["majority_share"]),
        identity=number(row.get("identity_agreement")),
        cohesion=number(row["cohesion"]),
        separation=number(row["separation"]),
        nearest=int(nearest) if nearest in known else None,
        evidence=text(row["evidence"]),
        sheet=data_uri(fit_bytes(row["contact_sheet"], sheet_bytes)) if seen else "",
    )


def changes_of(changes: Mapping[str, pd.DataFrame], summary: pd.DataFrame) -> list[Change]:
    """What changed since the run before, by descriptor in the order of the summary."""
    ranks = summary.reindex(columns=["descriptor", "rank", "previous_rank"]).set_index("descriptor")
    order = [*ranks.index.map(str), *changes]
    return [
        Change(
            name,
            number(ranks["rank"].get(name)),
            number(ranks["previous_rank"].get(name)),
            bool((changes[name]["change"] == "new").all()),
            count_changes(changes[name]),
        )
        for name in dict.fromkeys(order)
        if name in changes
    ]


def heat_maps(comparison: pd.DataFrame) -> tuple[HeatMap | None, list[HeatMap]]:
    """Agreement between descriptors (None with fewer than two), and between algorithms by descriptor."""
    between = comparison[comparison["kind"] == "descriptor"]
    within = comparison[comparison["kind"] == "algorithm"]
    algorithms = [
        _heat_map(pairs, text(name), True) for name, pairs in within.groupby("descriptor", sort=False)
    ]
    return (None if between.empty else _heat_map(between, "Descriptors", False)), algorithms


def _heat_map(pairs: pd.DataFrame, title: str, shows_title: bool) -> HeatMap:
    table = square(pairs, "adjusted_mutual_information")
    return HeatMap(title, shows_title, [str(name) for name in table.columns], table.to_numpy(float).tolist())


def single_descriptors(summary: pd.DataFrame) -> list[str]:
    """Those that combine no others, best first."""
    gained = summary.reindex(columns=["combining_gain"])["combining_gain"]
    return summary.loc[gained.isna(), "descriptor"].map(str).to_list()


def cross_tables(
    crossings: pd.DataFrame | None,
    descriptors: Sequence[str],
    profiles: Mapping[str, pd.DataFrame],
    given: Mapping[str, Mapping[int, str]],
) -> list[CrossTable]:
    """How the largest clusters of each of `descriptors` cross with those of each after it, by their names."""
    if crossings is None or crossings.empty:
        return []
    tables = []
    for first, second in combinations(descriptors, 2):
        pairs = crossings[(crossings["first"] == first) & (crossings["second"] == second)]
        if pairs.empty:
            continue
        share = pairs.pivot_table(index="cluster", columns="other_cluster", values="share", fill_value=0)
        rows, columns = (_largest(pairs, column) for column in ("cluster", "other_cluster"))
        cells = share.loc[rows, columns].to_numpy(float).tolist()
        tables.append(
            CrossTable(
                first,
                second,
                _named(rows, profiles.get(first), given.get(first, {})),
                _named(columns, profiles.get(second), given.get(second, {})),
                cells,
            )
        )
    return tables


def _largest(pairs: pd.DataFrame, column: str) -> list[int]:
    return [int(number) for number in pairs.groupby(column)["images"].sum().nlargest(MAX_CROSSED).index]


def _named(clusters: Sequence[int], profiles: pd.DataFrame | None, given: Mapping[int, str]) -> list[str]:
    """Number and name of clusters, as far as they have one."""
    names: dict[int, str] = {}
    if profiles is not None:
        names = dict(zip(profiles["cluster"].astype(int), profiles["proposed_name"].map(text), strict=True))
    names |= given
    return [f"{cluster} {names.get(cluster, '')}".strip() for cluster in clusters]


def outlier_cards(outliers: pd.DataFrame, archive: ImageStore | None) -> list[OutlierCard]:
    """The most suspicious images, with thumbnails where the archive has them."""
    shown = outliers.head(MAX_OUTLIERS)
    pictures = thumbnails(archive, shown["image_path"].map(str).to_list())
    return [
        OutlierCard(
            rank=rank,
            path=str(row["image_path"]),
            score=number(row["score"]),
            quality_score=number(row["quality_score"]),
            anomaly=number(row["anomaly"]),
            reasons=_reasons(row["reasons"]),
            picture="" if picture is None else data_uri(picture),
            note=note,
        )
        for rank, (row, (picture, note)) in enumerate(
            zip(shown.to_dict("records"), pictures, strict=True), start=1
        )
    ]


def frequent_reasons(outliers: pd.DataFrame) -> list[tuple[str, int]]:
    """Kinds of reasons, which end before the colon, and how many images have each; most frequent first."""
    given = outliers["reasons"].dropna().astype(str)
    kinds = given[given != ""].str.split("; ").explode().str.split(": ").str[0]
    counts = kinds.value_counts().head(MAX_REASONS)
    return [(str(kind), int(count)) for kind, count in counts.items()]


def _reasons(value: object) -> list[str]:
    """The reasons one by one."""
    return [reason for reason in text(value).split("; ") if reason]


def describe_quality(
    final: Mapping[str, pd.DataFrame], paths: pd.Series[str], archive: ImageStore | None
) -> Quality:
    """Rows by status, the unusable ones by name, and the images that the archive lacks."""
    counts = {name: texts(frame["status"]).value_counts() for name, frame in final.items()}
    statuses = sorted(
        {s for c in counts.values() for s in c.index}, key=lambda s: (_STATUS_ORDER.get(s, 2), s)
    )
    where: dict[str, list[str]] = {}
    for name, frame in final.items():
        for path in frame["image_path"][texts(frame["status"]).str.startswith("unusable")].map(str):
            where.setdefault(path, []).append(name)
    missing = [] if archive is None else archive.missing(paths.map(str).to_list())
    return Quality(
        statuses=statuses,
        counts=[(name, [int(c.get(status, 0)) for status in statuses]) for name, c in counts.items()],
        unusable=list(where.items())[:MAX_PATHS],
        n_unusable=len(where),
        missing=list(missing[:MAX_PATHS]),
        n_missing=len(missing),
    )
