"""Mails: the body once, what is attached, and nothing that is no text."""

from email.message import EmailMessage

import pytest
from support.known_documents import docx, known_document

from transforms.read.extract.library import UnreadableError, extract


def mail(body: str = "Hello", **headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in {"Subject": "A subject", "From": "Ada <ada@example.org>", **headers}.items():
        message[name] = value
    message.set_content(body)
    return message


def fields(message: EmailMessage):
    return extract(bytes(message), "email")


def test_headers_become_fields():
    found = fields(mail(Subject="Größe  und\tFarbe", Date="Tue, 03 Mar 2020 09:00:00 +0200"))
    assert (found["title"], found["author"]) == ("Größe und Farbe", "Ada <ada@example.org>")
    assert found["created"] == "2020-03-03T09:00:00+02:00"
    assert found["text"] == "Hello"


def test_of_two_kinds_of_body_one_is_taken():
    message = mail("plain words")
    message.add_alternative("<html><body><h2>Head</h2><p>rich words</p></body></html>", subtype="html")
    assert fields(message)["text"].split() == ["##", "Head", "rich", "words"]


def test_attachments_are_extracted_by_their_content():
    message = mail()
    message.add_attachment(
        docx(known_document(1)), maintype="application", subtype="octet-stream", filename="r.bin"
    )
    text = fields(message)["text"]
    assert "## r.bin" in text
    assert known_document(1).title in text


def test_images_and_what_cannot_be_read_are_no_text():
    message = mail()
    message.add_attachment(
        b"\x89PNG\r\n\x1a\n" + b"x" * 5000, maintype="image", subtype="png", filename="a.png"
    )
    message.add_attachment(b"%PDF-1.4 broken", maintype="application", subtype="pdf", filename="b.pdf")
    message.add_attachment(b"\x00\x01", maintype="application", subtype="octet-stream", filename="c.bin")
    assert fields(message)["text"] == "Hello"


def test_a_forwarded_mail_is_read_and_no_chain_is_endless():
    message = mail("the innermost")
    for depth in range(6):
        outer = mail(f"level {depth}")
        outer.add_attachment(message)
        message = outer
    text = fields(message)["text"]
    assert "level 5" in text
    assert "level 2" in text
    assert "innermost" not in text


@pytest.mark.parametrize("charset", ["nobody-knows", "utf-8"])
def test_a_charset_that_is_wrong_costs_no_mail(charset):
    content = f"Subject: a\nContent-Type: text/plain; charset={charset}\n\nGr\u00fc\u00dfe".encode()
    assert extract(content, "email")["text"] == "Grüße"


def test_a_mail_without_text_says_so():
    with pytest.raises(UnreadableError, match="has no text"):
        fields(mail(""))


def test_an_image_inside_a_page_is_no_text():
    page = (
        '<html><body><p>Text</p><img alt="A chart" src="data:image/png;base64,'
        + "QUJD" * 2000
        + '"></body></html>'
    )
    assert extract(page.encode(), "html")["text"].split() == ["Text", "A", "chart"]
