"""Reports with their truth → what each sentence states."""

from __future__ import annotations

from collections import Counter

from medfilip.distillation.truth import readings_of_report, unequivocal
from medfilip.findings.finding import Certainty, Evidence, Finding

TEXT = "INDICATION: edema?\nFINDINGS:\n1.  Small  left\neffusion. This may be new. Heart normal."


def finding(category: str, *words: tuple[str, str], certainty: Certainty = Certainty.PRESENT) -> Finding:
    evidence = tuple(
        Evidence(slot=slot, start=TEXT.index(word), end=TEXT.index(word) + len(word)) for slot, word in words
    )
    return Finding(category=category, certainty=certainty, evidence=evidence)


def test_spans_follow_the_words_into_the_normal_form() -> None:
    truth = [
        finding("pleural_effusion", ("mention", "effusion"), ("laterality", "left")),
        finding("edema", ("mention", "edema")),
    ]
    counts: Counter[str] = Counter()
    readings = list(readings_of_report(TEXT, truth, counts))
    assert [one.text for one in readings] == ["small left effusion", "this may be new", "heart normal"]
    assert readings[1].context == "small left effusion" and not readings[1].findings
    (row,) = readings[0].findings
    words = {span["slot"]: readings[0].text[span["start"] : span["end"]] for span in row["evidence"]}
    assert words == {"mention": "effusion", "laterality": "left"} and row["category"] == "pleural_effusion"
    assert not counts, "what the indication says is no part of the truth"


def test_a_finding_of_two_sentences_leaves_its_own_out() -> None:
    counts: Counter[str] = Counter()
    truth = [finding("pleural_effusion", ("mention", "effusion"), ("change", "new"))]
    readings = list(readings_of_report(TEXT, truth, counts))
    assert [one.text for one in readings] == ["this may be new", "heart normal"] and counts == {"truth_elsewhere": 1}


def test_a_sentence_that_means_two_things_is_left_out() -> None:
    counts: Counter[str] = Counter()
    one = list(readings_of_report(TEXT, [finding("pleural_effusion", ("mention", "effusion"))], counts))
    other = list(readings_of_report(TEXT, [], counts))
    kept = unequivocal([*one, *other, *one], counts)
    assert [reading.text for reading in kept] == ["this may be new", "heart normal"]
    assert counts == {"equivocal": 3, "duplicate": 4}
