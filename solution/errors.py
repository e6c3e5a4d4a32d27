"""What a command tells in one line instead of a traceback."""


class InputError(Exception):
    """Something the user can mend: says which file, which row or key, and what to do."""

    def __init__(self, message: str) -> None:
        # A DataLoader raises its worker's error anew with the whole traceback as message; what was said stands at its end.
        caught = message.startswith("Caught InputError in DataLoader")
        super().__init__(message.split("solution.errors.InputError: ", 1)[-1].strip() if caught else message)


class Failure(Exception):
    """Something that went wrong while the work ran, through no fault of the input: one line, exit status 1."""


class Busy(InputError):
    """Another process is at work there."""
