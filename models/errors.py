"""Errors that an inference endpoint can raise.

InferenceError              an embedding request that failed; carries an HTTP-like status
├── TransientError          worth trying again later (429, 5xx, timeouts)
└── ModelLoadError          weights are missing, unreadable or not allowed
ValidationError             a definition is wrong; every problem at once, in Elastic's wording
"""

from typing import Any, NoReturn

from models.text import java_string


class InferenceError(Exception):
    """An inference request failed.

    Attributes:
        status: the HTTP status that Elasticsearch would answer with.
        type: Elasticsearch's exception name, for example ``status_exception``.
        reason: the message, free of secrets.
    """

    type = "status_exception"

    def __init__(self, reason: str, *, status: int = 500, type: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        if type is not None:
            self.type = type

    def to_json(self) -> dict[str, object]:
        """Return Elasticsearch's error body."""
        cause: dict[str, object] = {"type": self.type, "reason": self.reason}
        return {"error": {"root_cause": [cause], **cause}, "status": self.status}


class TransientError(InferenceError):
    """A failure that may pass: the same request is worth sending again later."""


class ModelLoadError(InferenceError):
    """The weights of a model cannot be found, read or trusted."""


class ValidationError(InferenceError):
    """A definition or a setting is wrong.

    Attributes:
        problems: every problem found, each a full sentence in Elasticsearch's wording.
    """

    type = "validation_exception"

    def __init__(self, problems: list[str]) -> None:
        self.problems = list(problems)
        numbered = "".join(f"{number}: {problem};" for number, problem in enumerate(self.problems, 1))
        super().__init__(f"Validation Failed: {numbered}", status=400)

    def __reduce__(self) -> tuple[Any, tuple[list[str]]]:
        """Pickle by the problems, which the constructor takes, rather than by the message."""
        return ValidationError, (self.problems,)


def illegal_argument(reason: str) -> InferenceError:
    """Return the error that Elasticsearch answers a wrong argument with."""
    return InferenceError(reason, status=400, type="illegal_argument_exception")


def type_problem(key: str, value: object, java_name: str) -> str:
    """Say that a value has the wrong JSON type."""
    return (
        f"field [{key}] is not of the expected type. The value [{java_string(value)}] cannot be converted"
        f" to a [{java_name}]"
    )


def bad_request(reason: str, type: str = "status_exception", status: int = 400) -> NoReturn:
    """Refuse a request the way Elasticsearch does.

    Args:
        reason: the message.
        type: Elasticsearch's exception name.
        status: the HTTP status.
    """
    raise InferenceError(reason, status=status, type=type)
