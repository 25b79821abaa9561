"""The protocol files: complete, about known categories, and their split rules exactly what they say."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.ids import hash64
from medfilip.evaluation.protocols.protocol import PatientHash, Protocol, load_protocol, protocol_names
from medfilip.evaluation.protocols.table import READERS
from medfilip.findings.labels import label_category, plain_label
from medfilip.findings.ontology import load_ontology
from medfilip.imaging.corpora import _VALIDATION_ONE_IN
from medfilip.phantom.layouts.names import LAYOUTS

NAMES = ["chestxray14", "chexpert5", "covidx", "padchest", "rsna", "siim_acr", "vindr_cxr"]


def test_every_data_set_has_protocol_reader_and_phantoms() -> None:
    assert protocol_names() == NAMES == sorted(READERS) == sorted(LAYOUTS)


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_says_all_that_a_reader_of_numbers_needs(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.id == name and protocol.url.startswith("https://")
    assert all((protocol.licence, protocol.access, protocol.citation, protocol.patients, protocol.views))
    assert protocol.notes and protocol.checked and protocol.split.official
    assert all(release.source for release in protocol.documented)
    assert "at hand" in " ".join(protocol.checked), "it must say that the data set itself was not checked"


@pytest.mark.parametrize("name", NAMES)
def test_no_hash_is_claimed_of_files_that_were_never_seen(name: str) -> None:
    assert load_protocol(name).sha256 == {}


@pytest.mark.parametrize("name", ["chestxray14", "chexpert5"])
def test_labels_are_those_of_the_crosswalk_of_the_ontology(name: str) -> None:
    for category, labels in load_protocol(name).labels.items():
        assert {label_category(label, load_ontology()) for label in labels} == {category}


def test_the_labels_of_padchest_are_all_accounted_for() -> None:
    protocol = load_protocol("padchest")
    assert len(protocol.sources) == 193
    assert not {plain_label(name) for names in protocol.labels.values() for name in names} & set(
        map(plain_label, protocol.without_category)
    )


def test_the_tree_of_padchest_is_in_its_lists() -> None:
    """A label of PadChest that is below another in its tree counts for both where both are categories here."""
    labels = load_protocol("padchest").labels
    for broad, narrow in (
        ("fracture", "rib_fracture"),
        ("fracture", "clavicle_fracture"),
        ("fracture", "vertebral_fracture"),
        ("granuloma", "calcified_granuloma"),
        ("emphysema", "bullous_emphysema"),
        ("pleural_thickening", "pleural_calcification"),
        ("pneumothorax", "hydropneumothorax"),
        ("pleural_effusion", "hydropneumothorax"),
    ):
        assert set(labels[narrow]) <= set(labels[broad]), (broad, narrow)


def test_an_unknown_protocol_names_those_there_are() -> None:
    with pytest.raises(MedfilipError, match="chestxray14") as caught:
        load_protocol("mimic")
    assert caught.value.code == ErrorCode.CONFIG_INVALID


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"unicorn": ["Unicorn"]}},
        {"denies": {"No Finding": ["unicorn"]}},
        {"denies": {"No Finding": ["rib_fracture"]}},
        {"without_category": {"Pleural Thickening": "twice"}},
        {"silence": "negative"},
        {"surprise": 1},
    ],
)
def test_a_wrong_protocol_does_not_load(change: dict[str, object]) -> None:
    content = yaml.safe_load(yaml.safe_dump(load_protocol("chestxray14").model_dump(mode="json")))
    with pytest.raises(ValidationError):
        Protocol.model_validate(content | change)


@given(patient=st.text(min_size=1, max_size=20), parts=st.integers(2, 20))
def test_a_patient_is_in_one_split_for_ever(patient: str, parts: int) -> None:
    rule = PatientHash(divided="all", salt="s", parts=parts, validation=(0,), test=(1,))
    number = hash64("s", patient) % parts
    assert rule.split_of(patient) == {0: "validation", 1: "test"}.get(number, "train") == rule.split_of(patient)


def test_the_hash_is_the_one_that_is_written_down() -> None:
    """Fixed values: a change of the rule would move patients between splits without any other test noticing."""
    rsna = load_protocol("rsna").split.patient_hash
    nih = load_protocol("chestxray14").split.patient_hash
    assert rsna is not None and nih is not None
    assert [rsna.split_of(str(number)) for number in range(1, 9)] == [
        "test",
        "test",
        "train",
        "train",
        "train",
        "test",
        "train",
        "train",
    ]
    assert [number for number in range(1, 60) if nih.split_of(str(number)) == "validation"] == [
        29,
        34,
        39,
        50,
        52,
        55,
        59,
    ]


def test_chestxray14_is_divided_as_ingest_divides_it() -> None:
    rule = load_protocol("chestxray14").split.patient_hash
    assert rule is not None and (rule.salt, rule.parts, rule.validation) == ("nih", _VALIDATION_ONE_IN, (0,))


def test_shares_are_those_of_the_rule() -> None:
    rule = load_protocol("rsna").split.patient_hash
    assert rule is not None
    found = [rule.split_of(f"{number}") for number in range(20_000)]
    assert found.count("test") / 20_000 == pytest.approx(0.2, abs=0.01)
    assert found.count("validation") / 20_000 == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    "numbers", [{"validation": (0,), "test": (0,)}, {"validation": (4,)}, {"test": (-1,)}, {"salt": ""}]
)
def test_a_rule_that_divides_nothing_is_refused(numbers: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PatientHash.model_validate({"divided": "all", "salt": "s", "parts": 4} | numbers)
