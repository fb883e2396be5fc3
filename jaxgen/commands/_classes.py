"""Classes by number or by name."""

import difflib
from collections.abc import Sequence
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import tyro

from jaxgen.commands._models import Model
from jaxgen.errors import InputError

# The option --class; `class` is a word of Python's.
ClassOption = Annotated[str | None, tyro.conf.arg(name="class")]


def class_number(text: str, names: Sequence[str], count: int) -> int | None:
    """The number of a class; None where there is no such class.

    Args:
        text: the class's name, in any case, or its number.
        names: the names of the classes, as far as they are known.
        count: how many classes there are.
    """
    lower = [name.lower() for name in names]
    if text.lower() in lower:
        return lower.index(text.lower())
    return int(text) if text.isdecimal() and int(text) < count else None


def label(text: str | None, model: Model) -> int | None:
    """What `--class` asks for; None where it is not given.

    Raises:
        InputError: the model knows no classes, or not this one.
    """
    if text is None:
        return None
    if not model.classes:
        raise InputError(
            f"--class {text}: {model.name} was trained without classes and cannot be asked for one; leave it out"
        )
    names = list(map(str, model.data.get("classes") or ()))
    number = class_number(text, names, model.classes)
    if number is None:
        raise InputError(f"--class {text}: {there_are(text, names, model.classes)}")
    return number


def class_name(number: int, model: Model) -> str:
    """What a class is called: its name, or its number where the names are not known."""
    names = model.data.get("classes") or ()
    return str(names[number]) if number < len(names) else str(number)


def there_are(text: str, names: Sequence[str], count: int) -> str:
    """What the classes are, for a message about one that is not among them."""
    if not names:
        return f"there are the classes 0 to {count - 1}"
    near = difflib.get_close_matches(text.lower(), [name.lower() for name in names], n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"there is no such class; {meant}there are {listed}"


def labels_of(number: int | None, count: int, model: Model) -> dict[str, jnp.ndarray]:
    """The argument `labels` for `count` images: one class, or all in turn; no argument for a model without classes."""
    if not model.classes:
        return {}
    return {"labels": jnp.asarray(np.arange(count) % model.classes if number is None else np.full(count, number))}
