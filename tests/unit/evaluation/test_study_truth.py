"""The truth is read from the runs: what reports state, and what silence means."""

from __future__ import annotations

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.study_truth import Corpus, study_truth
from medfilip.findings.truth import ABSENT
from medfilip.phantom.corpus import write_corpus
from medfilip.phantom.study import StudyOptions
from medfilip.storage.location import Location
from tests.unit.training.published import publish


def test_silence_is_unknown_unless_it_is_said_to_be_absence(tmp_path):
    findings = [
        {"study_id": "s0", "category": "nodule", "certainty": "present"},
        {"study_id": "s1", "category": "nodule", "certainty": "absent"},
        {"study_id": "s2", "category": "nodule", "certainty": "uncertain"},
        {"study_id": "s3", "category": "cardiomegaly", "certainty": "present"},
    ]
    publish(tmp_path, {"resolved_findings": findings})
    run = Location.parse(tmp_path)
    truth = study_truth(run, Corpus(None), run)
    assert truth.categories == ("cardiomegaly", "nodule")
    assert [truth.state(f"s{at}", "nodule") for at in range(5)] == [1, 0, -1, -1, -1]
    listing = study_truth(run, Corpus(None), run, silent=ABSENT)
    assert [listing.state(f"s{at}", "nodule") for at in range(5)] == [1, 0, -1, 0, -1], "s4 has no report"


def test_drawn_truth_needs_its_own_images(tmp_path):
    write_corpus(tmp_path / "drawn", 2, 1, options=StudyOptions(size=64))
    corpus = Corpus.of(str(tmp_path / "drawn"))
    ids = [item.report_id for item in corpus.drawn]
    reports = [{"report_id": name, "study_id": f"s-{name}"} for name in ids]
    image = {"image_id": "i", "study_id": f"s-{ids[0]}", "view": "frontal", "pixel_hash": "of another corpus"}
    publish(tmp_path / "run", {"reports": reports, "images": [image]})
    with pytest.raises(MedfilipError, match="not those of 'phantom_truth'") as caught:
        study_truth(None, corpus, Location.parse(tmp_path / "run"))
    assert caught.value.code is ErrorCode.NOT_ENOUGH_DATA
