"""What can go wrong. Every error of this package is a `PithError`."""

from __future__ import annotations

CODES = (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
    "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
    "UNAUTHENTICATED"
).split()


class PithError(Exception):
    """The base of all errors of this package."""


class Refused(PithError):
    """The agent refused a call. `code` is the name of the code, such as `NOT_FOUND`; `message` has the agent's words."""

    def __init__(self, code: int, message: str) -> None:
        self.code = CODES[code] if 0 <= code < len(CODES) else f"CODE_{code}"
        self.message = message
        super().__init__(f"{self.code}: {message}")


class Unreachable(PithError):
    """No agent answers at that address, or the connection to it ended."""


class DeadlineExceeded(PithError, TimeoutError):
    """A call was not answered in time. The agent may still do what it was asked for."""


class DecodeError(PithError, ValueError):
    """Bytes that are no message of the agent's."""


class ProgramError(PithError):
    """The program `pith` failed. `status` is its exit status, and the text is what it wrote to standard error."""

    def __init__(self, command: list[str], status: int, message: str) -> None:
        self.command = command
        self.status = status
        super().__init__(message.strip() or f"{' '.join(command)} ended with status {status}")


class CommandError(PithError):
    """A command in a container ended with another status than 0, and `check=True` was asked for."""

    def __init__(self, command: list[str], status: int, stderr: bytes) -> None:
        self.command = command
        self.status = status
        self.stderr = stderr
        words = stderr.decode(errors="replace").strip()
        super().__init__(f"{' '.join(command)} ended with status {status}" + (f": {words}" if words else ""))


class OutputTooLarge(PithError):
    """A process wrote more than the caller wants to keep."""
