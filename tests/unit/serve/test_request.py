"""Requests: labels and forms within their limits, and no error that quotes one."""

from __future__ import annotations

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.model.question import Described, Question
from serve.request import read_question
from serve.settings import ServeSettings


def test_labels_get_single_blanks_and_count_once(settings: ServeSettings) -> None:
    asked = {"labels": ["  left   pleural effusion", "mass", "left pleural effusion"]}
    question, [warning] = read_question(asked, settings)
    assert question.labels == ("left pleural effusion", "mass")
    assert warning.code == "labels_repeated" and "mass" not in warning.message
    assert read_question({}, settings) == (Question(), ())


def test_a_question_is_read_whole(settings: ServeSettings) -> None:
    fields = {
        "described": [" air  crescent sign: crescent of air around a mass ; thin dark rim;"],
        "operating_point": ["youden"],
        "attributes": ["3"],
        "heat_maps": ["present"],
    }
    described = (Described("air crescent sign", ("crescent of air around a mass", "thin dark rim")),)
    expected = Question(described=described, operating_point="youden", attributes=3, heat_maps="present")
    assert read_question(fields, settings) == (expected, ())
    assert read_question({"threshold": ["0.25"]}, settings)[0].threshold == 0.25
    assert read_question({"threshold": [""], "heat_maps": [""]}, settings)[0] == Question()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["ok", " \t "], "Entry 2 of 'labels' has 0 characters"),
        (["secret" * 40], "max_label_characters = 200"),
        (["secret\x00"], "Entry 1 of 'labels' cannot be printed"),
        (["\u202esecret"], "cannot be printed"),
        ([f"secret {n}" for n in range(65)], "max_labels is 64"),
    ],
)
def test_unfit_labels_are_refused_without_being_quoted(labels: list[str], words: str, settings: ServeSettings) -> None:
    with pytest.raises(MedfilipError, match=words) as caught:
        read_question({"labels": labels}, settings)
    assert caught.value.code == ErrorCode.REQUEST_INVALID
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"described": ["secret"]}, "not a name and 1 to 12"),
        ({"described": ["secret: " + ";".join(["phrase"] * 13)]}, "not a name and 1 to 12"),
        ({"described": [": secret"]}, "not a name and 1 to 12"),
        ({"described": [f"secret: {'x' * 201}"]}, "max_label_characters = 200"),
        ({"described": ["secret: a"] * 65}, "max_labels is 64"),
        ({"operating_point": ["secret"]}, "'operating_point' has a value that is not known"),
        ({"heat_maps": ["all", "secret"]}, "'heat_maps' is given 2 times"),
        ({"attributes": ["11"]}, "a whole number from 0 to 10"),
        ({"attributes": ["9" * 400]}, "a whole number from 0 to 10"),
        ({"attributes": ["1.5"]}, "a whole number from 0 to 10"),
        ({"threshold": ["nan"]}, "a number from 0 to 1"),
        ({"threshold": ["secret"]}, "a number from 0 to 1"),
        ({"threshold": ["0.5"], "operating_point": ["f1"]}, "Both 'operating_point' and 'threshold'"),
    ],
)
def test_unfit_questions_are_refused_by_the_name_of_the_field(
    fields: dict[str, list[str]], words: str, settings: ServeSettings
) -> None:
    with pytest.raises(MedfilipError, match=words) as caught:
        read_question(fields, settings)
    assert caught.value.code == ErrorCode.REQUEST_INVALID and "secret" not in str(caught.value)
