"""The handbook speaks of what the code has."""

import re
from pathlib import Path

from common.error_guide import GUIDES, guide_of
from common.errors import ErrorCode

HANDBOOK = Path(__file__).parents[1] / "deploy" / "handbook"


def test_every_error_code_has_one_row_and_no_row_is_stale():
    rows = re.findall(r"^\| (TB\d{3}) \|", (HANDBOOK / "errors.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(str(code) for code in ErrorCode)


def test_pages_and_handbook_say_the_same_of_a_code():
    text = (HANDBOOK / "errors.md").read_text()
    rows = [f"| {code} | {guide.happened} | {guide.cure} |" for code, guide in GUIDES.items()]
    missing = [row for row in rows if row not in text]
    assert missing == [], "common/error_guide.py and deploy/handbook/errors.md differ"
    assert set(GUIDES) == set(ErrorCode)
    assert "TB999" in guide_of("TB999").happened


def test_links_of_the_readme_exist():
    root = HANDBOOK.parents[1]
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (root / "README.md").read_text())
    assert links
    missing = [link for link in links if not (root / link).exists()]
    assert missing == []
