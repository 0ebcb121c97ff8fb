"""Values of the page's requests, checked so that a wrong one is told beside its field."""

from collections.abc import Mapping

from models.errors import InferenceError


class WrongParameter(InferenceError):
    """One value of a request is wrong.

    Attributes:
        parameter: which one, so that the page can say it beside its field.
    """

    def __init__(self, parameter: str, reason: str) -> None:
        super().__init__(reason, status=400, type="illegal_argument_exception")
        self.parameter = parameter

    def to_json(self) -> dict[str, object]:
        """The error body, with the parameter."""
        return {**super().to_json(), "parameter": self.parameter}


def whole_number(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """A number of the query string.

    Raises:
        WrongParameter: it is none, or out of bounds.
    """
    value = query.get(name) or str(default)
    if not value.isdecimal() or len(value) > 10 or not least <= int(value) <= most:
        raise WrongParameter(name, f"[{name}] is a number from {least} to {most}, not [{value[:40]}]")
    return int(value)
