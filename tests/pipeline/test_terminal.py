"""Text from outside steers neither the terminal nor the log."""

import json
import logging

from pipeline.errors import ConfigError
from pipeline.logs import configure_logging, log
from pipeline.terminal.text import number_of, one_line, printable, printable_json, show_error

HOSTILE = "a\x1b[31m\x1b]0;title\x07\x9b2J\u202eb\nc\u2028d\r\x7f"


def is_safe(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


def test_controls_become_symbols_of_the_same_length():
    assert is_safe(printable(HOSTILE))
    assert len(one_line(HOSTILE)) == len(printable(HOSTILE)) == len(HOSTILE)
    assert "\n" in printable(HOSTILE)
    assert "\n" not in one_line(HOSTILE)
    assert one_line("Grüße 日本語 🎉") == "Grüße 日本語 🎉"


def test_numbers_of_things_read_well():
    counts = (
        number_of(0, "document"),
        number_of(1, "document"),
        number_of(1, "query"),
        number_of(2000, "query"),
    )
    assert counts == ("0 documents", "1 document", "1 query", "2,000 queries")


def test_json_means_the_same():
    text = json.dumps([HOSTILE], ensure_ascii=False)
    assert json.loads(printable_json(text)) == [HOSTILE]
    assert is_safe(printable_json(text))


def test_errors_and_logs_show_one_line(capsys):
    show_error(HOSTILE)
    show_error(str(ConfigError(HOSTILE, [HOSTILE, HOSTILE])), lines=True)
    for log_format in ("text", "json"):
        configure_logging(log_format)
        log.warning("document %s", HOSTILE)
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            log.exception("failed")
    logging.getLogger("elsewhere").warning(HOSTILE)
    configure_logging()
    said = capsys.readouterr().err
    assert is_safe(said)
    assert said.splitlines()[1].startswith("error: a␛")
    assert said.splitlines()[2].startswith("  - a␛")
