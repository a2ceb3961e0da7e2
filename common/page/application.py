"""Web application of a live page: full page, changing part, JSON, style and script.

The part that changes has a digest, so that a page which asks again after nothing happened gets an
empty answer and does not move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from fastapi import FastAPI, Request, Response

from common.contract import canonical_json, sha256_hex
from common.page.wording import FILTERS

REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
)
"""The report brings its style and its figures inside itself, and no script."""


@dataclass(frozen=True)
class Content:
    """What a page shows at one moment.

    Attributes:
        title: Of the window.
        announcement: One sentence for screen readers, said when it changes, not too often.
        urgent: Changes when the sentence must be said at once.
        view: What the template draws.
        plain: The same as plain JSON values, for programs.
    """

    title: str
    announcement: str
    urgent: str
    view: object
    plain: Mapping[str, Any]


def live_page(
    read: Callable[[], Content],
    *,
    package: str,
    template: str,
    report: Callable[[], Path] | None = None,
) -> FastAPI:
    """Return the app of a page.

    Args:
        read: Returns what to show; it must not fail, whatever lies on the disk.
        package: Package whose `templates` hold the template.
        template: Template of the part that changes.
        report: Returns where the report will be; served under `/report` once it exists.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    environment = _environment(package)

    def fragment(content: Content) -> str:
        part = environment.get_template(template)
        text = part.render(
            view=content.view, content=content, has_report=report is not None and report().is_file()
        )
        return text.strip()  # a browser drops blanks before the first element

    def whole() -> Response:
        content = read()
        page = environment.get_template("page.html.j2")
        return _html(page.render(content=content, fragment=fragment(content)))

    def live(request: Request) -> Response:
        body = fragment(read())
        tag = f'"{sha256_hex(body)[:32]}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        return _html(body, etag=tag)

    def plain() -> Response:
        return Response(canonical_json(dict(read().plain)), media_type="application/json")

    def finished() -> Response:
        try:
            text = report().read_text(encoding="utf-8") if report is not None else None
        except (OSError, UnicodeDecodeError):
            text = None
        if text is None:
            return Response("There is no report yet.\n", 404, media_type="text/plain")
        return _html(text, **{"content-security-policy": REPORT_POLICY})

    routes: dict[str, Callable[..., Response]] = {
        "/": whole,
        "/live": live,
        "/status.json": plain,
        "/report": finished,
        **_static(),
    }
    for path, answer in routes.items():
        app.add_api_route(path, answer, methods=["GET", "HEAD"], response_model=None)
    return app


def _environment(package: str) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package), jinja2.PackageLoader("common.page")]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= FILTERS
    return environment


def _static() -> dict[str, Callable[..., Response]]:
    kinds = {"page.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
    folder = files("common.page") / "static"

    def answer(name: str) -> Callable[[], Response]:
        text = (folder / name).read_text(encoding="utf-8")
        return lambda: Response(text, media_type=kinds[name])

    return {f"/{name}": answer(name) for name in kinds}


def _html(text: str, **headers: str) -> Response:
    return Response(text, media_type="text/html", headers=headers)
