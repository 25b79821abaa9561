"""Label columns and lists of labels as tables write them."""

import pyarrow as pa
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.label_states import list_states, one_hot_states


def test_states_in_columns() -> None:
    table = pa.table({"a": ["1", "0.0", "-1", None, "nan"], "b": ["True", "no", "U", "N/A", "<NA>"]})
    assert one_hot_states(table, ["a", "b"], "t").to_pylist() == ["11", "00", "uu", "..", ".."]


@pytest.mark.parametrize("column", [["0.5"], ["2"], [["1"]]])
def test_what_is_no_state_is_told(column) -> None:
    with pytest.raises(MedfilipError) as caught:
        one_hot_states(pa.table({"a": column}), ["a"], "t")
    assert caught.value.code == ErrorCode.CONFIG_INVALID and "'a'" in str(caught.value)


@pytest.mark.parametrize(
    ("column", "names", "states"),
    [
        (["Mass|Edema", "Edema, old", None], ("Edema", "Edema, old", "Mass"), ["1.1", ".1.", "..."]),
        (["Mass, Edema", "Edema"], ("Edema", "Mass"), ["11", "1."]),
        (["['a b', \"c, d\"]", "[]", "['normal']"], ("a b", "c, d", "normal"), ["11.", "...", "001"]),
        (["[a, b]", "['a' 'b']"], ("a", "b"), ["11", "11"]),
        ([["a, b", None], [], None], ("a, b",), ["1", ".", "."]),
    ],
)
def test_lists_of_labels(column, names, states) -> None:
    found, said = list_states(pa.chunked_array([column]), ".", "labels", "t")
    assert (found, said.to_pylist()) == (names, states)


@pytest.mark.parametrize("column", [["0", "1"], [[1, 2]], [f"opacity 1 {row}" for row in range(1001)]])
def test_lists_of_something_else_are_told(column) -> None:
    texts = pa.array(column).cast(pa.list_(pa.string()) if isinstance(column[0], list) else pa.string())
    with pytest.raises(MedfilipError) as caught:
        list_states(pa.chunked_array([texts]), ".", "label", "t")
    assert caught.value.code == ErrorCode.CONFIG_INVALID and "image_columns.labels=none" in str(caught.value)
