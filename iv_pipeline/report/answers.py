"""What is known of the images: how many values are settled, and what to ask next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from iv_pipeline.learn.attributes import settled_share
from iv_pipeline.report.sections import texts

if TYPE_CHECKING:
    import pandas as pd

_SUFFIX = "_confidence"


@dataclass(frozen=True)
class Attribute:
    """One attribute of all images.

    Attributes
    ----------
    name
        As it is configured.
    settled
        Share of the images whose confidence is at least `iv_pipeline.learn.attributes.SETTLED`.
    expected
        Share of the images whose value is expected to be right: their mean confidence.
    counts
        Each value and how many images have it, the most frequent first.
    """

    name: str
    settled: float
    expected: float
    counts: list[tuple[str, int]]


@dataclass(frozen=True)
class Answers:
    """What the page opens with.

    Attributes
    ----------
    attributes
        In the order of the configuration.
    n_questions
        That are asked next.
    """

    attributes: list[Attribute]
    n_questions: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been answered yet."""
        return not any(attribute.counts for attribute in self.attributes)


def describe_answers(attributes: pd.DataFrame | None, review: pd.DataFrame | None) -> Answers | None:
    """What stages `attributes` and `review` say; None where no attributes are configured."""
    names = [] if attributes is None else [c for c in attributes if f"{c}{_SUFFIX}" in attributes]
    if attributes is None or not names:
        return None
    found = []
    for name in names:
        values, confidence = texts(attributes[name]), attributes[f"{name}{_SUFFIX}"].fillna(0)
        counts = values[values != ""].value_counts()
        found.append(
            Attribute(
                str(name),
                settled_share(confidence.to_numpy()),
                float(confidence.mean()),
                [(str(value), int(n)) for value, n in counts.items()],
            )
        )
    return Answers(found, 0 if review is None else len(review))
