"""The coordinator's page in a real Chromium: seen, heard, by keyboard, live, and from elsewhere."""

import re
from urllib.parse import urlsplit

import pytest
from page_runs import WrittenRun, served_run
from seen_pages import opened, violations, walk, wider_than_the_window

from common.storage.file_lock import held_alone

PERIOD = 2500
"""A little longer than the page waits between two looks, ms."""


@pytest.fixture
def run(tmp_path):
    made = WrittenRun(tmp_path / "run")
    with held_alone(made.folder / "lock", ValueError()):
        made.enrol("site-a", "site-b")
        made.refuse("site-c", "TB503")
        made.commit(missing={"site-c": "silent"})
        made.commit(missing={"site-c": "silent"})
        yield made


@pytest.fixture
def url(run):
    with served_run(run.folder) as address:
        yield address


def later(page, periods=1):
    """Let the page's own clock go on."""
    for _ in range(periods):
        page.clock.run_for(PERIOD)
        page.wait_for_timeout(150)


def test_a_round_arrives_without_moving_anything(chromium, run, url):
    with opened(chromium, url, size="phone") as page:
        page.locator("summary").focus()
        page.keyboard.press("Enter")
        page.evaluate(
            "() => { window.kept = [...document.querySelectorAll('h1, h2, table, svg, summary')];"
            "window.loaded = performance.timeOrigin; scrollTo(0, 700); }"
        )
        before = page.evaluate("scrollY")
        assert before > 300
        run.commit(missing={"site-c": "silent"})
        page.wait_for_selector("dd:has-text('3 of 20')")
        after = page.evaluate(
            "() => ({ same: window.kept.every((node) => node.isConnected),"
            "loaded: window.loaded === performance.timeOrigin, scroll: scrollY,"
            "open: document.querySelector('details').open,"
            "focus: document.activeElement.tagName })"
        )
        assert after == {
            "same": True,
            "loaded": True,
            "scroll": before,
            "open": True,
            "focus": "SUMMARY",
        }
        assert page.locator("progress").get_attribute("value") == "3"
        assert page.locator("details tbody tr").count() == 3
        assert page.title().startswith("Training: round 4 of 20")


def test_nothing_is_touched_while_nothing_happens(chromium, url):
    with opened(chromium, url) as page:
        page.clock.install()
        page.evaluate(
            "() => { window.touched = 0; new MutationObserver((found) => { window.touched += "
            "found.length; }).observe(document.body, { subtree: true, childList: true, "
            "attributes: true, characterData: true }); }"
        )
        answers = []
        page.on("response", lambda answer: answers.append(answer.status))
        page.reload()
        later(page, 4)
        assert answers.count(304) >= 2
        assert page.evaluate("window.touched ?? 0") == 0


def test_a_screen_reader_hears_phases_at_once_and_rounds_now_and_then(chromium, run, url):
    with opened(chromium, url) as page:
        page.clock.install()
        page.reload()
        told = page.locator("#announcer")
        assert (told.get_attribute("aria-live"), told.inner_text()) == ("polite", "")
        later(page)
        run.commit(missing={"site-c": "silent"})
        later(page)
        first = told.inner_text()
        assert "3 of 20 rounds committed" in first
        run.commit(missing={"site-c": "silent"})
        later(page)
        assert told.inner_text() == first
        run.enter(phase="evaluating")
        later(page)
        assert told.inner_text().startswith("Evaluating")
        run.enter(phase="round")
        run.commit(missing={"site-c": "silent"})
        later(page)
        run.commit(missing={"site-c": "silent"})
        later(page, 8)
        assert "6 of 20" in told.inner_text()


def test_a_page_that_is_cut_off_says_so_and_comes_back(chromium, run):
    with served_run(run.folder) as url:
        port = urlsplit(url).port
        context = opened(chromium, url, watch=False)
        page = context.__enter__()
        page.clock.install()
        page.reload()
        later(page)
        assert page.locator("#connection").is_hidden()
    try:
        later(page, 6)
        alert = page.get_by_role("alert")
        assert "does not answer since" in alert.inner_text()
        assert "2 of 20" in page.inner_text("main")
        run.commit(missing={"site-c": "silent"})
        with served_run(run.folder, port=port):
            later(page, 16)
            assert page.locator("#connection").is_hidden()
            assert "3 of 20" in page.inner_text("main")
    finally:
        context.__exit__(None, None, None)


def test_keyboard_walk(chromium, url):
    with opened(chromium, url) as page:
        stops = walk(page, 6)
        assert [(stop["tag"], stop["name"]) for stop in stops] == [
            ("a", "Skip to the content"),
            ("div", "sites-heading"),
            ("summary", "The last 2 rounds in numbers"),
            ("div", "budget-heading"),
            ("a", "status.json"),
            ("body", stops[5]["name"]),
        ]
        assert all(stop["outline"] and stop["seen"] for stop in stops[:5])
        page.locator("a.skip").focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        assert walk(page, 1)[0]["name"] == "sites-heading"
        page.locator("summary").focus()
        page.keyboard.press("Space")
        assert page.locator("details table").is_visible()
        assert walk(page, 1)[0]["name"] == "curves-heading"


def test_what_the_accessibility_tree_says(chromium, url):
    with opened(chromium, url) as page:
        tree = page.locator("body").aria_snapshot()
        for said in (
            "- banner:",
            "- main:",
            "- contentinfo:",
            '- heading "tiny" [level=1]',
            '- heading "Problems" [level=2]',
            'progressbar "Committed rounds: 2 of 20"',
            '- region "Privacy budget":',
            '- table "Every site of the roster, and its state.":',
            '- figure "Change of the model"',
            'img "1 in round 1, 0.5 in round 2; lowest 0.5, highest 1 L2 norm."',
            '- columnheader "State"',
            '- rowheader "site-c"',
        ):
            assert said in tree, f"{said} not in\n{tree}"
        levels = [int(level) for level in re.findall(r"\[level=(\d)\]", tree)]
        assert levels[0] == 1
        assert levels.count(1) == 1


@pytest.mark.parametrize(
    ("size", "scheme"), [("desktop", "dark"), ("phone", "light"), ("narrow", "dark")]
)
def test_no_rule_of_accessibility_is_broken(chromium, run, url, size, scheme):
    run.enter(phase="failed", reason="TB601: round 3 found too few sites in 3 attempts")
    (run.folder / "report.html").write_text("<!doctype html><title>report</title>")
    with opened(chromium, url, size=size, color_scheme=scheme) as page:
        page.locator("summary").click()
        assert violations(page) == []
        assert not wider_than_the_window(page)


def test_an_empty_folder_is_a_whole_page_that_fills(chromium, tmp_path):
    with served_run(tmp_path / "run") as url, opened(chromium, url) as page:
        assert "No run here yet" in page.inner_text("main")
        assert violations(page) == []
        WrittenRun(tmp_path / "run").enrol()
        page.wait_for_selector("text=Ready: enough sites take part")
        assert page.locator("table").count() == 2


def test_without_script_the_page_reads_and_reloads(chromium, url):
    with opened(chromium, url, java_script_enabled=False) as page:
        assert "2 of 20" in page.inner_text("main")
        assert page.locator("meta[http-equiv=refresh]").get_attribute("content") == "10"


def test_a_rebound_name_and_another_site_see_nothing(chromium, run, url):
    port = urlsplit(url).port
    with opened(chromium, url, watch=False) as page:
        answer = page.goto(f"http://board.evil.example:{port}/status.json")
        assert answer.status == 421
        assert "tiny" not in page.content()
    with served_run(run.folder) as other, opened(chromium, other, watch=False) as page:
        read = page.evaluate(
            "(url) => fetch(url).then((a) => a.text()).catch(() => 'refused')", f"{url}status.json"
        )
        assert read == "refused"
        page.goto(other)
        page.evaluate(
            "(url) => { const frame = document.createElement('iframe'); frame.src = url;"
            "document.body.append(frame); }",
            url,
        )
        page.wait_for_timeout(300)
        assert all(frame.url != url for frame in page.frames)
