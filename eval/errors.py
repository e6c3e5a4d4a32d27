"""What a command tells in one line instead of a traceback."""


class InputError(Exception):
    """Something the user can mend: says which file, which row or key, and what to do."""
