"""Web application of a live page: full page, changing part, JSON, style and script.

The part that changes has a digest, so that a page which asks again after nothing happened gets an
empty answer and does not move.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from markupsafe import Markup, escape

from common.commands.cli_output import clock
from common.contract import canonical_json, sha256_hex
from common.page.templates import templates

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
    environment = templates(package, "common.page")
    environment.filters |= FILTERS

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


def _static() -> dict[str, Callable[..., Response]]:
    kinds = {"page.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
    folder = files("common.page") / "static"

    def answer(name: str) -> Callable[[], Response]:
        text = (folder / name).read_text(encoding="utf-8")
        return lambda: Response(text, media_type=kinds[name])

    return {f"/{name}": answer(name) for name in kinds}


def _html(text: str, **headers: str) -> Response:
    return Response(text, media_type="text/html", headers=headers)


DASH = "–"


def number(value: float | None) -> str:
    """Return a number with three digits that count, a dash for None.

    Example:
        >>> number(0.12345), number(3.0), number(None), number(1e-5), number(12345.6)
        ('0.123', '3', '–', '1e-05', '12346')
    """
    if value is None:
        return DASH
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """Return a duration as people read it, a dash for None."""
    if seconds is None:
        return DASH
    return f"{seconds:.2g} s" if seconds < 10 else clock(seconds)


def moment(value: datetime | None) -> str:
    """Return a moment in UTC.

    Example:
        >>> moment(datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC))
        '2030-01-02 03:04:05 UTC'
    """
    if value is None:
        return DASH
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def commands(text: str) -> Markup:
    """Return a sentence with what is in backticks as code.

    Example:
        >>> commands("Run `a <b>` again.")
        Markup('Run <code>a &lt;b&gt;</code> again.')
    """
    parts = text.split("`")
    pieces = [f"<code>{escape(p)}</code>" if i % 2 else escape(p) for i, p in enumerate(parts)]
    return Markup("").join(Markup(part) for part in pieces)


FILTERS: dict[str, Callable[..., Any]] = {
    "number": number,
    "duration": duration,
    "moment": moment,
    "commands": commands,
}
"""Filters of the templates, by name."""
