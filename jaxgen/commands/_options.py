"""What the commands' options have in common, and where their files go."""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jaxgen.durable import write
from jaxgen.errors import InputError
from jaxgen.runs import option
from jaxgen.signals import say

_NO_SUCH_FOLDER = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}

Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Options(BaseModel):
    """The options of a command.

    Raises:
        InputError: a value does not fit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            said = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            raise InputError(f"{option(str(first['loc'][0]), first['input'])}: must be {said}") from None


class ModelOptions(Options):
    """The options of a command that uses a trained model."""

    path: Path
    """A run's folder, finished or not, or a weights file: .safetensors, or a .pth of PyTorch's."""
    out: Path | None = None
    """Folder for the files; None is samples/ in the run's folder or, for a weights file, the working folder."""
    model: str | None = None
    """Which model of a run of several: its number, or best."""
    module: str | None = None
    """The class of a weights file that does not say it, such as dcgan.MnistGenerator."""


def write_files(folder: Path, files: Mapping[str, bytes], *, announce: bool = True) -> None:
    """Write files, by name, and print their paths.

    Args:
        folder: made if it is not there.
        files: contents by name.
        announce: whether to print the paths.

    Raises:
        InputError: the folder is not writable.
    """
    for name, content in files.items():
        try:
            write(folder / name, content)
        except OSError as error:
            if error.errno not in _NO_SUCH_FOLDER:
                raise
            raise InputError(
                f"{folder} cannot be written ({error.strerror}); {option('out')} names another folder"
            ) from error
        if announce:
            say(str(folder / name))
