"""Every delivery, how far it is run, and what its script says is expected."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from iv_pipeline_tests.cases import scenarios
from iv_pipeline_tests.cases.expectations import (
    ALARM,
    Expectation,
    before_work,
    both,
    clusters_of,
    coordinates,
    either,
    equals_together,
    finishes,
    groups_found,
    holds_through,
    images,
    labelled,
    measured,
    never_says,
    no_reason,
    one_number_of_clusters,
    outliers,
    quality,
    reasons_in_words,
    refused,
    reports,
    results_of,
    says,
    unusable,
    vectors,
)
from iv_pipeline_tests.cases.running import (
    USUAL,
    Light,
    Made,
    Outcome,
    cluster,
    label,
    make,
    read,
    report,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A delivery and what is expected of it.

    Attributes
    ----------
    name
        Of its script.
    needs
        How far it is run.
    expect
        What holds then.
    options
        Arguments of the generator, where the script gives others than the default.
    light
        As much of its configuration as that needs.
    """

    name: str
    needs: Callable[[Made], Outcome]
    expect: tuple[Expectation, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    light: Light = USUAL

    @property
    def is_slow(self) -> bool:
        """Whether it needs more than reading."""
        return self.needs not in {read, scenarios.packed_again, scenarios.looked_into_later}

    @property
    def words(self) -> str:
        return "; ".join(expectation.words for expectation in self.expect)

    def play(self, folder: Path) -> tuple[Outcome, list[str]]:
        """Make and run it; what the product did, and what is wrong with that.

        Raises
        ------
        SkippedError
            If this machine cannot.
        """
        outcome = self.needs(make(self.name, folder, self.options, self.light))
        objections = [(e.words, e.objection(outcome)) for e in self.expect]
        return outcome, [f"expected {words}, but {wrong}" for words, wrong in objections if wrong]


def _case(
    name: str,
    needs: Callable[[Made], Outcome],
    *expect: Expectation,
    light: Light = USUAL,
    **options: Any,
) -> Case:
    return Case(name, needs, expect, options, light)


_ONE = Light(("vdc_type",))
_EMBEDDED = Light(representations=("pca", "umap"))
_ALL_KINDS = Light(
    combinations=True,
    representations=("pca", "whitened", "umap", "fusion"),
    algorithms=("kmeans", "agglomerative", "gaussianmixture", "leiden", "hdbscan", "dbscan"),
)
_SCALED = Light(scalers=("standard", "robust"))


_ZEROS = [row for row in range(240) if row % 5 == 2]
_WHOLE = both(finishes(), images(240), measured(240))
_FOUND = both(finishes(), measured(240))
_READ = both(finishes(), vectors())
_MANY = np.flatnonzero(np.random.default_rng(1).random(1500) < 0.05).tolist()
_SIMPLE = {"n": 300, "seed": 4, "d1": 6, "d2": 3, "spread": 0.8}

CASES = (
    _case("00-plain", run, _WHOLE, vectors(), labelled(240), groups_found(6), one_number_of_clusters()),
    # Where people have their files
    _case("01-peer-unpacked-images", read, _FOUND),
    _case(
        "02-peer-row-data",
        read,
        either(_FOUND, refused("row_data/veriwild.zip"), says("row_data/veriwild.zip")),
    ),
    _case(
        "03-peer-mdc-names",
        read,
        either(_READ, both(refused("vdc_type.pickle", "mdc_type.pickle"), before_work())),
    ),
    _case("04-peer-frame-with-paths", read, _READ),
    _case("05-frame-filtered-pandas1", read, _READ, never_says(ALARM)),
    # CSVs
    _case(
        "06-csv-cp1251-semicolon",
        read,
        either(images(240), refused("images_paths.csv", "UTF-8")),
        prefix="камеры",
    ),
    _case("07-csv-utf16-excel", read, either(images(240), refused("images_paths.csv", "UTF-16", "UTF-8"))),
    _case("08-csv-sep-line", read, either(images(240), refused("images_paths.csv", "line 1|sep="))),
    _case("09-csv-no-header", read, refused("images_paths.csv", "line 1", "path", "column|header")),
    _case(
        "10-csv-mac-cr",
        read,
        either(images(240), refused("images_paths.csv", "line (end|break)|carriage return")),
    ),
    _case("11-csv-bom-index-zip64-backslash", read, _WHOLE),
    _case(
        "12-csv-kaggle-absolute",
        read,
        either(
            both(images(240), _FOUND),
            refused("/kaggle/input/intellivision-case", "relative|cut off|remove"),
        ),
        prefix="/kaggle/input/intellivision-case/veriwild",
        sep="/",
    ),
    # Archives
    _case(
        "13-zip-deflate64",
        report,
        either(
            refused("Deflate64", "again"),
            both(
                finishes(),
                says("240", "Deflate64", "again", once=True),
                reports("240", "Deflate64"),
                no_reason("damaged|unreadable|cannot be read|not be read"),
            ),
        ),
        light=_ONE,
    ),
    _case("14b-zip-top-folder-only", read, _FOUND),
    _case("14c-zip-full-path-inside", read, _FOUND),
    _case("15-zip-cp866-names", read, _FOUND),
    _case("16-zip-nfd-names", read, _FOUND),
    _case("17-zip-upper-extension", read, _FOUND),
    _case("18-zip-truncated", read, refused("veriwild.zip", "copy|download"), before_work()),
    _case(
        "19-zip-multipart", read, refused("veriwild.zip", "part", "join|together|all parts"), before_work()
    ),
    _case("20-zip-rar-named-zip", read, refused("veriwild.zip", "RAR|no whole zip|no zip"), before_work()),
    _case(
        "21-zip-lacks-a-part",
        report,
        finishes(),
        measured(210, but=range(100, 130), because="archive|missing|not there"),
        says("30", "archive|missing", once=True),
        reports("30", "archive|missing"),
        no_reason("archive|missing|not be read", range(100, 130)),
        light=_ONE,
    ),
    _case(
        "22-zip-some-encrypted",
        report,
        finishes(),
        measured(216, but=range(0, 240, 10), because="encrypted|password"),
        says("24", "encrypted|password", once=True),
        reports("24", "encrypted|password"),
        light=_ONE,
    ),
    _case(
        "26-repacked-without-password",
        scenarios.packed_again,
        _FOUND,
        holds_through("the password told once"),
    ),
    _case("65-two-megapixel-gif-and-thumbs-db", read, _FOUND),
    # Pictures
    _case(
        "23-bad-pictures",
        read,
        finishes(),
        reasons_in_words(),
        *(
            quality(f"picture {row} unreadable", row, lambda q: pd.notna(q["error"]))
            for row in (1, 6, 7, 8, 9, 18, 19, 21)
        ),
        *(
            quality(f"picture {row} measured", row, lambda q: pd.isna(q["error"]) and q["score"] < 0.5)
            for row in (0, 2, 3, 5, 11, 12, 13, 14, 17, 20)
        ),
        quality("picture 15 measured", 15, lambda q: pd.isna(q["error"])),
        quality("picture 2 upright", 2, lambda q: (q["width"], q["height"]) == (64, 48)),
        quality("picture 4 of 16 bits", 4, lambda q: pd.notna(q["error"]) or 0.2 < q["brightness"] < 0.7),
        quality("picture 16 of 12 bits", 16, lambda q: pd.notna(q["error"]) or q["overexposed_share"] < 0.5),
    ),
    _case(
        "24-one-zero-byte-picture-twice",
        scenarios.twice,
        finishes(),
        holds_through("two runs, the same files"),
        reasons_in_words(),
        no_reason(r"object at|0x|Error"),
        light=_ONE,
    ),
    # Vectors
    _case(
        "30-zero-rows-for-missing",
        report,
        finishes(),
        unusable("vdc_type", _ZEROS, because="zero"),
        says("vdc_type", "48", "zero"),
        reports("48", "zero"),
        equals_together(),
        light=_EMBEDDED,
    ),
    _case(
        "30b-zero-rows-default-config",
        label,
        finishes(),
        unusable("vdc_type", _MANY, because="zero"),
        says("vdc_type", str(len(_MANY)), "zero"),
        equals_together(),
        n=1500,
        groups=8,
        spread=1.2,
        seed=3,
        light=_EMBEDDED,
    ),
    _case(
        "31-nan-inf-different-rows",
        cluster,
        finishes(),
        unusable("vdc_type", [3, 10, 20, 30]),
        unusable("vdc_color", [3, *range(50, 110)]),
        unusable("both", [3, 10, 20, 30, *range(50, 110)]),
        groups_found(6, but=[3, 10, 20, 30, *range(50, 110)]),
        no_reason("far from", [3, 10, 20, 30, *range(50, 110)]),
        light=Light(combinations=True),
    ),
    _case("32-dead-nan-column", read, refused("vdc_type", "(column|feature)s? [78]", "NaN")),
    _case(
        "33-garbage-finite-row",
        report,
        finishes(),
        unusable("vdc_type", [17, 99]),
        outliers("vdc_type", [17, 99]),
        says("vdc_type", r"\b2\b", "17|99|magnitude|large|beyond"),
        reports("vdc_type", r"\b2\b", "magnitude|large|beyond"),
        groups_found(6, but=[17, 99]),
        light=_ONE,
    ),
    _case(
        "33c-garbage-moderate",
        cluster,
        finishes(),
        unusable("vdc_type", [17, 99]),
        outliers("vdc_type", [17, 99]),
        says("vdc_type", r"\b2\b"),
        groups_found(6, but=[17, 99]),
        light=_SCALED,
    ),
    *(
        _case(
            name,
            cluster,
            finishes(),
            unusable("vdc_type", [6], perhaps=[5]),
            outliers("vdc_type", [5, 6]),
            groups_found(6, but=[5, 6]),
        )
        for name in ("34-float16-saturated", "34b-float16-saturated-full")
    ),
    _case(
        "35-five-distinct-vectors",
        cluster,
        either(
            refused("vdc_type", "distinct|different vectors"),
            both(
                finishes(),
                labelled(240),
                clusters_of(vdc_type=5, vdc_color=3),
                equals_together(),
                says("vdc_type", r"\b5\b", "distinct|different vectors"),
                one_number_of_clusters(),
            ),
        ),
        light=_EMBEDDED,
    ),
    _case(
        "36-constant-descriptor",
        cluster,
        either(
            both(says("vdc_color", "constant|same|equal|identical"), results_of("vdc_type")),
            refused("vdc_color", "constant|same|equal|identical"),
        ),
        never_says("Traceback|Stack Trace"),
    ),
    _case(
        "37-twelve-images",
        cluster,
        either(both(finishes(), labelled(12)), refused(r"\b12\b", "at least")),
        n=12,
        groups=3,
        light=_EMBEDDED,
    ),
    _case("38-sixty-images", cluster, finishes(), labelled(60), n=60, groups=3, light=_ALL_KINDS),
    _case(
        "39-three-images",
        cluster,
        either(both(finishes(), labelled(3)), refused(r"\b3\b|three")),
        n=3,
        groups=3,
    ),
    _case(
        "40-far-apart-blobs",
        cluster,
        finishes(),
        groups_found(4),
        coordinates(),
        one_number_of_clusters(),
        groups=4,
        spread=3000.0,
        light=_EMBEDDED,
    ),
    _case("41-two-features", cluster, finishes(), labelled(240), d1=2, d2=1, light=_ALL_KINDS),
    _case("42-unnamed-index-as-feature", read, _READ, says("Unnamed: 0")),
    _case("42b-index-as-feature-weak", read, _READ, says("Unnamed: 0"), **_SIMPLE),
    _case("42c-control-without-index", read, _READ, **_SIMPLE),
    _case("43-rows-mismatch", read, refused("238", "240"), before_work()),
    # Files that hold a matrix some other way
    _case("50-dict-features-and-files", read, either(_READ, refused("features", "240"))),
    _case("51-list-of-batches", read, either(_READ, refused("batch", "concatenate"))),
    _case("52-frame-with-column-of-arrays", read, either(_READ, refused("embedding", "stack"))),
    _case("53-torch-tensor", read, refused("torch", "numpy"), never_says(ALARM)),
    _case("54-joblib-dump", read, either(_READ, refused("joblib")), never_says(ALARM)),
    _case("55-gzip-pickle", read, _READ),
    _case("56-npy-named-pickle", read, _READ),
    _case("57-python2-pickle", read, _READ),
    _case("58-shuffled-dict-mixed-separators", read, _READ),
    # Machines, people, and what comes later
    _case("60-odd-folder-names", scenarios.in_odd_folders, finishes(), labelled(240), light=_ONE),
    _case(
        "61-nobody-without-home",
        scenarios.without_a_home,
        either(finishes(), refused("NUMBA_CACHE_DIR")),
        never_says("Traceback|Stack Trace"),
        light=_ONE,
    ),
    _case(
        "62-names-from-excel",
        scenarios.named_in_excel,
        either(both(finishes(), holds_through("names taken")), refused("Names/vdc_type.csv", "UTF-8")),
        light=_ONE,
    ),
    _case(
        "63-killed-in-the-middle",
        scenarios.beside_and_after_a_killed_one,
        finishes(),
        holds_through("the killed run marked, the third refused"),
        light=_ONE,
    ),
    _case("64-unrelated-labels-beside", read, _WHOLE),
    _case(
        "67-disk-full",
        scenarios.on_a_full_disk,
        holds_through("one sentence that the disk is full, and what was there stays"),
    ),
    _case(
        "71-inbox-thumbs-db-later", scenarios.looked_into_later, finishes(), holds_through("the same content")
    ),
    _case(
        "80-labeller-inputs",
        scenarios.given_to_a_labeller,
        finishes(),
        holds_through("labelled, or one sentence"),
        light=_ONE,
    ),
)
