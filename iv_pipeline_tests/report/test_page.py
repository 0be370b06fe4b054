from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import itertools
import re
import zlib
from dataclasses import dataclass, field, replace
from functools import cache
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iv_pipeline.config import REPRESENTATIONS
from iv_pipeline.learn.changes import since
from iv_pipeline.learn.evaluation import ACCURACY_COLUMNS
from iv_pipeline.learn.simulation import COLUMNS
from iv_pipeline.report.page import SHEETS_BYTES, ReportData, render_report
from iv_pipeline.report.pictures import data_uri, fit_bytes, thumbnails
from iv_pipeline.report.sections import MAX_CARDS, MAX_OUTLIERS, frequent_reasons
from iv_pipeline.report.verdict import VECTORS, judge

if TYPE_CHECKING:
    from collections.abc import Iterable

HOSTILE = "\"><script>alert('1')</script>&amp;{{ 7 * 7 }}"
VOID = {"meta", "img", "br", "source", "input"}


@dataclass
class Page(HTMLParser):
    """What a browser makes of the page: elements, and the text within each kind of them."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    stack: list[str] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.texts.append((self.stack[-1] if self.stack else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(text for tag, text in self.texts if tag not in {"style", "script"}).split())


def parse(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert not page.stack, f"left open: {page.stack}"
    return page


class Archive:
    """Images by path, in memory."""

    def __init__(self, images: dict[str, bytes]) -> None:
        self.images = images

    def glimpse(self, image_path: str) -> bytes | None:
        return self.images.get(image_path)

    def missing(self, image_paths: Iterable[str]) -> list[str]:
        return [path for path in image_paths if path not in self.images]


@cache
def picture(width: int = 60, height: int = 40, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def trials_of(score: float) -> pd.DataFrame:
    scores = {"predictability": score, "stability": score / 2, "silhouette": 0.1}
    rows = [
        {
            "scaler": "standard",
            "representation": "pca",
            "algorithm": "kmeans",
            "n_clusters": k,
            "round": 2,
            "n_rows": 2_000,
            **scores,
            "won": k == 4,
        }
        for k in (2, 4)
    ]
    dropped = {"scaler": "robust", "n_clusters": 4, "round": 1, "n_rows": 1_000}
    rows += [rows[0] | dropped, rows[1] | dropped | {"won": False}]
    return pd.DataFrame(rows).assign(criterion="predictability", reason=f"kmeans on standard ({score})")


def profiles_of(names: list[str], n_images: int, sheet: bytes | None) -> pd.DataFrame:
    n = len(names)
    return pd.DataFrame(
        {
            "cluster": range(n),
            "size": [n_images // n] * n,
            "share": [1 / n] * n,
            "cohesion": 0.5,
            "separation": 1.25,
            "nearest_cluster": [(i + 1) % n for i in range(n)],
            "color": "dark blue",
            "color_share": 0.75,
            "brightness": 0.4 if sheet else np.nan,
            "majority_label": "sedan",
            "majority_share": 0.8,
            "proposed_name": names,
            "evidence": "80% of the labelled images are 'sedan'",
            "contact_sheet": [sheet] * n,
        }
    )


def make(
    descriptors: tuple[str, ...] = ("type", "color"),
    n_images: int = 80,
    names: tuple[str, ...] = ("white sedan", "bus", "van", "bike"),
    paths: list[str] | None = None,
    sheet: bytes | None = None,
) -> ReportData:
    """A run in miniature: every stage there, an archive, a cluster a name."""
    rng = np.random.default_rng(0)
    paths = paths or [f"1/{i:05}.jpg" for i in range(n_images)]
    n = len(paths)
    cluster = np.arange(n) % len(names)
    scores = {d: 0.6 - 0.1 * i for i, d in enumerate(descriptors)}
    summary = pd.DataFrame(
        {
            "descriptor": list(descriptors),
            "rank": range(1, len(descriptors) + 1),
            "scaler": "standard",
            "representation": "pca",
            "algorithm": "kmeans",
            "n_clusters": len(names),
            "strength": list(scores.values()),
            "predictability": list(scores.values()),
            "identity": np.nan,
            "criterion": "predictability",
            "reason": [f"reason of {d}" for d in descriptors],
        }
    )
    final = pd.DataFrame(
        {
            "image_path": paths,
            "cluster": cluster,
            "confidence": 1.0,
            "is_outlier": np.arange(n) < 2,
            "outlier_score": 0.5,
            "status": "ok",
            "name": [names[c] for c in cluster],
        }
    )
    pairs = [("descriptor", "", *descriptors[:2])] if len(descriptors) > 1 else []
    pairs += [("algorithm", d, "kmeans", "hdbscan") for d in descriptors]
    comparison = pd.DataFrame(pairs, columns=["kind", "descriptor", "first", "second"])
    points = pd.DataFrame(rng.normal(size=(n, 5)), columns=["x2", "y2", "x3", "y3", "z3"], dtype=np.float32)
    points.insert(0, "image_path", paths)
    outliers = pd.DataFrame(
        {
            "image_path": paths,
            "score": np.linspace(1, 0, n),
            "reasons": ["glare: a bright blob; unusual vectors: type, color"] + [""] * (n - 1),
            "quality_score": 0.3,
            "anomaly": 0.2,
        }
    )
    return ReportData(
        summary=summary,
        comparison=comparison.assign(adjusted_rand=0.4, adjusted_mutual_information=0.47),
        outliers=outliers,
        images=pd.DataFrame({"image_path": paths, "label": [names[c] for c in cluster]}),
        trials={d: trials_of(score) for d, score in scores.items()},
        profiles={d: profiles_of(list(names), n, sheet or picture()) for d in descriptors},
        final={d: final.copy() for d in descriptors},
        projection={d: points.copy() for d in descriptors},
        archive=Archive(dict.fromkeys(paths, picture())),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(make())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return parse(html)


def test_the_page_opens_with_which_descriptor_labels_best_and_why(page: Page) -> None:
    first = page.text.index("type agrees best with the other descriptors")
    assert first < page.text.index("strength 0.600") < page.text.index("next is color with 0.500")
    assert "reason of type" in page.text
    facts = "Images 80 Clusters to name 4 Flagged as outliers 2 2.5 % Unusable rows 0 Descriptors 2"
    assert facts in page.text


def test_the_page_fetches_nothing_and_runs_nothing_but_its_own_script(page: Page) -> None:
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    texts = [text for tag, text in page.texts if tag == "script"]
    scripts = list(zip(page.all("script"), texts, strict=True))
    run = [text for attributes, text in scripts if not attributes]
    (library,) = (text for attributes, text in scripts if attributes.get("id") == "deck-gl")
    run.append(zlib.decompress(base64.b64decode(library)).decode())
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in run]
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}"
    assert len(run) == 3
    read = {attributes["type"] for attributes in page.all("script") if attributes}
    assert read == {"application/json", "application/octet-stream"}  # no browser runs these
    assert not page.all("link")
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    sources = [image["src"] for image in page.all("img")] + [s["srcset"] for s in page.all("source")]
    assert sources
    assert all((source or "").startswith("data:image/") for source in sources)
    assert all((link["href"] or "").startswith("#") for link in page.all("a"))


def test_the_page_can_be_read_without_seeing_it(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert all((image.get("alt") or "").strip() for image in page.all("img"))
    assert len(page.all("main")) == len(page.all("h1")) == 1
    assert all(nav["aria-label"] for nav in page.all("nav"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    assert all(header["scope"] in {"row", "col"} for header in page.all("th"))
    # what scrolls can be reached by keyboard, and says what it is
    for attributes in page.all("div"):
        if "scroll" in (attributes.get("class") or ""):
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]


def test_every_link_leads_to_one_place_of_the_page(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [link["href"] for link in page.all("a")]
    targets += [f"#{a['aria-labelledby']}" for _, a in page.elements if "aria-labelledby" in a]
    assert {(target or "")[1:] for target in targets} <= set(ids)


def test_each_cluster_has_a_card_with_its_picture_and_what_is_known(page: Page) -> None:
    for number, name in enumerate(("white sedan", "bus", "van", "bike")):
        assert f"Cluster {number} {name} 20 images · 25 %" in page.text
    assert "dark blue sedan 80 % cohesion 0.50 separation 1.25 from cluster 1" in page.text
    assert sum("Contact sheet" in (image["alt"] or "") for image in page.all("img")) == 8


def test_a_card_says_whether_photos_of_one_vehicle_stay_together_where_that_is_known(page: Page) -> None:
    assert "vehicles kept together" not in page.text
    data = make()
    data.profiles["type"]["identity_agreement"] = [0.83, np.nan, 0.5, 1.0]
    text = parse(render_report(data)).text
    assert "dark blue sedan 80 % vehicles kept together 83 % cohesion 0.50" in text
    assert text.count("vehicles kept together") == 3


def worth() -> dict[str, pd.DataFrame]:
    """What `evaluation` and `descriptor_accuracy` make of few labels and answers."""
    rows = [
        ("type", "questions", 25, 200, 0.5, 0.3, 0.2, 0.1, 0.04),
        ("type", "questions", 50, 380, 0.7, 0.5, 0.4, 0.1, 0.03),
        ("type", "random", 25, 25, 0.41, 0.1, 0.1, 0.1, 0.1),
        ("type", "all labels", 900, 900, 0.93, 1, 0.9, 0.8, 0.01),
        ("view", "questions", 25, 200, 0.86, 0.8, 0.7, 0.6, 0.02),
        ("view", "all labels", 900, 900, 0.98, 1, 1, 0.8, 0.01),
    ]
    judged = [
        ("type", "labels", "type", 900, 0.62, 1),
        ("type", "labels", "color", 900, 0.31, 2),
        ("view", "labels", "type", 900, 0.88, 1),
        ("type", "answers", "type", 120, 0.57, 1),
    ]
    return {
        "evaluation": pd.DataFrame(rows, columns=list(COLUMNS)),
        "descriptor_accuracy": pd.DataFrame(judged, columns=list(ACCURACY_COLUMNS)),
    }


def test_what_answers_are_worth_is_told_where_there_are_labels(page: Page) -> None:
    assert "What answers are worth" not in page.text
    text = parse(render_report(dataclasses.replace(make(), **worth()))).text
    assert "With all labels, these would be right: type 93 %, view 98 %." in text
    assert "type 25 50 % 41 % 20 % 0.04" in text
    assert "type 50 70 % – 40 % 0.03" in text
    assert "view 25 86 % – 70 % 0.02" in text


def test_which_descriptor_tells_what_is_told_by_answers_and_by_labels() -> None:
    text = parse(render_report(dataclasses.replace(make(), **worth()))).text
    by_answers, _, by_labels = text.partition("Which descriptor tells what, by true labels")
    caption = "Share of the images that get the right value from others in their cluster"
    assert f"Which descriptor tells what, by the answers {caption} type type 0.57" in by_answers
    assert by_labels.startswith(f" {caption} type view type 0.62 0.88 color 0.31 –")
    only_answers = worth()["descriptor_accuracy"].query("judged_by == 'answers'")
    text = parse(render_report(dataclasses.replace(make(), descriptor_accuracy=only_answers))).text
    assert "by the answers" in text
    assert "True labels judge here" not in text


def test_clusters_of_descriptors_are_crossed_by_name_but_not_those_of_combinations() -> None:
    data = make(descriptors=("type+color", "type", "color"))
    data.summary["combining_gain"] = [1.1, np.nan, np.nan]
    pairs = [
        ("type", 0, "color", 2, 30, 0.75),
        ("type", 0, "color", 1, 10, 0.25),
        ("type", 1, "color", 1, 9, 1.0),
    ]
    pairs += [("color", 2, "type", 0, 30, 1.0), ("type+color", 0, "type", 0, 20, 1.0)]
    columns = ["first", "cluster", "second", "other_cluster", "images", "share"]
    crossed = dataclasses.replace(data, crossings=pd.DataFrame(pairs, columns=columns))
    page = parse(render_report(crossed))
    assert [text for tag, text in page.texts if tag == "summary" and "×" in text] == ["type × color"]
    told = page.text[page.text.index("a row, the share in each cluster of color") :]
    assert "2 van 1 bus 0 white sedan 75 % 25 % 1 bus 100 %" in told
    assert "Combining" in page.text
    assert "1.10" in page.text


def test_what_changed_since_the_run_before_is_told_by_descriptor() -> None:
    data = make(descriptors=("type", "color", "osnet"))
    data.summary["previous_rank"] = [2.0, 1.0, np.nan]
    first = {name: since(frame, None) for name, frame in data.final.items()}
    page = parse(render_report(dataclasses.replace(data, changes=first)))
    assert "This is the first run" in page.text
    later = data.final["type"].assign(
        cluster=data.final["type"]["cluster"].where(np.arange(80) < 60, 0), is_outlier=False
    )
    changes = {"type": since(later, first["type"]), "color": first["color"]}
    text = parse(render_report(dataclasses.replace(data, changes=changes))).text
    told = text[text.index("What changed Against the last run") :]
    assert "type 1 was 2 0 0 15 19 % 0 2 0 0 0" in told
    assert "For the first time: color." in told
    assert "color 2 was 1" not in told


def test_a_name_that_a_person_gave_stands_before_the_proposed_one() -> None:
    data = make()
    page = parse(render_report(dataclasses.replace(data, names={"type": {1: "city bus", 99: "gone"}})))
    assert "Cluster 1 city bus" in page.text
    assert "Proposed name: bus." in page.text
    fields = [a for a in page.all("input") if a.get("data-cluster") == "1"]
    assert [(a["value"], a["placeholder"]) for a in fields] == [("city bus", "bus"), ("", "bus")]
    tools = [a for a in page.all("p") if "data-file" in a]
    assert [(a["data-file"], a["data-elsewhere"]) for a in tools] == [
        ("type.csv", '{"99": "gone"}'),
        ("color.csv", "{}"),
    ]


@pytest.mark.parametrize("as_csv", [False, True])
def test_whatever_names_and_paths_hold_stays_text(as_csv: bool) -> None:
    data = make(descriptors=(HOSTILE, "b"), names=(HOSTILE, "x"), paths=[f"{HOSTILE}/{i}" for i in range(9)])
    data.outliers["reasons"] = HOSTILE
    data.profiles["b"]["evidence"] = data.profiles["b"]["color"] = HOSTILE
    data.profiles["b"]["majority_label"] = data.final["b"]["status"] = f"unusable: {HOSTILE}"
    data.summary["reason"] = data.summary["scaler"] = data.summary["algorithm"] = HOSTILE
    data.trials["b"]["algorithm"] = data.comparison["second"] = HOSTILE
    crossings = pd.DataFrame({"first": [HOSTILE], "cluster": 0, "second": "b", "other_cluster": 0})
    data = dataclasses.replace(data, crossings=crossings.assign(images=5, share=1.0))
    data = dataclasses.replace(data, names={"b": {0: HOSTILE, 7: HOSTILE + "'"}})
    page = parse(render_report(through_csv(data) if as_csv else data))
    assert sum(not attributes for attributes in page.all("script")) == 2
    assert page.text.count(HOSTILE) > 30
    assert "49" not in page.text.replace(HOSTILE, "")
    assert not any(name.startswith(("on", "alert", '"')) for _, a in page.elements for name in a)


def through_csv(data: ReportData) -> ReportData:
    """The frames that are handed on as CSV, as they are read again: empty words become NaN."""

    def reread(frame: pd.DataFrame) -> pd.DataFrame:
        return pd.read_csv(io.StringIO(frame.to_csv(index=False)))

    return dataclasses.replace(
        data,
        summary=reread(data.summary),
        outliers=reread(data.outliers),
        final={name: reread(frame) for name, frame in data.final.items()},
    )


def test_frames_read_from_csv_give_the_same_page(html: str) -> None:
    assert render_report(through_csv(make())) == html


printable = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=30)


@settings(max_examples=15, deadline=None)
@given(printable)
def test_any_path_is_shown_as_it_is(path: str) -> None:
    bare = dataclasses.replace(make(paths=[path]), trials={}, projection={}, profiles={}, archive=None)
    assert ("code", path) in parse(render_report(bare)).texts


def test_cells_without_a_word_show_nothing() -> None:
    data = make()
    data.profiles["type"][["majority_label", "color", "evidence"]] = None
    data.profiles["type"]["majority_share"] = np.nan
    data.final["type"]["name"] = np.nan
    data.outliers["reasons"] = np.nan
    text = parse(render_report(data)).text
    assert "Cluster 0 white sedan" in text
    assert not re.search(r"\b(nan|None|NaT|<NA>)\b", text)


def test_what_the_first_round_of_the_trials_dropped_is_told() -> None:
    data = make()
    told = "Dropped in round 1, by kmeans on 1,000 images: robust."
    assert parse(render_report(data)).text.count(told) == 2
    data.trials["type"] = data.trials["type"].query("round == 2")
    assert parse(render_report(data)).text.count(told) == 1


@pytest.mark.parametrize("part", ["trials", "profiles", "final", "projection"])
@pytest.mark.parametrize("left", [(), ("color",)])
def test_stages_that_have_not_run_are_told_and_the_rest_is_shown(part: str, left: tuple[str, ...]) -> None:
    data = make()
    some = {name: frame for name, frame in getattr(data, part).items() if name in left}
    page = parse(render_report(dataclasses.replace(data, **{part: some})))
    told = {
        "trials": "There are no trials of this descriptor yet",
        "profiles": "The clusters of this descriptor have not been profiled yet",
        "final": "There is no map of this descriptor yet",
        "projection": "There is no map of this descriptor yet",
    }
    assert page.text.count(told[part]) == 2 - len(left)
    assert "type agrees best with the other descriptors" in page.text
    maps = [image for image in page.all("img") if (image["alt"] or "").startswith("Map of")]
    assert len(maps) == (len(left) if part in {"final", "projection"} else 2)


def test_what_is_odd_about_the_delivery_is_told_before_the_summary_and_never_as_markup() -> None:
    data = replace(make(), notices=["labels.csv: lies beside <b>the delivery</b> and is not used"])
    data.final["type"].loc[:3, "status"] = "unusable: all zero"
    text = parse(render_report(data)).text
    about = text.index("labels.csv: lies beside <b>the delivery</b> and is not used")
    assert (
        text.index("type agrees best with the other descriptors") < about < text.index("unusable: all zero")
    )
    assert about < text.rindex("Summary")


def test_a_page_of_nothing_but_paths_renders() -> None:
    data = make()
    empty = ReportData(data.summary.iloc[:0], data.comparison.iloc[:0], data.outliers, data.images)
    assert "Nothing has been clustered yet" in parse(render_report(empty)).text


def test_one_descriptor_has_nothing_to_be_compared_with() -> None:
    data = make(descriptors=("type",))
    data.summary["criterion"], data.summary["stability"] = "stability", 0.7
    page = parse(render_report(data))
    assert "There is only one descriptor" in page.text
    assert "judged by itself: stability 0.700" in page.text


def test_without_an_archive_images_are_listed_by_path_and_sheets_are_left_out() -> None:
    data = dataclasses.replace(make(), archive=None)
    placeholders = {name: frame.assign(brightness=np.nan) for name, frame in data.profiles.items()}
    page = parse(render_report(dataclasses.replace(data, profiles=placeholders)))
    assert "There was no image archive" in page.text
    assert "1/00000.jpg" in page.text
    assert page.text.count("no archive") == MAX_OUTLIERS
    assert not [image for image in page.all("img") if re.match("Contact sheet|Image", image["alt"] or "")]


def test_profiles_without_sheets_render() -> None:
    data = make()
    profiles = {name: frame.assign(contact_sheet=None) for name, frame in data.profiles.items()}
    assert "no pictures" in parse(render_report(dataclasses.replace(data, profiles=profiles))).text


def test_scores_that_are_all_missing_render_as_dashes() -> None:
    data = make()
    data.summary["strength"] = data.summary["predictability"] = np.nan
    numbers = ["cohesion", "separation", "majority_share", "nearest_cluster"]
    for name in data.trials:
        data.trials[name][["predictability", "stability", "silhouette"]] = np.nan
        data.profiles[name][numbers] = np.nan
    data.outliers[["score", "quality_score", "anomaly"]] = np.nan
    data.comparison["adjusted_mutual_information"] = np.nan
    page = parse(render_report(data))
    assert "None of its clusterings could be scored" in page.text
    assert "cohesion – separation –" in page.text
    assert not re.search(r"\bnan\b", page.text)


def test_columns_of_which_nothing_is_known_are_left_out() -> None:
    data = make()
    assert "Identity" not in parse(render_report(data)).text
    assert "Label accuracy" not in parse(render_report(data)).text
    data.summary["label_accuracy"] = [0.79, 0.53]
    page = parse(render_report(data))
    assert "Label accuracy" in page.text
    assert "79\N{NO-BREAK SPACE}% of the images get it" in " ".join(text for _, text in page.texts)


def test_every_representation_has_words() -> None:
    assert {*VECTORS, "pca"} == set(REPRESENTATIONS)


def test_the_verdict_admits_that_another_descriptor_labels_better() -> None:
    summary = make().summary.assign(label_accuracy=[0.6, 0.71])
    verdict = judge(summary)
    assert verdict is not None
    assert "color would get 71\N{NO-BREAK SPACE}%" in verdict.truth
    better = judge(summary.assign(label_accuracy=[0.71, np.nan]))
    assert better is not None
    assert better.truth.endswith("named after its majority.")


def test_the_gallery_shows_the_most_suspicious_images_with_reasons() -> None:
    data = make()
    page = parse(render_report(data))
    assert len([a for a in page.all("li") if a.get("class") == "outlier"]) == MAX_OUTLIERS
    assert "1 1.000 glare: a bright blob unusual vectors: type, color" in page.text
    assert frequent_reasons(data.outliers) == [
        ("glare", 1),
        ("unusual vectors", 1),
    ]


def test_images_that_cannot_be_shown_say_why() -> None:
    data = make()
    images: Any = {path: picture() for path in data.outliers["image_path"]}
    del images["1/00001.jpg"]
    images["1/00002.jpg"] = b"no image"
    page = parse(render_report(dataclasses.replace(data, archive=Archive(images))))  # type: ignore[arg-type]
    assert page.text.count("unreadable") == 1
    assert "1 image is not in the archive 1/00001.jpg" in page.text
    sizes = [Image.open(io.BytesIO(t)).size for t, _ in thumbnails(Archive(images), ["1/00003.jpg"]) if t]  # type: ignore[arg-type]
    assert sizes == [(192, 144)]


def test_unusable_rows_are_named_with_their_descriptor_and_take_no_part_in_noise() -> None:
    data = make()
    unusable = "unusable: NaN or infinite values"
    data.final["color"].loc[[5, 6], ["cluster", "status"]] = [-1, unusable]
    data.final["color"].loc[[7], ["cluster", "status"]] = [-1, "noise"]
    data.projection["color"].loc[[5, 6], ["x2", "y2"]] = np.nan
    page = parse(render_report(data))
    assert f"Descriptor ok noise {unusable} type 80 0 0 color 77 1 2" in page.text
    assert "2 images have unusable vectors 1/00005.jpg in color 1/00006.jpg in color" in page.text
    assert "noise : 1 images" in page.text


def test_an_image_more_adds_few_bytes_to_the_page() -> None:
    sizes = [3_000, 30_000]
    bare = [dataclasses.replace(make(descriptors=("type",), n_images=n), archive=None) for n in sizes]
    pages = [len(render_report(data)) for data in bare]
    assert (pages[1] - pages[0]) / (sizes[1] - sizes[0]) < 20


def test_constant_features_are_named() -> None:
    data = dataclasses.replace(make(), constant={"type": [3, 9], "color": []})
    page = parse(render_report(data))
    assert "type has 2 constant features, which say nothing and are scaled by 1: 3, 9." in page.text
    varying = dataclasses.replace(data, constant={"type": [], "color": []})
    assert "Every feature of these descriptors varies." in parse(render_report(varying)).text


def test_the_page_is_small_however_many_clusters_have_large_sheets() -> None:
    names = tuple(str(i) for i in range(MAX_CARDS + 20))
    sheet = picture(300, 150)
    data = make(descriptors=("type",), n_images=240, names=names, sheet=sheet)
    assert len(sheet) * MAX_CARDS > SHEETS_BYTES * 1.5
    page = parse(render_report(data))
    sheets = [image["src"] or "" for image in page.all("img") if "Contact sheet" in (image["alt"] or "")]
    assert len(sheets) == MAX_CARDS
    assert sum(map(len, sheets)) < SHEETS_BYTES * 4 / 3 + 100 * MAX_CARDS
    assert f"{MAX_CARDS} clusters, the largest of {len(names)}" in page.text


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 120), st.integers(1, 120), st.integers(300, 20_000))
def test_pictures_are_fitted_to_a_number_of_bytes(width: int, height: int, limit: int) -> None:
    original = picture(width, height)
    fitted = fit_bytes(original, limit)
    with Image.open(io.BytesIO(fitted)) as image:
        assert fitted is original if len(original) <= limit else image.format == "WEBP"
        assert len(fitted) <= limit or max(image.size) <= 16


def test_data_uris_name_the_format_of_the_picture() -> None:
    assert data_uri(picture()).startswith("data:image/jpeg;base64,/9j/")
    assert data_uri(fit_bytes(picture(), 900)).startswith("data:image/webp;base64,UklGR")
    assert data_uri(b"\x89PNG\r\n\x1a\n").startswith("data:image/png;base64,")


def test_the_same_data_give_the_same_page(html: str) -> None:
    assert render_report(make()) == html


def test_the_page_opens_with_what_is_settled() -> None:
    data = make()
    paths = data.outliers["image_path"]
    sure = np.where(np.arange(len(paths)) % 4 == 0, 0.5, 0.97)
    attributes = pd.DataFrame(
        {"image_path": paths, "type": "van", "type_confidence": sure, "view": "", "view_confidence": 0.0}
    )
    review = pd.DataFrame({"kind": ["cluster"] * 7})
    page = parse(render_report(replace(data, attributes=attributes, review=review)))
    assert "Settled: type 75 %, view 0.0 %" in page.text
    assert f"type van {len(paths)}" in page.text
    assert "7 questions that settle most" in page.text


def test_before_any_answer_the_page_says_that_questions_are_ready() -> None:
    data = make()
    attributes = pd.DataFrame({"image_path": data.outliers["image_path"], "type": "", "type_confidence": 0.0})
    page = parse(
        render_report(replace(data, attributes=attributes, review=pd.DataFrame({"kind": ["cluster"]})))
    )
    assert "1 question is ready" in page.text
    assert "Nothing has been answered yet, so type of the images is unknown" in page.text
