"""``medfilip knowledge``: readable at 100 columns, exit codes that a script can use, errors with a suggestion."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.inject import training_texts
from medfilip.knowledge.knowledge import load_knowledge
from pipelines.cli import app

DRAFT = """
version: 1
sources: {model: drafted by a language model}
entries:
  other:crazy paving:
    review: unreviewed
    sources: [model]
    attributes: {density: [ground-glass haze], shape: [reticular lines]}
    descriptions:
      - haze of both lungs crossed by a fine net of lines
      - paving stones of grey lung between thin white lines
      - patchwork of hazy areas with lines running through them
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["knowledge", *arguments], env={"NO_COLOR": "1"})


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    file = tmp_path / "drafts.yaml"
    file.write_text(DRAFT)
    return file


def test_an_entry_is_shown_with_conditions_and_the_texts_of_a_finding() -> None:
    shown = run("show", "Pleural fluid", "--severity", "moderate", "--side", "left", "--site", "lung base")
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert max(map(len, lines)) <= 100
    assert any(
        "fluid reaching the mid lung" in line and "(severity: moderate)" in line and "•" in line for line in lines
    )
    assert any("heart pushed to the other side" in line and "•" not in line for line in lines)
    finding = {
        "category": "pleural_effusion",
        "certainty": "present",
        "severity": "moderate",
        "laterality": "left",
        "sites": ["lung_base"],
    }
    flat = " ".join(shown.output.split())
    assert all(text in flat for text in training_texts(finding, load_knowledge(), load_ontology()))


def test_every_entry_can_be_shown() -> None:
    for category in list(load_knowledge().entries)[::15]:
        shown = run("show", category, "--certainty", "absent")
        assert shown.exit_code == 0 and "no " in shown.output
        assert max(map(len, shown.output.splitlines())) <= 100


def test_a_category_without_entry_says_why() -> None:
    shown = run("show", "thrombosis", "--mode", "none")
    assert shown.exit_code == 0 and "contrast medium" in shown.output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "pnumothorax"), "not_found", "'pneumothorax'"),
        (("show", "qqqq"), "not_found", "ontology.yaml"),
        (("show", "mass", "--severity", "sever"), "config_invalid", "'severe'"),
        (("show", "mass", "--mode", "conditoned"), "config_invalid", "'conditioned'"),
        (("show", "mass", "--site", "liver"), "config_invalid", "'--site'"),
        (("show", "mass", "--file", "/nowhere.yaml"), "input_not_found", "installed"),
        (("lint", "/nowhere.yaml"), "input_not_found", "installed"),
        (("diff", "installed", "/nowhere.yaml"), "input_not_found", "installed"),
    ],
)
def test_mistakes_get_one_sentence_and_a_code(arguments: tuple[str, ...], code: str, words: str) -> None:
    result = run(*arguments)
    message = " ".join(result.stderr.split())
    assert result.exit_code in (1, 2) and f"[{code}]" in message and words in message


def test_the_shipped_knowledge_passes() -> None:
    result = run("lint")
    assert result.exit_code == 0 and "0 errors, 0 warnings" in result.output


def test_warnings_do_not_fail_and_errors_do(draft: Path) -> None:
    passed = run("lint", str(draft))
    assert passed.exit_code == 0 and "0 errors" in passed.output and "missing_entry" in passed.output
    draft.write_text(DRAFT.replace("[reticular lines]", "[no lines]").replace("[model]", "[book]"))
    failed = run("lint", str(draft))
    assert failed.exit_code == 1 and "2 errors" in failed.output
    assert "negation" in failed.output and "unknown_source" in failed.output
    assert max(map(len, failed.output.splitlines())) <= 100


def test_a_draft_can_be_shown_and_compared(draft: Path) -> None:
    shown = run("show", "other:crazy paving", "--file", str(draft))
    assert shown.exit_code == 0 and "crazy paving. ground-glass haze, reticular lines" in shown.output
    later = draft.with_name("later.yaml")
    later.write_text(DRAFT.replace("reticular lines", "ring-shaped shadow"))
    compared = run("diff", str(draft), str(later))
    assert compared.exit_code == 0
    lines = [line.split() for line in compared.output.splitlines()]
    assert ["shape", "+", "ring-shaped", "shadow"] in lines and "2 changes in 1 category" in compared.output
    assert "other:crazy paving" in compared.output


def test_a_broken_file_is_not_compared(draft: Path) -> None:
    draft.write_text("entries: 7")
    result = run("diff", "installed", str(draft))
    assert result.exit_code == 2 and "knowledge lint" in " ".join(result.stderr.split())
