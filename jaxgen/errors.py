"""The one exception that means: the user, not the program, has something to mend."""


class InputError(ValueError):
    """What was given cannot be used. The message names the thing and the remedy, in one line.

    The command line prints it as it stands and exits with status 2; a notebook sees it as a `ValueError`.
    """
