"""A hospital's page in a real Chromium, with an agent that comes and goes."""

from contextlib import contextmanager

import pytest
import torch
import yaml
from seen_pages import opened, violations, walk, wider_than_the_window
from tiny_consortium import tiny_agents, tiny_study

from client.agent.service import serving
from client.agent.site_agent import SiteAgent
from client.page.site_files import LedgerReader, read_site_files
from client.page.site_view import content_of, view_site
from client.site.site_folder import load_policy
from common.commands.cli_output import Output
from common.page.application import live_page
from common.page.serving import page_served
from simulations.engines.consortium_run import run_in_process


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A hospital after a real run of four rounds."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("page")
    study = tiny_study(privacy={"mode": "local", "epsilon": 6.0, "evaluation": {"release": "dp"}})
    run_in_process(study, tiny_agents(study, folder), folder / "run", output=Output(json_mode=True))
    approvals = [
        {
            "study_digest": study.digest(),
            "epsilon_ceiling": 8.0,
            "evaluation_epsilon_ceiling": 6.0,
        }
    ]
    (folder / "site-a" / "site.yaml").write_text(
        yaml.safe_dump({"site_id": "site-a", "approvals": approvals})
    )
    return folder / "site-a"


@contextmanager
def served_site(folder):
    reader = LedgerReader()
    app = live_page(
        lambda: content_of(view_site(read_site_files(folder, reader))),
        package="client.page",
        template="site.html.j2",
    )
    with page_served(app) as url:
        yield url


@pytest.mark.parametrize(
    ("size", "scheme"), [("desktop", "dark"), ("phone", "light"), ("narrow", "dark")]
)
def test_no_rule_of_accessibility_is_broken(chromium, site, size, scheme):
    with (
        served_site(site) as url,
        opened(chromium, url, size=size, color_scheme=scheme) as page,
    ):
        assert violations(page) == []
        assert not wider_than_the_window(page)


def test_the_agent_comes_and_goes(chromium, site):
    policy = load_policy(site)
    with served_site(site) as url, opened(chromium, url) as page:
        assert page.locator(".phase").inner_text() == "Not running"
        assert "does not answer" in page.inner_text(".problems")
        with serving(SiteAgent(policy), policy.state.parent / "agent.sock"):
            page.wait_for_selector("p.phase:has-text('Waiting')")
            assert page.locator(".problems").count() == 0
        page.wait_for_selector("p.phase:has-text('Not running')")
        assert "Agent not running, 1 problem." in page.inner_text("#announcer")


def test_keyboard_and_screen_reader(chromium, site):
    with served_site(site) as url, opened(chromium, url) as page:
        names = [stop["name"] for stop in walk(page, 5)]
        assert names == [
            "Skip to the content",
            "budget-heading",
            "consents-heading",
            "lines-heading",
            "status.json",
        ]
        tree = page.locator("body").aria_snapshot()
        for said in (
            '- heading "Hospital site-a" [level=1]',
            '- table "Spent, of each ceiling.":',
            '- table "Studies this hospital agreed to, with its own ceilings on ε.":',
            "- contentinfo:",
        ):
            assert said in tree, f"{said} not in\n{tree}"
