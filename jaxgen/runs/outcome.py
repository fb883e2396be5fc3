"""What a run came to."""

import base64
import dataclasses
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

History = dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of an experiment's `main`. In a notebook it shows its pictures.

    Attributes:
        folder: the run's folder.
        history: the mean of every metric in every epoch, `history["loss"][0]` being the first epoch's, and the
            `seconds` of training; for several runs, a mapping of their names to that.
        results: figures of the trained model.
        module: the Flax module, or a mapping of names to modules.
        variables: its trained variables, in the same form.
        pictures: the files of the last pictures, by name.
        failures: what went wrong without ending the run, a line each; a picture that could not be drawn, for example.
    """

    folder: Path
    history: Mapping[str, Any]
    results: Mapping[str, float]
    module: Any
    variables: Any
    pictures: Mapping[str, Path]
    failures: tuple[str, ...] = ()

    def __repr__(self) -> str:
        results = ", ".join(f"{name} {value:.4g}" for name, value in self.results.items())
        return f"<run in {self.folder}: {results or 'no results'}; pictures: {', '.join(self.pictures) or 'none'}>"

    def _repr_html_(self) -> str:
        parts = [f"<p>{html.escape(repr(self)[1:-1])}</p>"]
        for name, path in self.pictures.items():
            kind = "gif" if path.suffix == ".gif" else "png"
            data = base64.b64encode(path.read_bytes()).decode()
            parts.append(
                f"<figure><figcaption>{html.escape(name)}</figcaption>"
                f'<img alt="{html.escape(name)}" src="data:image/{kind};base64,{data}"></figure>'
            )
        return "\n".join(parts)


def pictures_in(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by name, in the order of their names."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else ()
    return {
        path.stem if path.suffix == ".png" else path.name: path for path in paths if path.suffix in (".png", ".gif")
    }
