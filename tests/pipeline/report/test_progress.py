"""Progress: rates of the last seconds, time left from the pace of the work, a bar's text and a log's lines."""

import json
import logging

import pytest

from pipeline.logs import configure_logging
from pipeline.report.progress import progress_lines, progress_text, time_text
from pipeline.report.throughput import MOST_SAMPLES, Progress, Throughput


def filled(samples, total=100):
    throughput = Throughput(total)
    for sample in samples:
        throughput.add(sample)
    return throughput


def test_loading_is_not_counted_as_work():
    loading = [(0.5 * n, 0.0, 0, 0) for n in range(40)]
    work = [(20 + n, 2.0 + n, 4 + 2 * n, 1000 * n) for n in range(20)]
    progress = filled(loading + work).progress()
    assert progress.documents == 21
    assert progress.seconds_left == pytest.approx(79.0)
    assert progress.tokens_per_second == pytest.approx(1000)
    assert progress.chunks_per_second == pytest.approx(2)


def test_the_rate_is_that_of_the_last_seconds():
    slow = [(n, float(n), n, 10 * n) for n in range(100)]
    fast = [(100 + n, 100.0 + n, 100 + n, 1000 + 500 * n) for n in range(12)]
    assert filled(slow + fast).progress().tokens_per_second == pytest.approx(500)


def test_nothing_is_known_before_the_first_batch():
    progress = filled([(1.0, 0.0, 0, 0)]).progress()
    assert progress.seconds_left is None
    assert progress_text(progress) == "loading models · 100 documents"


@pytest.mark.parametrize("count", [10, 1_000, 20_000])
def test_any_run_fits_one_chart_and_its_last_sample_is_there(count):
    samples = filled([(float(n), float(n), n, n) for n in range(count)]).samples
    assert len(samples) <= MOST_SAMPLES + 1
    assert samples[-1] == (count - 1, count - 1, count - 1, count - 1)
    times = [sample[0] for sample in samples]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(12.7, 40, 99, 5000, 1234.4, 20), "12/40 documents · 99 chunks · 1,234 tokens/s"),
        (Progress(12.0, 40, 99, 0, 0, 20.25), "12/40 documents · 99 chunks · 20.2 chunks/s"),
        (Progress(40.00001, 40, 99, 10, 1, 1), "40/40 documents · 99 chunks · 1 tokens/s"),
    ],
)
def test_the_text_of_a_bar(progress, text):
    assert progress_text(progress) == text


@pytest.mark.parametrize(("seconds", "text"), [(None, "-:--:--"), (0.4, "0:00:00"), (3_725, "1:02:05")])
def test_times(seconds, text):
    assert time_text(seconds) == text


def test_a_log_gets_a_line_every_half_a_minute_with_its_numbers(capfd):
    configure_logging("json")
    try:
        now = [0.0]
        with progress_lines("embed", 40, lambda: now[0]) as show:
            for second in range(100):
                now[0] = float(second)
                show(Progress(second / 4, 40, second, 10 * second, 10.0, 1.0, 60.0))
    finally:
        configure_logging()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["chunks"] for line in lines] == [30, 60, 90]
    assert lines[0]["message"] == "embed: 7/40 documents · 30 chunks · 10 tokens/s · 0:01:00 left"
    assert (lines[0]["stage"], lines[0]["total"], lines[0]["tokens_per_second"]) == ("embed", 40, 10.0)
    assert logging.getLogger("semantic_ingest").level == logging.INFO
