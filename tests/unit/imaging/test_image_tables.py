"""Tables as programs write them: what is read of cells and columns, and which file a path means."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.image_tables import match_files, read_table
from medfilip.storage.location import Location


def read(tmp_path: Path, data: bytes) -> dict[str, list[object]]:
    file = tmp_path / "t.csv"
    file.write_bytes(data)
    return read_table(Location.parse(file)).to_pydict()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_marks_line_ends_and_quoted_lines_of_csv(tmp_path, encoding) -> None:
    text = 'path,"patient\r\nid",note\r\nä.png,123.0,"a\r\nb"\r\nb.png,, \r\n'
    assert read(tmp_path, text.encode(encoding)) == {
        "path": ["ä.png", "b.png"],
        "patient\r\nid": ["123", None],
        "note": ["a\r\nb", None],
    }


def test_columns_of_parquet_become_text(tmp_path) -> None:
    pq.write_table(
        pa.table(
            {
                "id": pa.array([1.0, float("nan")]),
                "wide": pa.array([1.5, float("inf")]),
                "flag": [True, None],
                "list": [["a", None], None],
                "boxes": [[{"x": 1}], []],
                "name": pa.array(["a", "b"]).dictionary_encode(),
            }
        ),
        tmp_path / "t.parquet",
    )
    assert read_table(Location.parse(tmp_path / "t.parquet")).to_pydict() == {
        "id": ["1", None],
        "wide": ["1.5", None],
        "flag": ["true", None],
        "list": [["a", None], None],
        "boxes": [None, None],
        "name": ["a", "b"],
    }


def match(names: list[str], wanted: list[str]) -> list[int | None]:
    found: list[int | None] = match_files(pa.chunked_array([names]), pa.chunked_array([wanted]), "t").to_pylist()
    return found


@pytest.mark.parametrize(
    ("names", "wanted", "found"),
    [
        (["a/1.png", "a/2.png"], ["a/2.png", "a/2.png", "a/1.png"], [1, 1, 0]),
        (["a/1.png"], [".\\\\a\\\\1.png".replace("\\\\", "\\")], [0]),
        (["a/1.png", "b/1.png", "a/2.png"], ["1.png", "2.png"], [None, 2]),
        (["p1/view1.png"], ["p2/view1.png", "p3/view1.png", "p1/view1.png"], [None, None, 0]),
        (["train/1.2.3.dicom"], ["1.2.3"], [0]),
        (["a/1.PNG"], ["root/a/1.PNG", "root/b/1.PNG"], [0, None]),
    ],
)
def test_files_that_paths_mean(names, wanted, found) -> None:
    assert match(names, wanted) == found


def test_a_name_that_is_nobodys_alone_finds_nothing() -> None:
    with pytest.raises(MedfilipError) as caught:
        match(["view1.png"], ["p2/view1.png", "p3/view1.png"])
    assert caught.value.code == ErrorCode.INPUT_NOT_FOUND
