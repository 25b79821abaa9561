"""Round trips: what was drawn in the images of each layout is what its reader says of them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.protocol import load_protocol
from medfilip.evaluation.protocols.readers.covidx import Line, parse_line
from medfilip.evaluation.protocols.readers.padchest import parse_labels
from medfilip.findings.ontology import load_ontology
from medfilip.phantom.layouts.corpus import read_layout_truth
from medfilip.phantom.layouts.names import LAYOUTS as NAMES_BY_LAYOUT
from tests.unit.evaluation.protocols.conftest import Edit, Read

LAYOUTS = sorted(NAMES_BY_LAYOUT)


def expected(layout: str, shown: tuple[str, ...]) -> set[str]:
    """What a protocol must say of an image that shows these: written down here, apart from protocol and writer."""
    if layout == "rsna":
        return {"pneumonia"} if "consolidation" in shown else set()
    if layout == "covidx":
        if "interstitial_opacity" in shown:
            return {"covid19_pneumonia", "pneumonia"}
        return {"pneumonia"} if "consolidation" in shown else set()
    found = set(shown)
    if layout == "vindr_cxr" and found & {"nodule", "mass", "cavity"}:
        found = found - {"nodule", "mass"} | {"lung_lesion"}
    if layout == "padchest" and "rib_fracture" in found:
        found |= {"fracture"}
    return found & set(load_protocol(layout).categories)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_reader_says_what_was_drawn(layout: str, corpora: Path, read: Read) -> None:
    table, ontology = read(layout), load_ontology()
    drawn = {truth.image_id: truth for truth in read_layout_truth(corpora / layout)}
    assert set(table.image_ids) == {name for name, truth in drawn.items() if truth.left_out is None}
    assert table.image_ids == sorted(table.image_ids)
    categories = table.protocol.categories
    for image_id, patient, states in zip(table.image_ids, table.patients, table.truth_NL, strict=True):
        truth = drawn[image_id]
        assert patient == truth.patient
        present = expected(layout, truth.shown)
        assert {name for name, state in zip(categories, states, strict=True) if state == 1} == present
        masked = {name for name in categories if ontology.descendants(name) & present} - present
        unknown = {name for name, state in zip(categories, states, strict=True) if state == -1}
        assert unknown == (masked if layout == "padchest" else set())
    assert (table.truth_NL == 1).any(), "the corpus would prove nothing"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_official_parts_stand_and_patients_are_in_one_split(layout: str, corpora: Path, read: Read) -> None:
    table = read(layout)
    drawn = {truth.image_id: truth for truth in read_layout_truth(corpora / layout)}
    of_patient: dict[str, set[str]] = {}
    for image_id, patient, split in zip(table.image_ids, table.patients, table.splits_N, strict=True):
        of_patient.setdefault(patient, set()).add(split)
        part = drawn[image_id].part
        if part is not None:
            assert (split == "test") == (part == "test")
            assert layout != "chexpert5" or split == part
    assert all(len(splits) == 1 for splits in of_patient.values())
    counts = Counter(table.splits_N.tolist())
    assert counts["test"] and counts["validation"]
    assert {name: found.images for name, found in table.record.splits.items() if found.images} == dict(counts)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reading_twice_gives_one_fingerprint(layout: str, read: Read) -> None:
    first, second = read(layout), read(layout)
    assert first.record == second.record and len(first.record.split_fingerprint) == 16
    assert first.record.pins.startswith("not pinned: ") and len(first.record.files) >= 1
    assert all(len(known) == 64 for known in first.record.files.values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_may_lie_deeper(layout: str, corpora: Path, read: Read) -> None:
    assert read(layout, corpora / layout).image_ids
    deeper = read(layout, _linked(corpora / layout))
    assert deeper.record.split_fingerprint == read(layout).record.split_fingerprint


def _linked(folder: Path) -> Path:
    outer = folder.parent / f"outer-{folder.name}" / "download"
    if not outer.exists():
        shutil.copytree(folder, outer)
    return outer.parent


def test_lateral_images_are_counted_not_judged(read: Read, corpora: Path) -> None:
    for layout in ("chexpert5", "padchest"):
        lateral = sum(truth.left_out == "lateral" for truth in read_layout_truth(corpora / layout))
        assert read(layout).record.left_out["lateral"] == lateral > 0
        assert not any("lateral" in name for name in read(layout).image_ids)
    assert read("padchest").record.left_out["not_labelled_by_a_physician"] > 0


def test_views_are_those_of_the_images(read: Read) -> None:
    for layout in ("chestxray14", "chexpert5", "padchest"):
        views = read(layout).record.views
        assert set(views) == {"PA", "AP"} and sum(views.values()) < len(read(layout).image_ids) + 1
    assert set(read("covidx").record.views) == {"unknown"}


def test_readers_of_vindr_outvote_the_one_who_is_wrong(read: Read, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("vindr_cxr")
    file = folder / "annotations" / "image_labels_train.csv"
    header, *rows = file.read_text().splitlines()
    at = header.split(",").index("Pneumothorax")

    def saying(row: str, value: str) -> str:
        cells = row.split(",")
        cells[at] = value
        return ",".join(cells)

    image_id = rows[0].split(",")[0]
    column = load_protocol("vindr_cxr").categories.index("pneumothorax")

    def state(*values: str) -> int:
        voted = [saying(row, value) for row, value in zip(rows[:3], values, strict=False)]
        file.write_text("\n".join([header, *voted, *rows[3:]]) + "\n")
        table = read("vindr_cxr", folder)
        return int(table.truth_NL[table.image_ids.index(image_id), column])

    assert state("1", "1", "0") == 1
    assert state("1", "0", "0") == 0
    assert state("1", "0") == -1, "exactly half of the readers: nobody knows"


def test_uncertain_and_empty_cells_of_chexpert_are_unknown(read: Read, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("chexpert5")
    file = folder / "CheXpert-v1.0" / "test.csv"
    header, first, *rows = file.read_text().splitlines()
    names, cells = header.split(","), first.split(",")
    cells[names.index("Edema")], cells[names.index("Cardiomegaly")] = "-1.0", ""
    cells[names.index("No Finding")] = "0.0"
    file.write_text("\n".join([header, ",".join(cells), *rows]) + "\n")
    table = read("chexpert5", folder)
    key = "/".join(cells[0].split("/")[-3:])
    states = dict(zip(table.protocol.categories, table.truth_NL[table.image_ids.index(key)], strict=True))
    assert states["edema"] == states["cardiomegaly"] == -1 and states["consolidation"] in (0, 1)


def test_a_table_of_studies_judges_their_frontal_images(read: Read, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("chexpert5")
    file = folder / "CheXpert-v1.0" / "test.csv"
    header, *rows = file.read_text().splitlines()
    names = header.split(",")
    facts = {"Path", "Sex", "Age", "Frontal/Lateral", "AP/PA"}
    kept = [at for at, name in enumerate(names) if name not in facts]
    studies = {}
    for row in rows:
        cells = row.split(",")
        studies[cells[0].rsplit("/", 1)[0]] = [cells[at] for at in kept]
    lines = [",".join(["Study", *(names[at] for at in kept)])]
    lines += [",".join([study, *cells]) for study, cells in studies.items()]
    before = read("chexpert5", folder)
    file.unlink()
    (folder / "CheXpert-v1.0" / "groundtruth.csv").write_text("\n".join(lines) + "\n")
    after = read("chexpert5", folder)
    assert after.image_ids == before.image_ids and np.array_equal(after.truth_NL, before.truth_NL)
    assert after.record.left_out == before.record.left_out and after.record.listed == before.record.listed


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("['pleural effusion', 'costophrenic angle blunting']", ["pleural effusion", "costophrenic angle blunting"]),
        ("['', 'nodule ', \" mass\"]", ["nodule", "mass"]),
        ("[]", []),
        ("['normal',]", ["normal"]),
        ("pleural effusion", None),
        ("['a' 'b']", None),
        ("[1, 2]", None),
        ("['a'] + ['b']", None),
        ("[__import__('os').system('true')]", None),
        ("['a\\x41']", None),
    ],
)
def test_lists_of_padchest_are_parsed_never_evaluated(text: str, labels: list[str] | None) -> None:
    assert parse_labels(text) == labels


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("['exclude']", "labelled_exclude"),
        ("['Unchanged', 'nodule']", "labelled_unchanged"),
        ("['']", "no_labels"),
        ("", "no_labels"),
    ],
)
def test_rows_of_padchest_that_say_nothing_are_counted(
    read: Read, copy_of: Callable[[str], Path], labels: str, reason: str
) -> None:
    folder = copy_of("padchest")
    file = folder / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    lines = file.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if ",PA,Physician," in line)
    head = lines[at].split(",Physician,")[0]
    lines[at] = f'{head},Physician,"{labels}"'
    file.write_text("\n".join(lines) + "\n")
    table = read("padchest", folder)
    assert table.record.left_out[reason] == 1 and len(table.image_ids) == len(read("padchest").image_ids) - 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("SITE2-000265 MIDRC-1C-0.png COVID-19 ricord", Line("SITE2-000265", "MIDRC-1C-0.png", "COVID-19")),
        ("1 SARS-10.1148rg (1).jpg positive cohen", Line("1", "SARS-10.1148rg (1).jpg", "positive")),
        ("12 a.png normal", Line("12", "a.png", "normal")),
        ("12 a.png", None),
        ("12", None),
        ("12 a.png healthy rsna", Line("12", "a.png", "healthy")),
    ],
)
def test_lines_of_covidx(text: str, line: Line | None) -> None:
    assert parse_line(text, load_protocol("covidx")) == line


def test_version_b_of_covidx_says_nothing_of_other_pneumonia(
    read: Read, copy_of: Callable[[str], Path], edit: Edit
) -> None:
    folder = copy_of("covidx")
    for name in ("train.txt", "test.txt"):
        for old, new in ((" COVID-19 ", " positive "), (" pneumonia ", " negative "), (" normal ", " negative ")):
            edit(folder / name, old, new)
    table, whole = read("covidx", folder), read("covidx")
    covid, pneumonia = (table.protocol.categories.index(name) for name in ("covid19_pneumonia", "pneumonia"))
    assert np.array_equal(table.truth_NL[:, covid], whole.truth_NL[:, covid])
    assert (table.truth_NL[:, pneumonia] == -1).all()


def test_a_validation_list_of_covidx_stands(read: Read, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("covidx")
    lines = (folder / "train.txt").read_text().splitlines()
    patients = sorted({line.split()[0] for line in lines})[:3]
    moved = [line for line in lines if line.split()[0] in patients]
    (folder / "train.txt").write_text("\n".join(line for line in lines if line not in moved) + "\n")
    (folder / "val.txt").write_text("\n".join(moved) + "\n")
    (folder / "val").mkdir()
    for line in moved:
        name = line.split()[1]
        (folder / "train" / name).rename(folder / "val" / name)
    table = read("covidx", folder)
    assert [table.image_ids[at] for at in table.rows("validation")] == sorted(
        f"val/{line.split()[1]}" for line in moved
    )


def test_files_that_are_not_the_data_sets_are_refused(read: Read, copy_of: Callable[[str], Path], edit: Edit) -> None:
    cases = [
        ("vindr_cxr", "annotations/image_labels_test.csv", ",0,", ",2,", ErrorCode.SCHEMA_MISMATCH),
        ("chexpert5", "CheXpert-v1.0/test.csv", ",0.0,", ",no,", ErrorCode.SCHEMA_MISMATCH),
        ("chexpert5", "CheXpert-v1.0/test.csv", "Path,", "File,", ErrorCode.COLUMN_MISSING),
        ("padchest", "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", "['", "('", ErrorCode.SCHEMA_MISMATCH),
        ("covidx", "train.txt", " phantom", "", None),
        ("rsna", "pneumonia-challenge-dataset-mappings_2018.json", "img_id", "image", ErrorCode.SCHEMA_MISMATCH),
        ("rsna", "stage_2_detailed_class_info.csv", "Lung Opacity", "Normal", ErrorCode.SCHEMA_MISMATCH),
        ("siim_acr", "train-rle.csv", "EncodedPixels", "Pixels", ErrorCode.COLUMN_MISSING),
        ("chestxray14", "Data_Entry_2017.csv", "Finding Labels", "Findings", ErrorCode.COLUMN_MISSING),
    ]
    for layout, file, old, new, code in cases:
        folder = copy_of(layout)
        edit(folder / file, old, new)
        if code is None:
            assert read(layout, folder).record.truth_sha256 == read(layout).record.truth_sha256
        else:
            with pytest.raises(MedfilipError) as caught:
                read(layout, folder, allow_partial=True)
            assert caught.value.code == code and caught.value.fix
        shutil.rmtree(folder)
