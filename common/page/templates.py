"""Open templates of pages and cards; a name that a template does not know is an error."""

import jinja2


def templates(*packages: str, autoescape: bool = True) -> jinja2.Environment:
    """Return the templates of some packages, the first that holds a name first.

    Args:
        packages: Packages with a folder `templates`.
        autoescape: For HTML; False for text, which also keeps its last newline.
    """
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package) for package in packages]),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=not autoescape,
    )
