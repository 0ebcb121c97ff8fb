"""The parts of remote services that need no server: lengths, paths, the rate limit's file."""

import pytest

from models.endpoints.jsonpath import extract
from models.errors import InferenceError
from models.remote import limits
from models.remote.text import count_icu_words, cut_to_tokens, cut_utf16, estimate_tokens, halve

EMOJI = "😀"  # two UTF-16 code units


@pytest.mark.parametrize(
    ("text", "length", "kept", "cut"),
    [
        ("abcdef", 3, "abc", True),
        ("abc", 3, "abc", False),
        ("", 0, "", False),
        (f"a{EMOJI}b", 4, f"a{EMOJI}b", False),
        (f"a{EMOJI}b", 3, f"a{EMOJI}", True),
        (f"a{EMOJI}b", 2, "a", True),
        (EMOJI * 2, 3, EMOJI, True),
    ],
)
def test_texts_are_cut_in_utf16_and_never_within_a_character(text, length, kept, cut):
    assert cut_utf16(text, length) == (kept, cut)


def test_tokens_and_halves():
    assert cut_to_tokens("awesome", 2) == ("awesom", True)
    assert cut_to_tokens("awesome", None) == ("awesome", False)
    assert [halve(text) for text in ("abcdefg", "ab", "a", EMOJI * 3)] == ["abc", "a", "", EMOJI]
    assert [estimate_tokens(text) for text in ("", "a", "abc", "abcd", EMOJI * 3)] == [0, 1, 1, 2, 2]
    assert count_icu_words("don't e-mail, 中文分词测试!") == 6


ANSWER = {
    "data": [{"v": [1, 2], "a.b": {"x": [5]}}, {"v": [3], "a.b": {"x": [6]}}],
    "map": {"k": [1], "l": [2]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", ANSWER),
        ("$.data[*].v", [[1, 2], [3]]),
        ("$.data[*].v[*]", [[1, 2], [3]]),
        ("$.data[1].v[0]", 3),
        ("$.data[*]['a.b'].x[0]", [5, 6]),
        ("$.map[*]", [[1], [2]]),
    ],
)
def test_paths(path, found):
    assert extract(path, ANSWER) == found


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("$.none", "there is no field [none]"),
        ("$.data.v", "there is no field [v]"),
        ("$.data[9]", "there is no element [9]"),
        ("$.data[0].v[0][*]", "[*] needs a list or an object, found int"),
        ("data", "must start with a dollar sign"),
        ("$.data[-1]", "cannot be read from [[-1]]"),
        ("$.data[0]v", "cannot be read from [v]"),
    ],
)
def test_paths_that_lead_nowhere(path, message):
    with pytest.raises(ValueError) as failure:
        extract(path, ANSWER)
    assert message in str(failure.value)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(limits.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


class Clock:
    """A clock that only a wait moves on.

    Attributes:
        waits: how long was waited, each time.
    """

    def __init__(self):
        self.waits = []

    def time(self):
        return 1_800_000_000 + sum(self.waits)

    def sleep(self, seconds):
        self.waits.append(seconds)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(limits, "time", clock)
    return clock


def test_requests_are_spaced_evenly(folder, clock):
    limit = limits.RateLimit("key", 1200)
    for _ in range(6):
        limit.acquire()
    assert clock.waits == pytest.approx([0.05] * 5, abs=1e-6)


def test_an_amount_takes_its_share_of_the_limit(folder, clock):
    limit = limits.RateLimit("key", 6000)  # a hundred a second
    for tokens in (50, 200, 1, 1):
        limit.acquire(tokens)
    assert clock.waits == pytest.approx([0.5, 2.0, 0.01], abs=1e-6)


def test_a_large_request_of_a_small_limit_is_waited_for(folder, clock):
    limit = limits.RateLimit("key", 1000)
    limit.acquire(100_000)
    limit.acquire(1)
    assert clock.waits == pytest.approx([6000.0], abs=1e-3)


def test_limits_of_other_keys_are_apart(folder, clock):
    for key in "abc":
        limits.RateLimit(key, 1).acquire()
    assert clock.waits == []


@pytest.mark.parametrize("left_over", ["", "rubbish", "1.0", "99999999999.0", "nan"])
def test_what_a_file_was_left_with_does_not_block(folder, clock, left_over):
    limit = limits.RateLimit("key", 60)
    limit._file.write_text(left_over)
    limit.acquire()
    assert clock.waits == []


def test_a_folder_that_others_can_open_is_refused(folder):
    limits.RateLimit("key", 60)
    (made,) = folder.iterdir()
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o755)
    with pytest.raises(InferenceError, match="must be a folder that only you can open"):
        limits.RateLimit("key", 60)


def test_no_limit_waits_for_nothing(folder):
    limits.rate_limit("key", None)()
    assert list(folder.iterdir()) == []
