"""Pictures: arrays in, `PIL.Image` out. Values from 0 to 1 are black to white; values outside are clipped.

`grid` and `over` make the tutorials' own matrices, pixel by pixel. Everything else is made to be read on its own:
images are enlarged by whole factors, and there are titles, labels and a margin. Text is drawn literally; characters
that no font has are written as escapes, and what does not fit is shortened.

Curves and scatter plots are drawn by Matplotlib, under its own default settings whatever the user's environment,
`matplotlibrc` or `rcParams` say, and without a window system. It is imported when the first plot is drawn.
"""

from jaxgen.pictures.images import gif, grid, over, png, to_image
from jaxgen.pictures.plots import curves, scatter
from jaxgen.pictures.sheets import beside, captioned, compared, plane, sheet, strips

__all__ = [
    "beside",
    "captioned",
    "compared",
    "curves",
    "gif",
    "grid",
    "over",
    "plane",
    "png",
    "scatter",
    "sheet",
    "strips",
    "to_image",
]
