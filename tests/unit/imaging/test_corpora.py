"""Corpora in the layouts in which they are handed out, written here with a few bytes for each file."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.ontology import load_ontology
from medfilip.imaging.corpora import ImageCorpus, label_set, list_images
from medfilip.imaging.image_columns import ImageColumns
from medfilip.imaging.listing import MISSING_BYTES, read_part
from medfilip.storage.location import Location

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * len(name))


def listed(folder: Path, **options: object):
    return list_images(ImageCorpus(Location.parse(folder), **options), load_ontology())


def column(listing, name: str) -> dict[str, object]:
    rows = listing.rows.to_pylist()
    return {row["name"].rsplit("/", 1)[-1]: row[name] for row in rows}


def test_a_folder_says_names_and_sizes_only(tmp_path) -> None:
    touch(tmp_path, "b/2.dcm", "a/1.2.840.5", "readme.txt", ".hidden/3.dcm")
    listing = listed(tmp_path)
    assert listing.kind == "folder" and listing.others == 1
    assert listing.rows["name"].to_pylist() == ["a/1.2.840.5", "b/2.dcm"]
    assert listing.rows["bytes"].to_pylist() == [11, 7] and listing.rows["patient_id"].null_count == 2


def write_mimic(root: Path) -> None:
    touch(
        root,
        "files/p10/p10000032/s50414267/aa-1.jpg",
        "files/p10/p10000032/s50414267/bb-2.jpg",
        "files/p11/p11000011/s51029426/cc-3.jpg",
    )
    tables = {
        "mimic-cxr-2.0.0-metadata.csv.gz": "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,"
        "ViewPosition,Rows,Columns\naa-1,10000032,50414267,CHEST,PA,10,10\nbb-2,10000032,50414267,CHEST,LATERAL,10,10\n",
        "mimic-cxr-2.0.0-split.csv.gz": "dicom_id,study_id,subject_id,split\naa-1,50414267,10000032,validate\n"
        "bb-2,50414267,10000032,validate\ncc-3,51029426,11000011,test\n",
        "mimic-cxr-2.0.0-chexpert.csv.gz": "subject_id,study_id,Atelectasis,Cardiomegaly,No Finding,Support Devices\n"
        "10000032,50414267,1.0,-1.0,,\n11000011,51029426,,,1.0,\n",
    }
    for name, text in tables.items():
        (root / name).write_bytes(gzip.compress(text.encode()))


@pytest.mark.parametrize("below", ["", "files"])
def test_the_tree_of_mimic_with_its_tables(tmp_path, below) -> None:
    write_mimic(tmp_path)
    listing = listed(tmp_path / below)
    assert listing.kind == "mimic" and len(listing.rows) == 3
    assert column(listing, "patient_id") == {"aa-1.jpg": "10000032", "bb-2.jpg": "10000032", "cc-3.jpg": "11000011"}
    assert column(listing, "study_id")["cc-3.jpg"] == "51029426"
    assert column(listing, "view") == {"aa-1.jpg": "PA", "bb-2.jpg": "LATERAL", "cc-3.jpg": None}
    assert column(listing, "split")["bb-2.jpg"] == "validate"
    found = label_set(listing, load_ontology()).findings(column(listing, "labels")["aa-1.jpg"], "s")
    assert [(row["category"], row["certainty"]) for row in found] == [
        ("atelectasis", "present"),
        ("cardiomegaly", "uncertain"),
    ]
    none = label_set(listing, load_ontology()).findings(column(listing, "labels")["cc-3.jpg"], "s")
    # No finding: nothing but devices may be there.
    assert {(row["category"], row["certainty"]) for row in none} == {
        ("atelectasis", "absent"),
        ("cardiomegaly", "absent"),
    }


def test_mimic_without_tables_has_patients_and_studies(tmp_path) -> None:
    touch(tmp_path, "p10/p10000032/s50414267/aa-1.dcm")
    listing = listed(tmp_path)
    assert column(listing, "study_id") == {"aa-1.dcm": "50414267"} and not listing.labels


def write_nih(root: Path) -> None:
    touch(root, *(f"images_00{i % 2 + 1}/images/0000000{i}_000.png" for i in range(1, 5)), "images_001/images/x.png")
    rows = [
        "00000001_000.png,Cardiomegaly|Emphysema,0,1,57,M,PA,2682,2749,0.143,0.143,",
        "00000002_000.png,No Finding,0,2,80,F,AP,2500,2048,0.168,0.168,",
        "00000003_000.png,Hernia,3,3,45,F,PA,2500,2048,0.168,0.168,",
        "00000004_000.png,Pleural_Thickening,1,4,45,F,PA,2500,2048,0.168,0.168,",
        "00000009_000.png,Mass,0,9,45,F,PA,2500,2048,0.168,0.168,",
    ]
    (root / "Data_Entry_2017_v2020.csv").write_text(NIH_HEADER + "\n".join(rows) + "\n")
    (root / "test_list.txt").write_text("00000003_000.png\n00000009_000.png\n")
    (root / "train_val_list.txt").write_text("00000001_000.png\n00000002_000.png\n")


def test_chest_xray14_with_its_table_and_lists(tmp_path) -> None:
    write_nih(tmp_path)
    listing = listed(tmp_path)
    assert listing.kind == "nih" and listing.unlisted == 1
    assert column(listing, "bytes")["00000009_000.png"] == MISSING_BYTES
    assert column(listing, "patient_id")["00000003_000.png"] == "3"
    assert column(listing, "study_id")["00000003_000.png"] == "3/3"
    assert (column(listing, "sex")["00000001_000.png"], column(listing, "age")["00000001_000.png"]) == ("M", "57")
    splits = column(listing, "split")
    assert splits["00000003_000.png"] == "test" and splits["00000004_000.png"] is None
    assert {splits["00000001_000.png"], splits["00000002_000.png"]} <= {"train", "validation"}
    labels = label_set(listing, load_ontology())
    states = column(listing, "labels")
    found = [row["category"] for row in labels.findings(states["00000001_000.png"], "s")]
    assert found == ["cardiomegaly", "emphysema"]
    absent = labels.findings(states["00000002_000.png"], "s")
    assert {row["certainty"] for row in absent} == {"absent"} and len(absent) == len(labels.names) - 1


def test_what_a_list_does_not_name_is_absent_on_request(tmp_path) -> None:
    write_nih(tmp_path)
    listing = listed(tmp_path, unlisted="0")
    found = label_set(listing, load_ontology()).findings(column(listing, "labels")["00000003_000.png"], "s")
    assert {row["category"]: row["certainty"] for row in found}["cardiomegaly"] == "absent"


def test_openi_names_its_studies_and_a_table_the_views(tmp_path) -> None:
    touch(tmp_path / "png", "CXR6_IM-2192-1001.png", "CXR6_IM-2192-2001.png", "CXR10_1_IM-0002-1001.png")
    table = pa.table(
        {"image_ids": [["CXR6_IM-2192-1001", "CXR6_IM-2192-2001"]], "image_views": [["Frontal", "Lateral"]]}
    )
    pq.write_table(table, tmp_path / "reports.parquet")
    listing = listed(tmp_path / "png", table=Location.parse(tmp_path / "reports.parquet"))
    assert listing.kind == "openi" and listed(tmp_path / "png").kind == "openi"
    assert column(listing, "study_id")["CXR10_1_IM-0002-1001.png"] == "CXR10"
    assert column(listing, "view") == {
        "CXR6_IM-2192-1001.png": "Frontal",
        "CXR6_IM-2192-2001.png": "Lateral",
        "CXR10_1_IM-0002-1001.png": None,
    }


def test_a_table_of_chexpert_begins_above_the_folder(tmp_path) -> None:
    names = [f"train/patient0000{i}/study1/view1_frontal.jpg" for i in (1, 2)]
    touch(tmp_path, *names)
    lines = ["Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema,Pleural Effusion,Support Devices"]
    lines += [f"CheXpert-v1.0-small/{names[0]},Female,68,Frontal,AP,,1.0,-1.0,1.0"]
    lines += [f"CheXpert-v1.0-small/{names[1]},Male,87,Frontal,PA,1.0,,0.0,"]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    listing = listed(tmp_path, table=Location.parse(tmp_path / "train.csv"))
    assert listing.labels == ("No Finding", "Edema", "Pleural Effusion", "Support Devices")
    rows = listing.rows.to_pylist()
    assert [row["patient_id"] for row in rows] == ["patient00001", "patient00002"]
    assert [row["study_id"] for row in rows] == ["patient00001/study1", "patient00002/study1"]
    assert [row["labels"] for row in rows] == [".1u1", "1.0."]
    assert rows[0]["view"] in ("AP", "Frontal") and rows[0]["bytes"] > 0


def test_a_table_of_reports_and_images_gives_both(tmp_path) -> None:
    touch(tmp_path, "img/a.png", "img/b.png")
    (tmp_path / "list.tsv").write_text(
        "file\tmrn\tprojection\treport\na.png\t7\tlateral\tClear lungs.\nb.png\t8\tPA\tMass.\n"
    )
    listing = listed(tmp_path / "img", table=Location.parse(tmp_path / "list.tsv"))
    assert listing.reports is not None and listing.reports.columns.text == "report"
    assert listing.reports.columns.report_id == "file" and column(listing, "study_id")["a.png"] == "a.png"
    assert column(listing, "patient_id") == {"a.png": "7", "b.png": "8"}


def test_columns_are_given_by_name(tmp_path) -> None:
    touch(tmp_path, "1.png")
    (tmp_path / "t.csv").write_text("wo;wer;befund\n1.png;x;1\n")
    columns = ImageColumns(path="wo", patient_id="wer", label_columns=("befund",))
    listing = listed(tmp_path, table=Location.parse(tmp_path / "t.csv"), columns=columns)
    assert listing.labels == ("befund",) and listing.rows["labels"].to_pylist() == ["1"]


@pytest.mark.parametrize(
    ("text", "columns", "code", "told"),
    [
        ("who,what\nx,1\n", {}, ErrorCode.COLUMN_MISSING, "image_columns.path"),
        ("path\nother.png\n", {}, ErrorCode.INPUT_NOT_FOUND, "images"),
        ("path,Edema,Mass\n1.png,0.7,1\n", {}, ErrorCode.CONFIG_INVALID, "'Edema'"),
        ("path\n1.png\n", {"split": "fold"}, ErrorCode.COLUMN_MISSING, "image_columns.split"),
        ("path,fold\n1.png,3\n", {}, ErrorCode.CONFIG_INVALID, "image_columns.split"),
        ("path,label\n1.png,1\n", {}, ErrorCode.CONFIG_INVALID, "image_columns.label_columns"),
        ("path,patient_id\n1.png,1\n1.png,2\n", {}, ErrorCode.CONFIG_INVALID, "several patients"),
    ],
)
def test_a_table_that_does_not_fit_is_told(tmp_path, text, columns, code, told) -> None:
    touch(tmp_path, "1.png")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(MedfilipError) as caught:
        listed(tmp_path, table=Location.parse(tmp_path / "t.csv"), columns=ImageColumns(**columns))
    assert caught.value.code == code and told in str(caught.value)


def test_one_branch_of_the_tree_of_mimic_has_its_patients_and_tables(tmp_path) -> None:
    write_mimic(tmp_path)
    listing = listed(tmp_path / "files/p10")
    assert listing.kind == "mimic" and column(listing, "patient_id")["aa-1.jpg"] == "10000032"
    assert column(listing, "split")["aa-1.jpg"] == "validate" and listing.labels


def test_the_nearest_tables_of_mimic_count(tmp_path) -> None:
    write_mimic(tmp_path / "new")
    (tmp_path / "mimic-cxr-2.0.0-split.csv").write_text("dicom_id,study_id,subject_id,split\naa-1,1,1,test\n")
    assert column(listed(tmp_path / "new/files"), "split")["aa-1.jpg"] == "validate"


def test_a_table_of_ones_own_stands_over_those_of_mimic(tmp_path) -> None:
    write_mimic(tmp_path)
    (tmp_path / "mine.csv").write_text("dicom_id,Edema,Mass\naa-1,1,0\nbb-2,,1\n")
    for kind in ("auto", "mimic"):
        listing = listed(tmp_path, table=Location.parse(tmp_path / "mine.csv"), kind=kind)
        assert listing.labels == ("Edema", "Mass") and listing.unlisted == 1
    assert column(listing, "patient_id") == {"aa-1.jpg": "10000032", "bb-2.jpg": "10000032"}


def test_a_folder_of_chexpert_without_its_table_has_patients(tmp_path) -> None:
    touch(tmp_path, *(f"train/patient00001/study{i}/view1_frontal.jpg" for i in (1, 2)), "patient7/study1/header.dcm")
    rows = listed(tmp_path).rows.to_pylist()
    assert [row["patient_id"] for row in rows] == ["patient00001", "patient00001", None]


CHEXPERT_HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,Edema,Pleural Effusion\n"


def test_a_file_is_not_taken_for_that_of_another_patient_with_its_name(tmp_path) -> None:
    names = [f"train/patient{i:05d}/study1/view{1 + i % 2}_{'lateral' if i % 2 else 'frontal'}.jpg" for i in range(9)]
    touch(tmp_path, *names[:3])  # most of the corpus was not fetched, and one file alone is a lateral
    lines = [f"CheXpert-v1.0/{name},Male,5,Frontal,PA,{int(i == 1)},0" for i, name in enumerate(names)]
    (tmp_path / "train.csv").write_text(CHEXPERT_HEADER + "\n".join(lines))
    rows = listed(tmp_path / "train.csv").rows.to_pylist()
    assert [row["name"] for row in rows if row["bytes"] > 0] == names[:3]
    assert [row["labels"] for row in rows if row["bytes"] > 0] == ["00", "10", "00"]


def test_a_dicom_file_in_a_table_has_the_study_of_its_header(tmp_path) -> None:
    touch(tmp_path, "patient1/study1/1.dcm", "patient1/study1/1.png")
    (tmp_path / "t.csv").write_text("path,mrn\npatient1/study1/1.dcm,7\npatient1/study1/1.png,7\n")
    assert column(listed(tmp_path / "t.csv"), "study_id") == {"1.dcm": None, "1.png": "patient1/study1"}


def test_a_view_that_one_column_lacks_is_in_another(tmp_path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "t.csv").write_text(CHEXPERT_HEADER + "a.jpg,F,1,Frontal,AP,1,0\nb.jpg,F,1,Lateral,,1,0\n")
    assert column(listed(tmp_path / "t.csv"), "view") == {"a.jpg": "AP", "b.jpg": "Lateral"}


def test_reports_and_images_of_one_table_share_studies_whatever_the_paths_say(tmp_path) -> None:
    names = [f"train/patient00001/study{i}/view1_frontal.jpg" for i in (1, 2)]
    touch(tmp_path, *names)
    rows = "".join(f"{name},patient00001,Clear lungs.\n" for name in names)
    (tmp_path / "t.csv").write_text("path_to_image,deid_patient_id,report\n" + rows)
    listing = listed(tmp_path / "t.csv")
    assert listing.reports is not None and listing.reports.columns.study_id == "path_to_image"
    assert listing.reports.columns.patient_id == "deid_patient_id"
    assert listing.rows["study_id"].to_pylist() == names


def test_chest_xray14_is_found_from_a_folder_of_its_images(tmp_path) -> None:
    write_nih(tmp_path)
    with (tmp_path / "Data_Entry_2017_v2020.csv").open("a") as table:
        table.write(",,,,,,,,,,,\n")  # a line without a file
    listing = listed(tmp_path / "images_001/images")
    assert listing.kind == "nih" and column(listing, "study_id")["00000002_000.png"] == "2/0"


def test_rows_of_boxes_and_of_several_readers_are_joined(tmp_path) -> None:
    touch(tmp_path, "train/a.dicom", "train/b.dicom")
    rows = "a,Mass,R1\na,Edema,R2\na,Edema,R2\nb,No finding,R1\nb,,R2\n"
    (tmp_path / "train.csv").write_text("image_id,class_name,rad_id\n" + rows)
    listing = listed(tmp_path / "train", table=Location.parse(tmp_path / "train.csv"))
    assert listing.labels == ("Edema", "Mass", "No finding")
    assert column(listing, "labels") == {"a.dicom": "11.", "b.dicom": "001"} and len(listing.rows) == 2


def test_columns_among_labels_that_hold_states_are_labels(tmp_path) -> None:
    touch(tmp_path, "1.png", "2.png")
    (tmp_path / "t.csv").write_text("path,Edema,Nodule/Mass,Zebra sign,note,Mass\n1.png,1,0,1,x,0\n2.png,0,1,,y,1\n")
    listing = listed(tmp_path / "t.csv")
    assert listing.labels == ("Edema", "Nodule/Mass", "Zebra sign", "Mass")
    assert label_set(listing, load_ontology()).categories == ("edema", "other:nodule mass", "other:zebra sign", "mass")


@pytest.mark.parametrize(("values", "labels"), [("1,0", ("Mass",)), ("71,60", ())])
def test_a_single_column_is_a_label_if_it_holds_states(tmp_path, values, labels) -> None:
    touch(tmp_path, "0.png", "1.png")
    lines = [f"{row}.png,{value}" for row, value in enumerate(values.split(","))]
    (tmp_path / "t.csv").write_text("path,Mass\n" + "\n".join(lines))
    assert listed(tmp_path / "t.csv").labels == labels


def test_parts_hold_whole_studies_and_all_rows(tmp_path) -> None:
    touch(tmp_path, *(f"p10/p100000{i:02d}/s500000{i:02d}/{j}.jpg" for i in range(50) for j in range(4)))
    listing = listed(tmp_path)
    file = Location.parse(tmp_path / "listing.parquet")
    parts = listing.write(file)
    studies = [set(read_part(file, part)["study_id"].to_pylist()) for part in range(parts)]
    assert parts == 4 and sum(map(len, studies)) == len(set.union(*studies)) == 50
    names = [name for part in range(parts) for name in read_part(file, part)["name"].to_pylist()]
    assert names == listing.rows["name"].to_pylist() and len(names) == 200


def test_parts_hold_whole_patients_where_headers_name_the_studies(tmp_path) -> None:
    touch(tmp_path, *(f"{i:03d}.dcm" for i in range(200)))
    lines = ["path,patient_id", *(f"{i:03d}.dcm,{i // 3}" for i in range(200))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    listing = listed(tmp_path, table=Location.parse(tmp_path / "t.csv"))
    file = Location.parse(tmp_path / "listing.parquet")
    patients = [set(read_part(file, part)["patient_id"].to_pylist()) for part in range(listing.write(file))]
    assert len(patients) > 2 and sum(map(len, patients)) == len(set.union(*patients))


def test_a_column_that_joins_everything_does_not_make_one_part(tmp_path) -> None:
    touch(tmp_path, *(f"{i:03d}.png" for i in range(600)))
    lines = ["path,patient_id", *(f"{i:03d}.png,everybody" for i in range(600))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    listing = listed(tmp_path, table=Location.parse(tmp_path / "t.csv"))
    assert listing.cuts() == [0, 256, 512, 600]


def test_the_fingerprint_is_that_of_what_is_known(tmp_path) -> None:
    write_mimic(tmp_path)
    before = listed(tmp_path).fingerprint()
    assert listed(tmp_path / "files").rows.num_rows == 3 and listed(tmp_path).fingerprint() == before
    (tmp_path / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    assert listed(tmp_path).fingerprint() != before
