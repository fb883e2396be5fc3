"""The files of a page put together: one HTML file that needs nothing else."""

import html
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["page"]

# In the order in which they are read; a file may use what stands before it.
_WORKER = ("kernels", "network", "rows", "worker")
_PAGE = (
    "dom",
    "random",
    "chart",
    "gallery",
    "facts",
    "engine",
    "pad",
    "latent",
    "generator",
    "completion",
    "autoencoder",
    "main",
)


def page(content: Mapping[str, Any], weights: str = "") -> str:
    """The page.

    Nothing of the content is read as HTML: it stands in the page as JSON without `<`, and the page's own code shows it
    as text.

    Args:
        content: What the page shows, JSON-able without numbers that are not finite.
        weights: The weights of `content["live"]`, in base64.
    """
    data = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # `<` would end the script, and U+2028 and U+2029 are line ends to some.
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    parts = {
        "title": html.escape(content["title"]),
        "summary": html.escape(content["summary"]),
        "style": _asset("style.css"),
        "worker": "\n".join(_asset(f"worker/{name}.js") for name in _WORKER) if weights else "",
        "script": "\n".join(_asset(f"page/{name}.js") for name in _PAGE),
        "data": data,
        "weights": weights,
    }
    pieces = _asset("page.html").split("$")  # not string.Template: the parts are long, and are not looked into
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name = next(name for name in parts if piece.startswith(name))
        filled += [parts[name], piece[len(name) :]]
    return "".join(filled)


@cache
def _asset(name: str) -> str:
    text = files("jaxgen.report").joinpath("assets", *name.split("/")).read_text(encoding="utf-8")
    return text.rstrip("\n")
