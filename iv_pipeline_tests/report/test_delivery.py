import pandas as pd

from iv_pipeline.report.delivery import Concern, describe_delivery


def final(*status: str) -> pd.DataFrame:
    return pd.DataFrame({"image_path": [f"{i}.jpg" for i in range(len(status))], "status": status})


def test_images_that_could_not_be_used_are_counted_once_by_status_with_examples() -> None:
    zero, nan = "unusable: all zero", "unusable: NaN"
    about = describe_delivery(
        [],
        {
            "type": final("ok", "noise", zero, zero, zero, zero),
            "color": final(nan, "ok", zero, "ok", "ok", "ok"),
        },
    )
    assert about is not None
    assert about.concerns == [
        Concern(zero, 4, ["type", "color"], ["2.jpg", "3.jpg", "4.jpg"]),
        Concern(nan, 1, ["color"], ["0.jpg"]),
    ]


def test_notices_are_told_once_in_their_order() -> None:
    about = describe_delivery(["b: odd", "a: odd", "b: odd"], {"type": final("ok")})
    assert about is not None
    assert about.notices == ["b: odd", "a: odd"]


def test_a_delivery_as_usual_needs_no_words() -> None:
    assert describe_delivery([], {"type": final("ok", "noise")}) is None
