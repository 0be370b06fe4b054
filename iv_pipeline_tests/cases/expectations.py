"""What can be expected of a delivery, as checks of what the product did with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score, homogeneity_score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from iv_pipeline_tests.cases.running import Outcome

ALARM = "dangerous|attack|malicious|execut|wants to|run code|untrusted|do not trust"
"""Words that are for files that would harm those who load them."""
_NOT_IN_WORDS = re.compile(r"object at 0x|0x[0-9a-f]{6,}|\w+(Error|Exception|Warning)\b|<[\w.]+ ")
"""What stands in the text of an exception and is not for people."""


@dataclass(frozen=True)
class Expectation:
    """One thing that is expected.

    Attributes
    ----------
    words
        The thing, briefly.
    objection
        Says what is wrong; empty if nothing is.
    """

    words: str
    objection: Callable[[Outcome], str]


def either(*expectations: Expectation) -> Expectation:
    """One of several."""

    def objection(outcome: Outcome) -> str:
        found = [expectation.objection(outcome) for expectation in expectations]
        return "" if "" in found else "neither: " + "; nor: ".join(found)

    return Expectation(" or ".join(e.words for e in expectations), objection)


def both(*expectations: Expectation) -> Expectation:
    """All of several."""

    def objection(outcome: Outcome) -> str:
        found = [expectation.objection(outcome) for expectation in expectations]
        return "; ".join(dict.fromkeys(filter(None, found)))

    return Expectation(", ".join(e.words for e in expectations), objection)


# How it ends and what is said


def finishes() -> Expectation:
    """It does all that it was asked to."""
    return Expectation("finishes", lambda outcome: "" if outcome.finished else outcome.happened)


def refused(*words: str) -> Expectation:
    """It stops, with one sentence that has all `words` (regular expressions) and no traceback."""

    def objection(outcome: Outcome) -> str:
        if outcome.finished:
            return f"it is not refused ({outcome.happened})"
        if outcome.has_traceback:
            return outcome.happened
        return "" if any(_has(line, words) for line in outcome.errors) else _lacks(outcome, words)

    return Expectation(f"refused with {_quoted(words)}", objection)


def says(*words: str, once: bool = False) -> Expectation:
    """A warning on the console has all `words`; `once`: and there are no two such."""

    def objection(outcome: Outcome) -> str:
        found = {line for line in outcome.warnings if _has(line, words)}
        if once and len(found) > 1:
            return f"{len(found)} warnings with {_quoted(words)}"
        return "" if found else _lacks(outcome, words)

    return Expectation(f"says {_quoted(words)}", objection)


def never_says(word: str) -> Expectation:
    """Nothing that is printed has `word`."""

    def objection(outcome: Outcome) -> str:
        found = [line for line in outcome.lines if re.search(word, line, re.IGNORECASE)]
        return f"it says: {found[0]}" if found else ""

    return Expectation("no false alarm", objection)


def reports(*words: str) -> Expectation:
    """The page has a paragraph, item or row with all `words`."""

    def objection(outcome: Outcome) -> str:
        page = outcome.stored("report")
        if page is None:
            return "there is no report"
        text = re.sub(r"(?s)<(script|style).*?</\1>", "", page)
        blocks = re.split(r"</?(?:p|li|tr|div|section|h\d|summary|ul|table)\b[^>]*>", text)
        return (
            "" if any(_has(re.sub(r"<[^>]+>", "", b), words) for b in blocks) else f"not on the page: {words}"
        )

    return Expectation(f"the page has {_quoted(words)}", objection)


def _has(line: str, words: Iterable[str]) -> bool:
    return all(re.search(word, line, re.IGNORECASE) for word in words)


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _lacks(outcome: Outcome, words: Sequence[str]) -> str:
    return f"no sentence with {_quoted(words)}; it says: {outcome.happened}"


def before_work() -> Expectation:
    """It stops before pictures are measured or anything is fitted."""

    def objection(outcome: Outcome) -> str:
        made = [asset for asset in ("views", "image_quality") if outcome.stored(asset) is not None]
        return f"made before: {', '.join(made)}" if made else ""

    return Expectation("before any work", objection)


# What is read


def images(n: int) -> Expectation:
    """The index has `n` images, with the paths of the delivery, or what is left of absolute ones."""

    def objection(outcome: Outcome) -> str:
        index = outcome.stored("image_index")
        if index is None:
            return outcome.happened
        wanted = [path.replace("\\", "/") for path in outcome.made.base.paths]
        if len(index) != n:
            return f"{len(index)} images"
        pairs = zip(wanted, index["image_path"], strict=True)
        return "" if all(path.endswith(found) for path, found in pairs) else "other paths than the delivery's"

    return Expectation(f"{n} images", objection)


def vectors() -> Expectation:
    """All images, and for each descriptor the vectors that the delivery was made of, row by row."""

    def objection(outcome: Outcome) -> str:
        if not outcome.finished:
            return outcome.happened
        base = outcome.made.base
        for name, wanted in (("vdc_type", base.X1), ("vdc_color", base.X2)):
            found = _vectors(outcome, name)
            if found.shape != wanted.shape:
                return f"{name} is {found.shape[0]} × {found.shape[1]}"
            if not np.array_equal(found, wanted):
                return f"{name} has other numbers"
        return ""

    return Expectation("read, every vector in its row", objection)


def _vectors(outcome: Outcome, name: str) -> NDArray[np.float32]:
    stored: NDArray[np.float32] = outcome.stored("init", name).vectors("descriptor").to_array()
    return stored


def measured(n: int, *, but: Iterable[int] = (), because: str = "") -> Expectation:
    """The quality of `n` pictures is known; that of the rows `but` is not, `because`."""
    but = list(but)

    def objection(outcome: Outcome) -> str:
        quality = outcome.stored("image_quality")
        if quality is None:
            return outcome.happened
        found = quality["error"].isna()
        if found.sum() != n:
            return f"{found.sum()} pictures measured ({outcome.happened})"
        wrong = [row for row in but if found[row] or not _has(str(quality["error"][row]), [because])]
        return f"row {wrong[0]} has the error {quality['error'][wrong[0]]!r}" if wrong else ""

    return Expectation(f"{n} pictures measured", objection)


def reasons_in_words() -> Expectation:
    """No class, address or absolute path among the reasons of pictures."""

    def objection(outcome: Outcome) -> str:
        quality = outcome.stored("image_quality")
        if quality is None:
            return outcome.happened
        told = [*quality["error"].dropna(), *quality["reasons"]]
        wrong = [text for text in told if _NOT_IN_WORDS.search(text) or str(outcome.made.folder) in text]
        return f"a reason is {wrong[0]!r}" if wrong else ""

    return Expectation("reasons in words", objection)


# What comes out


def labelled(n: int) -> Expectation:
    """Every Final CSV has `n` images, and scores that are numbers."""

    def objection(outcome: Outcome) -> str:
        for name in outcome.config.partitions:
            final = outcome.final(name)
            if final is None:
                return f"no results of {name}: {outcome.happened}"
            numbers = final[["confidence", "outlier_score"]].apply(pd.to_numeric, errors="coerce")
            if len(final) != n or not np.isfinite(numbers.to_numpy()).all():
                return (
                    f"{name} has {len(final)} rows, {int(numbers.isna().any(axis=1).sum())} without numbers"
                )
        return ""

    return Expectation(f"{n} images labelled", objection)


def results_of(name: str) -> Expectation:
    """A descriptor has its results, whatever became of others."""
    return Expectation(
        f"results of {name}", lambda outcome: "" if outcome.final(name) is not None else "none"
    )


def groups_found(n: int, *, but: Iterable[int] = ()) -> Expectation:
    """At least `n` clusters, none of which mixes true groups, by each descriptor; rows `but` do not count."""

    def objection(outcome: Outcome) -> str:
        truth = outcome.made.base.group
        rows = np.setdiff1d(np.arange(len(truth)), list(but))
        for name in outcome.config.descriptors:
            final = outcome.final(name)
            if final is None:
                return f"no results of {name}: {outcome.happened}"
            cluster = final["cluster"].to_numpy()[rows]
            purity = homogeneity_score(truth[rows], cluster)
            if purity < 0.95 or len(set(cluster) - {-1}) < n:
                sizes = sorted(np.unique(cluster, return_counts=True)[1].tolist(), reverse=True)
                rand = adjusted_rand_score(truth[rows], cluster)
                return f"{name} has clusters of {sizes} (homogeneity {purity:.2f}, Rand {rand:.2f})"
        return ""

    return Expectation(f"{n} groups found", objection)


def clusters_of(**counts: int) -> Expectation:
    """So many clusters by these descriptors."""

    def objection(outcome: Outcome) -> str:
        finals = {name: outcome.final(name) for name in counts}
        found = {k: -1 if f is None else len(set(f["cluster"]) - {-1}) for k, f in finals.items()}
        return "" if found == counts else f"clusters: {found}"

    return Expectation(", ".join(f"{n} clusters of {name}" for name, n in counts.items()), objection)


def equals_together() -> Expectation:
    """Images with one vector have one cluster."""

    def objection(outcome: Outcome) -> str:
        for name in outcome.config.partitions:
            final = outcome.final(name)
            if final is None:
                return f"no results of {name}: {outcome.happened}"
            _, same = np.unique(_vectors(outcome, name), axis=0, return_inverse=True)
            spread = final.groupby(same.ravel())["cluster"].nunique()
            if spread.max() > 1:
                return f"{name}: {(same == spread.idxmax()).sum()} equal vectors in {spread.max()} clusters"
        return ""

    return Expectation("equal vectors in one cluster", objection)


def unusable(
    name: str, rows: Iterable[int], *, perhaps: Iterable[int] = (), because: str = ""
) -> Expectation:
    """Just these rows have a status that says that (and `because`) they are unusable, and no cluster."""
    wanted, allowed = set(rows), set(rows) | set(perhaps)

    def objection(outcome: Outcome) -> str:
        final = outcome.final(name)
        if final is None:
            return f"no results of {name}: {outcome.happened}"
        status = final["status"].astype(str)
        found = set(np.flatnonzero(~status.isin(["ok", "noise"])).tolist())
        if not wanted <= found <= allowed:
            return f"{name}: {len(found)} rows with a status ({_few(found)}), not {_few(wanted)}"
        silent = [row for row in wanted if not _has(status[row], [because]) or final["cluster"][row] != -1]
        row = silent[0] if silent else 0
        return f"{name}, row {row}: cluster {final['cluster'][row]}, {status[row]!r}" if silent else ""

    return Expectation(f"status of {len(wanted)} rows of {name}", objection)


def _few(rows: Iterable[int]) -> str:
    rows = sorted(rows)
    return ", ".join(map(str, rows[:6])) + (", …" if len(rows) > 6 else "")


def outliers(name: str, rows: Iterable[int]) -> Expectation:
    """A descriptor flags these rows."""
    rows = list(rows)

    def objection(outcome: Outcome) -> str:
        final = outcome.final(name)
        if final is None:
            return f"no results of {name}: {outcome.happened}"
        missed = [row for row in rows if str(final["is_outlier"][row]) != "True"]
        return f"not flagged: {_few(missed)}" if missed else ""

    return Expectation(f"rows {_few(rows)} are outliers", objection)


def no_reason(word: str, rows: Iterable[int] | None = None) -> Expectation:
    """No reason among the ranked outliers has `word`, for certain rows or all."""

    def objection(outcome: Outcome) -> str:
        ranked, index = outcome.stored("ranked_outliers"), outcome.stored("image_index")
        if ranked is None:
            return f"no ranked outliers: {outcome.happened}"
        paths = index["image_path"] if rows is None else index["image_path"][list(rows)]
        reasons = ranked.loc[ranked["image_path"].isin(paths), "reasons"].fillna("").astype(str)
        found = reasons[reasons.str.contains(word)]
        return f"{len(found)} images have the reason {found.iloc[0]!r}" if len(found) else ""

    return Expectation(f"no reason '{word}'", objection)


def coordinates() -> Expectation:
    """Every image has a finite place on the maps."""

    def objection(outcome: Outcome) -> str:
        for name in outcome.config.partitions:
            places = outcome.stored("projection", name)
            if places is None:
                return f"no map of {name}: {outcome.happened}"
            if not np.isfinite(places[["x2", "y2", "x3", "y3", "z3"]].to_numpy(float)).all():
                return f"{name} has places that are no numbers"
        return ""

    return Expectation("places are numbers", objection)


def one_number_of_clusters() -> Expectation:
    """The summary and the Final CSVs agree on the number of clusters."""

    def objection(outcome: Outcome) -> str:
        summary = outcome.stored("summary")
        if summary is None:
            return f"no summary: {outcome.happened}"
        for row in summary.to_dict("records"):
            found = len(set(outcome.final(row["descriptor"])["cluster"]) - {-1})
            if int(row["n_clusters"]) != found:
                return f"{row['descriptor']}: {row['n_clusters']} in the summary, {found} in Final"
        return ""

    return Expectation("one number of clusters", objection)


def quality(words: str, row: int, holds: Callable[[pd.Series], bool]) -> Expectation:
    """Something about one row of the quality of pictures."""

    def objection(outcome: Outcome) -> str:
        table = outcome.stored("image_quality")
        if table is None:
            return outcome.happened
        found = table.loc[row]
        told = found[["width", "height", "overexposed_share", "brightness", "reasons", "error"]].to_dict()
        return "" if holds(found) else f"row {row} is {told}"

    return Expectation(words, objection)


def holds_through(words: str) -> Expectation:
    """A scenario of several steps found nothing wrong."""
    return Expectation(words, lambda outcome: "; ".join(outcome.objections))
