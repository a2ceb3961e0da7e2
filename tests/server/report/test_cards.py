"""Study card and model card: filled from the run, and open where only people can know."""

import re

import pytest

from server.report.page import TO_COMPLETE, cell


@pytest.fixture(scope="module")
def cards(folder):
    return {name: (folder / f"{name}.md").read_text() for name in ("study_card", "model_card")}


def test_every_item_of_tripod_ai_stands_once_and_none_is_empty(cards):
    rows = re.findall(
        r"^\| ([0-9]+)[a-g–]* \| (.+?) \| (.*) \|$", cards["study_card"], re.MULTILINE
    )
    assert sorted({int(number) for number, _, _ in rows}) == list(range(1, 28))
    assert all(reported.strip() for _, _, reported in rows)
    assert cards["study_card"].count(TO_COMPLETE) >= 15


def test_cards_carry_the_facts_of_the_run(cards, run, written):
    _, twin = written
    for card in cards.values():
        assert run.study.digest() in card
        assert run.model_digest in card
        assert "SYNTHETIC PATIENTS" in card
        assert f"{twin['global']['c_index']:.3f}" in card
        assert "sex: female" in card
        assert "None" not in card
        assert "{{" not in card
    assert "15 rounds planned" in cards["model_card"]


def test_every_table_has_as_many_cells_in_each_row_as_in_its_head(cards):
    for card in cards.values():
        for block in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(widths) == 1, block


def test_a_title_cannot_break_a_table_or_start_markup(cards):
    assert "A &lt;b>title&lt;/b> &amp; more \\| less" in cards["study_card"]
    assert cell("two\nlines") == "two lines"
