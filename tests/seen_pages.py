"""What a person, a keyboard or a screen reader finds on a page in a real browser."""

from contextlib import contextmanager

import pytest

SIZES = {"desktop": (1200, 900), "phone": (390, 844), "narrow": (320, 640)}
FOCUSED = """() => {
  const found = document.activeElement;
  const style = getComputedStyle(found);
  return {
    tag: found.tagName.toLowerCase(),
    name: (found.getAttribute("aria-labelledby") || found.textContent.trim()).slice(0, 40),
    outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    seen: found.getBoundingClientRect().left >= 0,
  };
}"""


@contextmanager
def opened(chromium, url, *, size="desktop", watch=True, **context):
    """Open a page; afterwards no script failed and nothing was asked of anybody else."""
    width, height = SIZES[size]
    made = chromium.new_context(viewport={"width": width, "height": height}, **context)
    page = made.new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(url) else troubles.append(request.url),
    )
    try:
        page.goto(url)
        yield page
        if watch:
            assert troubles == []
    finally:
        made.close()


def violations(page) -> list[str]:
    """Rules of WCAG 2.2 A and AA, and of good practice, that axe-core finds broken."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [f"{rule['id']}: {node['html'][:160]}" for rule in found for node in rule["nodes"]]


def walk(page, steps: int) -> list[dict]:
    """Press Tab so many times; what had the focus each time."""
    stops = []
    for _ in range(steps):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(FOCUSED))
    return stops


def wider_than_the_window(page) -> bool:
    """Whether a reader must scroll sideways."""
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
