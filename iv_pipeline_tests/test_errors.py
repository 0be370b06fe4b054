"""Errors and notices have one format, wherever they are shown."""

from __future__ import annotations

import pickle

import pytest

from iv_pipeline.errors import DeliveryError, InputError, MissingStageError, Notice, sentence


def test_a_sentence_says_where_what_and_fix_on_one_line() -> None:
    assert sentence("it is\n empty", "a.csv", "copy it again") == "a.csv: it is empty; copy it again"
    assert sentence("it is empty") == "it is empty"


def test_an_error_and_a_notice_of_the_same_parts_read_the_same() -> None:
    notice = Notice("it is empty", "a.csv", "copy it again")
    assert str(DeliveryError("it is empty", where="a.csv", fix="copy it again")) == str(notice)


@pytest.mark.parametrize("kind", [InputError, DeliveryError, MissingStageError])
def test_an_error_survives_the_way_between_processes(kind: type[InputError]) -> None:
    error = pickle.loads(pickle.dumps(kind("it is empty", where="a.csv", fix="copy it again")))
    assert type(error) is kind
    assert str(error) == "a.csv: it is empty; copy it again"
    assert (error.what, error.where, error.fix) == ("it is empty", "a.csv", "copy it again")
