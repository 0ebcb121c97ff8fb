"""Mails: headers, the body, and the text of what is attached."""

from collections.abc import Callable
from contextlib import suppress
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import parsedate_to_datetime
from typing import Any

from transforms.read.extract.content_types import TYPES, content_type

MAX_ATTACHMENTS = 200

Extract = Callable[[bytes, str], dict[str, Any]]
"""Extracts one document, its bytes and the name of its type."""


def mail_fields(content: bytes, extract: Extract, unreadable: type[Exception]) -> dict[str, Any]:
    """The fields of a mail.

    Args:
        content: the mail.
        extract: extracts the body, where it is HTML, and what is attached.
        unreadable: what `extract` raises for a document without text; such attachments are left out.
    """
    message = BytesParser(policy=policy.default).parsebytes(content)
    assert isinstance(message, EmailMessage)
    found = {"title": _header(message, "Subject"), "author": _header(message, "From")}
    with suppress(TypeError, ValueError, IndexError, OverflowError):
        found["created"] = parsedate_to_datetime(str(message["Date"])).isoformat()
    parts = [_body(message, extract, unreadable)]
    for number, attached in enumerate(message.iter_attachments()):
        if number >= MAX_ATTACHMENTS:
            break
        if text := _attachment(attached, extract, unreadable):
            parts.append(f"## {attached.get_filename() or 'attachment'}\n\n{text}")
    text = "\n\n".join(part.strip() for part in parts if part.strip())
    return {name: value for name, value in found.items() if value} | {"text": text}


def _body(message: EmailMessage, extract: Extract, unreadable: type[Exception]) -> str:
    """The body, as HTML where there is one: it has headings, lists and links."""
    for kind in ("html", "plain"):
        body = message.get_body((kind,))
        if body is None:
            continue
        text = _decoded(body)
        if kind == "plain":
            return text
        with suppress(unreadable):
            return str(extract(text.encode("utf-8", "replace"), "html")["text"])
    return ""


def _decoded(body: Any) -> str:
    try:
        return str(body.get_content())
    except (LookupError, ValueError):  # an encoding that nobody knows
        return (body.get_payload(decode=True) or b"").decode("utf-8", "replace")


def _attachment(attached: Any, extract: Extract, unreadable: type[Exception]) -> str:
    """The text of an attachment; empty for what has none, images and archives among them."""
    if attached.get_content_type() == "message/rfc822":
        inner = attached.get_payload()
        content = bytes(inner[0]) if isinstance(inner, list) and inner else b""
    else:
        content = attached.get_payload(decode=True) or b""
    type_ = content_type(content, attached.get_filename() or "")
    if type_.treatment != "extract" or type_ is TYPES["image"]:
        return ""
    with suppress(unreadable):
        return str(extract(content, type_.name)["text"])
    return ""


def _header(message: EmailMessage, name: str) -> str | None:
    try:
        return " ".join(str(message[name] or "").split()) or None
    except (LookupError, ValueError, IndexError):  # of a form that the parser gives up on
        return None
