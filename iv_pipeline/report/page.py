"""The report: one HTML page that carries its pictures, and says first which labels to take."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from iv_pipeline.engine import map_ordered
from iv_pipeline.report.answers import describe_answers
from iv_pipeline.report.delivery import describe_delivery
from iv_pipeline.report.later import Later, describe_later
from iv_pipeline.report.maps import images_of, pack_text, points_of
from iv_pipeline.report.sections import (
    MAX_CARDS,
    changes_of,
    cross_tables,
    describe_descriptor,
    describe_quality,
    frequent_reasons,
    heat_maps,
    outlier_cards,
    single_descriptors,
)
from iv_pipeline.report.verdict import judge, summary_table
from iv_pipeline.report.worth import describe_worth

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from iv_pipeline.report.sections import DescriptorSection
    from iv_pipeline.storage.image_store import ImageStore

SHEETS_BYTES = 2_200_000
"""What the contact sheets of all clusters keep to together, so that the page can be sent by mail."""


@dataclass(frozen=True)
class ReportData:
    """What the page tells of; a descriptor that a dictionary lacks is shown as far as it is known.

    Attributes
    ----------
    summary
        One row a descriptor, best first.
    comparison
        Agreement of every pair of descriptors, and of algorithms.
    outliers
        All images, most suspicious first.
    trials, profiles, final, projection
        Frames of the stages `clustering_trials`, `cluster_profiles`, `final` and `projection`, by descriptor.
    changes
        Frames of that stage by descriptor.
    evaluation, descriptor_accuracy
        Frames of these stages; None or empty where there are no labels, and, for the latter, no answers.
    variance
        Explained variance ratio of the components behind each scaler, by descriptor.
    constant
        Numbers of the features that are the same in all images, by descriptor.
    names
        Names that people gave to clusters, by descriptor; also of clusters that are gone.
    crossings
        How clusters of one descriptor cross with those of another.
    images
        Column `image_path` in the order of the delivery, `label…` where there are true labels.
    later
        What has come since the first fit; None if nothing is known of it.
    archive
        The delivery's images; None where there are only descriptors.
    notices
        Sentences about the delivery.
    attributes, review
        Frames of these stages; None if there are none.
    """

    summary: pd.DataFrame
    comparison: pd.DataFrame
    outliers: pd.DataFrame
    images: pd.DataFrame
    trials: dict[str, pd.DataFrame] = field(default_factory=dict)
    profiles: dict[str, pd.DataFrame] = field(default_factory=dict)
    final: dict[str, pd.DataFrame] = field(default_factory=dict)
    changes: dict[str, pd.DataFrame] = field(default_factory=dict)
    projection: dict[str, pd.DataFrame] = field(default_factory=dict)
    variance: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)
    constant: dict[str, list[int]] = field(default_factory=dict)
    names: dict[str, dict[int, str]] = field(default_factory=dict)
    crossings: pd.DataFrame | None = None
    later: Later | None = None
    archive: ImageStore | None = None
    notices: list[str] = field(default_factory=list)
    attributes: pd.DataFrame | None = None
    review: pd.DataFrame | None = None
    evaluation: pd.DataFrame | None = None
    descriptor_accuracy: pd.DataFrame | None = None

    @property
    def descriptors(self) -> list[str]:
        """Names of all descriptors of which anything is known, best first."""
        parts = (self.summary["descriptor"].map(str), self.final, self.profiles, self.trials, self.projection)
        return list(dict.fromkeys(name for part in parts for name in part))


def render_report(data: ReportData) -> str:
    """The whole page: HTML with its style, script and pictures inside; it fetches nothing.

    Its size is bounded by the numbers of descriptors and clusters, but for the points of the maps: every image
    adds about 12 bytes a descriptor, and its path once.
    """
    sections = _sections(data)
    columns, rows = summary_table(data.summary)
    between, within = heat_maps(data.comparison)
    best = data.final.get(sections[0].name) if sections else None
    environment = _environment()
    images = images_of(data.images, data.outliers["image_path"], data.archive)
    has_maps = any(section.points for section in sections)
    library, hash_of_library = deck_gl() if has_maps else ("", "")
    scripts = [_text_of("page.js"), *([_text_of("map.js")] if has_maps else [])]
    hashes = [*map(_hash_of, scripts), hash_of_library]
    return environment.get_template("page.html").render(
        scripts=[Markup(script) for script in scripts],  # noqa: S704  (the package's own files)
        script_hashes=Markup(" ".join(hashes).strip()),  # noqa: S704
        library=library,
        images=images,
        labels=[label["title"] for label in images["labels"]],
        answers=describe_answers(data.attributes, data.review),
        worth=describe_worth(data.evaluation, data.descriptor_accuracy),
        verdict=judge(data.summary),
        about=describe_delivery(data.notices, data.final),
        changes=changes_of(data.changes, data.summary),
        later=describe_later(data.later),
        n_images=len(data.outliers),
        n_flagged=None if best is None else int(best["is_outlier"].sum()),
        sections=sections,
        keys={section.name: section.key for section in sections},
        columns=columns,
        rows=rows,
        outliers=outlier_cards(data.outliers, data.archive),
        reasons=frequent_reasons(data.outliers),
        between=between,
        within=within,
        crossed=cross_tables(data.crossings, single_descriptors(data.summary), data.profiles, data.names),
        quality=describe_quality(data.final, data.outliers["image_path"], data.archive),
        constant={name: features for name, features in data.constant.items() if features},
        n_varying=sum(not features for features in data.constant.values()),
        has_archive=data.archive is not None,
    )


def _sections(data: ReportData) -> list[DescriptorSection]:
    n_sheets = sum(min(len(profiles), MAX_CARDS) for profiles in data.profiles.values())
    names = data.descriptors

    def describe(i: int) -> DescriptorSection:
        name = names[i]
        final, projection, profiles = (
            part.get(name) for part in (data.final, data.projection, data.profiles)
        )
        given = data.names.get(name, {})
        return describe_descriptor(
            f"descriptor-{i + 1}",
            name,
            data.trials.get(name),
            profiles,
            final,
            projection,
            data.variance.get(name),
            given,
            points_of(final, projection, profiles, given, data.images["image_path"]),
            SHEETS_BYTES // max(n_sheets, 1),
        )

    return list(map_ordered(describe, len(names)))  # while one encodes pictures, another plots


def _text_of(file: str) -> str:
    return importlib.resources.files("iv_pipeline.report").joinpath(file).read_text(encoding="utf-8")


@cache
def deck_gl() -> tuple[str, str]:
    """The script of deck.gl, which draws the maps, as its Python package carries it: packed, and its hash."""
    bundle = importlib.resources.files("pydeck").joinpath("nbextension", "static", "index.js")
    script = bundle.read_text(encoding="utf-8")
    return pack_text(script), _hash_of(script)


def _hash_of(script: str) -> str:
    """By which the page's policy knows its own scripts; whatever else calls itself one is not run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _environment() -> Environment:
    """Templates beside this module; whatever is put into them is text, never markup."""
    environment = Environment(
        loader=PackageLoader("iv_pipeline.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(score=_score, ratio=_ratio, count=_count, percent=_percent)
    return environment


def _score(value: float) -> str:
    return _number(value, ".3f")


def _ratio(value: float) -> str:
    return _number(value, ".2f")


def _count(value: float) -> str:
    return _number(value, ",.0f")


def _percent(value: float) -> str:
    written = _number(100 * value, ".1f" if abs(value) < 0.0995 else ".0f")
    return f"{written}\u00a0%" if np.isfinite(value) else written


def _number(value: float, style: str) -> str:
    """A number as text with a true minus; a dash where there is none."""
    return format(value, style).replace("-", "−") if np.isfinite(value) else "–"
