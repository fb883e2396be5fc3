"""Compare runs: one page with their curves over one another, their figures, and what differs in their settings.

The page is one HTML file that opens without a network.
"""

from pathlib import Path

from jaxgen import report
from jaxgen.commands._options import Options as CommonOptions
from jaxgen.commands._options import write_files


class Options(CommonOptions):
    """The options of this command."""

    paths: tuple[Path, ...]
    """The folders of two runs or more."""
    out: Path = Path("comparison.html")
    """The file to write."""


def run(options: Options) -> None:
    """Write the page, and print where it is."""
    write_files(options.out.parent, {options.out.name: report.comparison(options.paths).encode()})
