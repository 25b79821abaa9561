import pytest

from medfilip.imaging.view_words import view_in_words


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("AP Supine", ("frontal", "AP")),
        ("Frontal", ("frontal", None)),
        ("antero-posterior", ("frontal", "AP")),
        ("PA", ("frontal", "PA")),
        ("L", ("lateral", "LATERAL")),
        ("Cross-table lateral", ("lateral", "LATERAL")),
        ("AP RLD", ("frontal", "AP")),
        ("left lateral", ("lateral", "LL")),
        ("LAO", ("unknown", None)),
        ("swimmer's", ("unknown", None)),
        ("", ("unknown", None)),
        (None, ("unknown", None)),
    ],
)
def test_views_in_the_words_of_tables(words, expected) -> None:
    assert view_in_words(words) == expected
