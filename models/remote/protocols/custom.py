"""Service ``custom``: the definition itself says how the request is made and where the embeddings are in the
answer.

``${name}`` stands for a secret parameter, a parameter of the task settings, ``${input}`` or
``${input_type}``. In the body a value is put in as JSON; in the URL, the headers and the query parameters as
it is. Values are put in once: a text that holds ``${api_key}`` stays that text.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from models.embeddings import InputType
from models.endpoints.custom import content_of
from models.endpoints.endpoint import Endpoint
from models.endpoints.jsonpath import extract
from models.endpoints.secrets import Secrets
from models.errors import InferenceError
from models.remote.protocol import Call, RemoteProtocol, Send, Vectors

_TEMPLATE = re.compile(r"\$\{([^}]*)\}")


class Templates:
    """The templates of a definition: where its requests go, and what they say."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        settings = endpoint.service_settings
        self._settings = settings
        self._content = content_of(settings["request"]) or ""
        parameters = endpoint.task_settings.get("parameters") or {}
        secret_values = {
            name.partition(".")[2]: value for name, value in secrets.items() if "secret_par" in name
        }
        self._values: dict[str, Any] = {**parameters, **secret_values}
        literal_headers = {
            name.partition(".")[2]: value for name, value in secrets.items() if "headers." in name
        }
        named = {**(settings.get("headers") or {}), **literal_headers}
        typed = any(name.lower() == "content-type" for name in named)
        self._headers = named if typed else {"Content-Type": "application/json", **named}

    def call(self, short: Mapping[str, Any], texts: Mapping[str, Any]) -> Call:
        """Fill in the templates.

        Args:
            short: values for any place.
            texts: values for the body only; a URL never holds what a document says.
        """
        plain, settings = {**self._values, **short}, self._settings
        body = {**plain, **texts}
        return Call(
            _fill("url", settings["url"], plain, lambda value: quote(_text(value), safe="/:")),
            _fill("request", self._content, body, lambda value: orjson.dumps(value).decode()).encode(),
            {
                name: _header(name, _fill(f"headers.{name}", value, plain, _text))
                for name, value in self._headers.items()
            },
            [
                (key, _fill(f"query_parameters.{key}", value, plain, _text))
                for key, value in settings.get("query_parameters") or []
            ],
        )


class CustomProtocol(RemoteProtocol):
    """Requests and answers as the definition describes them."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        self._settings = endpoint.service_settings
        self._templates = Templates(endpoint, secrets)
        self._parser = self._settings["response"]["json_parser"]
        self._sparse = endpoint.is_sparse

    def call(self, texts: Sequence[str], input_type: InputType) -> Call:
        """Fill in the templates."""
        return self._templates.call({"input_type": self._input_type(input_type)}, {"input": list(texts)})

    def parse(self, answer: Any) -> Vectors:
        """Follow the paths of the definition's ``json_parser``."""
        if not self._sparse:
            return list(extract(self._parser["text_embeddings"], answer))
        tokens = extract(self._parser["token_path"], answer)
        weights = extract(self._parser["weight_path"], answer)
        return [
            {str(token): weight for token, weight in zip(row, row_weights, strict=True)}
            for row, row_weights in zip(tokens, weights, strict=True)
        ]

    def _input_type(self, input_type: InputType) -> str:
        translation = self._settings.get("input_type") or {}
        return str(translation.get("translation", {}).get(input_type, translation.get("default", "")))


def _fill(place: str, template: str, values: Mapping[str, Any], show: Callable[[Any], str]) -> str:
    """Replace each ``${name}`` once; what is put in is not looked at again.

    Raises:
        InferenceError: the template names a value that is not there.
    """

    def value_of(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise InferenceError(
                f"Found placeholder [${{{match[1]}}}] in field [{place}] after replacement call, please"
                " check that all templates have a corresponding field definition in [secret_parameters] or"
                " [parameters]",
                status=400,
                type="illegal_state_exception",
            )
        return show(values[match[1]])

    return _TEMPLATE.sub(value_of, template)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _header(name: str, value: str) -> str:
    if "\n" in value or "\r" in value:
        raise InferenceError(
            f"header [{name}] holds a line break; correct the secret or the template", status=400
        )
    return value


def open_protocol(endpoint: Endpoint, secrets: Secrets, send: Send) -> CustomProtocol:
    """Return the protocol of an endpoint of this service."""
    return CustomProtocol(endpoint, secrets)
