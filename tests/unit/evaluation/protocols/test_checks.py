"""Refusals: a wrong split is never evaluated, and what is missing is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_file
from medfilip.evaluation.protocols.protocol import Counts, Documented, load_protocol
from medfilip.evaluation.protocols.record import Record, check_fingerprint, check_lock, write_lock
from medfilip.storage.location import Location
from tests.unit.evaluation.protocols.conftest import Edit, Read, undocumented

Copy = Callable[[str], Path]


def refusal(read: Read, name: str, folder: Path, **options: object) -> MedfilipError:
    with pytest.raises(MedfilipError) as caught:
        read(name, folder, **options)
    assert caught.value.fix, "a refusal says what to do"
    return caught.value


def test_phantoms_are_not_the_documented_data(read: Read, corpora: Path) -> None:
    for name in ("chestxray14", "rsna", "vindr_cxr", "covidx", "chexpert5", "padchest", "siim_acr"):
        protocol = load_protocol(name)
        error = refusal(read, name, corpora / name, protocol=protocol)
        assert error.code == ErrorCode.DATA_INCOMPLETE and "allow_partial" in error.fix
        record = read(name, protocol=protocol, allow_partial=True).record
        assert record.release is None and record.completeness.startswith("PARTIAL") and record.partial


def test_documented_counts_name_the_release(read: Read) -> None:
    there = read("chestxray14").record.listed
    images = sum(counts.images or 0 for counts in there.values())
    wrong = Documented(release="first", source="s", total=Counts(images=images + 1))
    right = Documented(release="second", source="s", total=Counts(images=images), by_origin={"test": there["test"]})
    protocol = load_protocol("chestxray14").model_copy(update={"documented": (wrong, right)})
    record = read("chestxray14", protocol=protocol).record
    assert (record.release, record.partial) == ("second", ())
    assert record.completeness == "complete, counts as documented for second"
    least = right.model_copy(update={"at_least": True, "by_origin": {}, "total": Counts(images=images - 1)})
    protocol = protocol.model_copy(update={"documented": (least,)})
    assert read("chestxray14", protocol=protocol).record.release == "second"


def test_labels_that_nobody_knows_are_named(read: Read, copy_of: Copy, edit: Edit) -> None:
    folder = copy_of("chestxray14")
    edit(folder / "Data_Entry_2017.csv", "Effusion", "Efusion")
    error = refusal(read, "chestxray14", folder, allow_partial=True)
    assert error.code == ErrorCode.LABEL_UNKNOWN and "'Efusion'" in error.message


def test_other_spellings_of_a_label_are_known(read: Read, copy_of: Copy, edit: Edit) -> None:
    folder = copy_of("chestxray14")
    edit(folder / "Data_Entry_2017.csv", "No Finding", "no_finding")
    assert read("chestxray14", folder).record.truth_sha256 == read("chestxray14").record.truth_sha256


def test_a_patient_of_two_splits_is_named(read: Read, copy_of: Copy) -> None:
    folder = copy_of("chestxray14")
    names = (folder / "train_val_list.txt").read_text().split()
    twice = next(name for name in names if name.endswith("_001.png"))
    (folder / "train_val_list.txt").write_text("\n".join(name for name in names if name != twice))
    with (folder / "test_list.txt").open("a") as file:
        file.write(f"{twice}\n")
    error = refusal(read, "chestxray14", folder, allow_partial=True)
    assert error.code == ErrorCode.SPLIT_LEAKS
    assert "1 patients" in error.message and str(int(twice.split("_")[0])) in error.message


def test_an_image_of_both_lists_is_refused(read: Read, copy_of: Copy) -> None:
    folder = copy_of("chestxray14")
    first = (folder / "train_val_list.txt").read_text().split()[0]
    with (folder / "test_list.txt").open("a") as file:
        file.write(f"{first}\n")
    error = refusal(read, "chestxray14", folder, allow_partial=True)
    assert error.code == ErrorCode.SPLIT_LEAKS and first in error.message


def test_patients_that_covidx_has_twice_are_left_out_of_training_and_counted(
    read: Read, copy_of: Copy, edit: Edit
) -> None:
    folder, whole = copy_of("covidx"), read("covidx")
    patient = (folder / "train.txt").read_text().split()[0]
    other = (folder / "test.txt").read_text().split()[0]
    images = sum(one == patient for one in whole.patients)
    edit(folder / "train.txt", f"{patient} ", f"{other} ")
    record = read("covidx", folder).record
    assert record.shared_patients == 1 and record.left_out == {"patient_of_another_split": images}
    assert record.splits["test"] == whole.record.splits["test"]
    assert record.ids_sha256["test"] == whole.record.ids_sha256["test"]


def test_repeated_rows_are_counted_once_and_contradictions_refused(read: Read, copy_of: Copy, edit: Edit) -> None:
    folder = copy_of("chestxray14")
    file = folder / "Data_Entry_2017.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[1]]) + "\n")
    whole = read("chestxray14")
    # The list names the image once: its second row is in no list.
    error = refusal(read, "chestxray14", folder)
    assert error.code == ErrorCode.DATA_INCOMPLETE and "in no list" in error.message
    partial = read("chestxray14", folder, allow_partial=True)
    assert partial.image_ids == whole.image_ids and partial.record.partial

    folder = copy_of("covidx")
    first = (folder / "train.txt").read_text().splitlines()[0]
    with (folder / "train.txt").open("a") as stream:
        stream.write(f"{first}\n")
    assert refusal(read, "covidx", folder).code == ErrorCode.IMAGE_DUPLICATE
    partial = read("covidx", folder, allow_partial=True)
    assert len(partial.image_ids) == len(set(partial.image_ids)) and "list an image again" in partial.record.partial[0]
    with (folder / "train.txt").open("a") as stream:
        stream.write(f"other {first.split(' ', 1)[1]}\n")
    error = refusal(read, "covidx", folder, allow_partial=True)
    assert error.code == ErrorCode.IMAGE_DUPLICATE and "different" in error.message


def test_images_that_are_not_on_disk_are_counted(read: Read, copy_of: Copy) -> None:
    folder, whole = copy_of("chestxray14"), read("chestxray14")
    gone = whole.image_ids[whole.rows("test")[0]]
    next(folder.rglob(gone)).unlink()
    error = refusal(read, "chestxray14", folder)
    assert error.code == ErrorCode.DATA_INCOMPLETE and "1 images of the split 'test' not on disk" in error.message
    partial = read("chestxray14", folder, allow_partial=True)
    assert set(whole.image_ids) - set(partial.image_ids) == {gone} and partial.record.missing == {"test": 1}
    assert partial.record.split_fingerprint != whole.record.split_fingerprint
    trained = whole.image_ids[whole.rows("train")[0]]
    next(folder.rglob(trained)).unlink()
    assert read("chestxray14", folder, allow_partial=True).record.missing == {"test": 1, "train": 1}


def test_two_files_of_one_name_are_told(read: Read, copy_of: Copy) -> None:
    folder = copy_of("chestxray14")
    first = sorted(folder.rglob("*.png"))[0]
    (folder / "images_002").mkdir()
    (folder / "images_002" / first.name).write_bytes(first.read_bytes())
    error = refusal(read, "chestxray14", folder)
    assert error.code == ErrorCode.DATA_INCOMPLETE and "1 image files with the name of another" in error.message
    assert read("chestxray14", folder, allow_partial=True).record.partial


def test_training_images_need_not_be_there(read: Read, copy_of: Copy) -> None:
    folder, whole = copy_of("chestxray14"), read("chestxray14")
    for at in whole.rows("train"):
        next(folder.rglob(whole.image_ids[at])).unlink()
    assert read("chestxray14", folder).record.split_fingerprint == whole.record.split_fingerprint


def test_without_its_header_nobody_knows_whose_an_image_is(read: Read, copy_of: Copy) -> None:
    folder, whole = copy_of("siim_acr"), read("siim_acr")
    gone = whole.image_ids[whole.rows("test")[0]]
    next(folder.rglob(f"{gone}.dcm")).unlink()
    error = refusal(read, "siim_acr", folder)
    assert error.code == ErrorCode.DATA_INCOMPLETE and "1 images not on disk" in error.message
    partial = read("siim_acr", folder, allow_partial=True)
    assert set(whole.image_ids) - set(partial.image_ids) == {gone}
    assert partial.record.left_out == {"not_on_disk": 1} and partial.record.partial


def test_a_patient_that_no_header_names_stands_for_itself_and_is_told(read: Read, copy_of: Copy) -> None:
    folder = copy_of("siim_acr")
    broken = next(folder.rglob("*.dcm"))
    broken.write_bytes(b"no image")
    error = refusal(read, "siim_acr", folder)
    assert error.code == ErrorCode.DATA_INCOMPLETE and "without patient" in error.message
    assert broken.stem in read("siim_acr", folder, allow_partial=True).image_ids, "the job decodes it, and says so"


def test_rsna_needs_the_map_of_its_patients(read: Read, copy_of: Copy) -> None:
    folder = copy_of("rsna")
    (folder / "pneumonia-challenge-dataset-mappings_2018.json").unlink()
    error = refusal(read, "rsna", folder)
    assert error.code == ErrorCode.DATA_INCOMPLETE and "40 images without patient" in error.message
    partial = read("rsna", folder, allow_partial=True)
    assert not partial.record.patients_known and partial.patients == partial.image_ids
    assert read("rsna").record.patients_known and not read("vindr_cxr").record.patients_known


def test_targets_that_contradict_each_other_are_refused(read: Read, copy_of: Copy) -> None:
    folder = copy_of("rsna")
    (folder / "stage_2_detailed_class_info.csv").unlink()
    file = folder / "stage_2_train_labels.csv"
    first = next(line for line in file.read_text().splitlines() if line.endswith(",0"))
    with file.open("a") as stream:
        stream.write(f"{first[:-1]}1\n")
    assert refusal(read, "rsna", folder, allow_partial=True).code == ErrorCode.IMAGE_DUPLICATE


def test_a_test_image_with_several_readers_is_no_consensus(read: Read, copy_of: Copy) -> None:
    folder = copy_of("vindr_cxr")
    file = folder / "annotations" / "image_labels_test.csv"
    last = file.read_text().splitlines()[-1]
    with file.open("a") as stream:
        stream.write(f"{last}\n")
    assert refusal(read, "vindr_cxr", folder, allow_partial=True).code == ErrorCode.IMAGE_DUPLICATE


def test_an_empty_split_gives_no_number(read: Read, copy_of: Copy) -> None:
    folder = copy_of("chestxray14")
    names = (folder / "test_list.txt").read_text().split()
    (folder / "test_list.txt").write_text("")
    error = refusal(read, "chestxray14", folder)
    assert error.code == ErrorCode.DATA_INCOMPLETE and f"{len(names)} images in no list" in error.message
    error = refusal(read, "chestxray14", folder, allow_partial=True)
    assert error.code == ErrorCode.NOT_ENOUGH_DATA and "'test'" in error.message


def test_missing_files_and_folders_are_named(read: Read, copy_of: Copy, tmp_path: Path) -> None:
    folder = copy_of("chestxray14")
    (folder / "test_list.txt").unlink()
    error = refusal(read, "chestxray14", folder, allow_partial=True)
    assert error.code == ErrorCode.INPUT_NOT_FOUND and "test_list.txt" in error.message
    assert refusal(read, "chestxray14", tmp_path / "nowhere").code == ErrorCode.INPUT_NOT_FOUND
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    for place in ("a", "b"):
        (folder / place / "test_list.txt").write_text("x.png\n")
    assert refusal(read, "chestxray14", folder).code == ErrorCode.CONFIG_INVALID


def test_a_pinned_file_must_be_that_file(read: Read, corpora: Path) -> None:
    file = corpora / "chestxray14" / "test_list.txt"
    pinned = undocumented("chestxray14").model_copy(update={"sha256": {"test_list.txt": sha256_file(file)}})
    record = read("chestxray14", protocol=pinned).record
    assert record.pinned == ("test_list.txt",) and record.pins.startswith("pinned: test_list.txt; not pinned: ")
    wrong = pinned.model_copy(update={"sha256": {"test_list.txt": "0" * 64}})
    error = refusal(read, "chestxray14", corpora / "chestxray14", protocol=wrong, allow_partial=True)
    assert error.code == ErrorCode.SPLIT_MISMATCH and "test_list.txt" in error.message


def test_a_lock_holds_later_runs_to_its_split_and_labels(read: Read, copy_of: Copy, edit: Edit, tmp_path: Path) -> None:
    record, lock = read("chestxray14").record, Location.parse(tmp_path / "lock.json")
    write_lock(record, lock)
    check_lock(record, lock)
    folder = copy_of("chestxray14")
    edit(folder / "Data_Entry_2017.csv", "Effusion|", "")
    other = read("chestxray14", folder).record
    with pytest.raises(MedfilipError, match=r"the file Data_Entry_2017\.csv, the labels") as caught:
        check_lock(other, lock)
    assert caught.value.code == ErrorCode.SPLIT_MISMATCH
    with pytest.raises(MedfilipError, match="the protocol"):
        check_lock(read("siim_acr").record, lock)
    check_fingerprint(record, record.split_fingerprint)
    with pytest.raises(MedfilipError) as caught:
        check_fingerprint(other, record.split_fingerprint)
    assert caught.value.code == ErrorCode.SPLIT_MISMATCH
    assert Record.model_validate_json(lock.read_bytes()) == record


def test_another_file_is_no_lock(read: Read, tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text("{}")
    with pytest.raises(MedfilipError) as caught:
        check_lock(read("siim_acr").record, Location.parse(tmp_path / "lock.json"))
    assert caught.value.code == ErrorCode.CONFIG_FILE_UNREADABLE


def test_normal_with_a_finding_is_counted_and_the_finding_stands(read: Read, copy_of: Copy, edit: Edit) -> None:
    folder = copy_of("chestxray14")
    edit(folder / "Data_Entry_2017.csv", "Effusion|", "No Finding|Effusion|")
    found, whole = read("chestxray14", folder), read("chestxray14")
    assert found.record.contradictory > 0 == whole.record.contradictory
    assert (found.truth_NL == whole.truth_NL).all()
