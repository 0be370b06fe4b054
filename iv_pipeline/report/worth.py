"""What answers are worth by true labels, and which descriptor tells which attribute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iv_pipeline.report import plots
from iv_pipeline.report.sections import Plot, plot_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Effort:
    """What is known of an attribute after some answers; shares of the images that nobody looked at.

    Attributes
    ----------
    attribute
        Its name.
    n_answers
        Answers given.
    accuracy, at_random
        Share that is right, and what as many single images at random give.
    coverage
        Largest share, those of the highest confidence, of which 95 % are right.
    calibration_error
        Mean difference of confidence and accuracy over ten bins.
    """

    attribute: str
    n_answers: int
    accuracy: float
    at_random: float
    coverage: float
    calibration_error: float


@dataclass(frozen=True)
class Matrix:
    """Accuracy of the clusters of each descriptor, a row, for each attribute, a column; NaN where unknown."""

    judged_by: str
    descriptors: list[str]
    attributes: list[str]
    cells: list[list[float]]


@dataclass(frozen=True)
class Worth:
    """What the section shows.

    Attributes
    ----------
    efforts
        By attribute and number of answers; empty without true labels.
    ceilings
        Accuracy that all labels give, by attribute.
    curves
        The same as a plot.
    matrices
        By people's answers and by true labels, those that there are.
    """

    efforts: list[Effort]
    ceilings: dict[str, float]
    curves: Plot | None
    matrices: list[Matrix]


def describe_worth(evaluation: pd.DataFrame | None, descriptor_accuracy: pd.DataFrame | None) -> Worth | None:
    """What these stages found; None if neither found anything."""
    has_curve = evaluation is not None and len(evaluation) > 0
    has_matrix = descriptor_accuracy is not None and len(descriptor_accuracy) > 0
    if not has_curve and not has_matrix:
        return None
    every = evaluation[evaluation["strategy"] == "all labels"] if evaluation is not None else None
    return Worth(
        _efforts(evaluation) if evaluation is not None else [],
        {} if every is None else dict(zip(every["attribute"], every["accuracy"].astype(float), strict=True)),
        plot_of(plots.learning_curves, evaluation),
        _matrices(descriptor_accuracy) if descriptor_accuracy is not None else [],
    )


def _efforts(evaluation: pd.DataFrame) -> list[Effort]:
    key = ["attribute", "n_answers"]
    random = evaluation[evaluation["strategy"] == "random"].set_index(key)["accuracy"]
    asked = evaluation[evaluation["strategy"] == "questions"]
    columns = asked[[*key, "accuracy", "coverage_95", "calibration_error"]]
    return [
        Effort(name, n, accuracy, float(random.get((name, n), np.nan)), coverage, error)
        for name, n, accuracy, coverage, error in columns.itertuples(index=False)
    ]


def _matrices(accuracy: pd.DataFrame) -> list[Matrix]:
    found = []
    for judged_by, rows in accuracy.groupby("judged_by", sort=True):
        table = rows.pivot_table(index="descriptor", columns="attribute", values="accuracy", sort=False)
        cells = table.to_numpy(float).tolist()
        found.append(
            Matrix(str(judged_by), list(map(str, table.index)), list(map(str, table.columns)), cells)
        )
    return found
