"""The exception that means that the user, not the program, has something to change."""


class InputError(ValueError):
    """The input cannot be used.

    The message is one line that names the input and what to do about it. A command prints it and exits with status 2;
    in Python it is a `ValueError`.
    """
