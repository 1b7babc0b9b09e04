"""Log lines of the commands: complete, on one line, and without secrets."""

from __future__ import annotations

import io
import json
import logging
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from headrace.logs import change_logs, clean_text, find_handler, setup_logs
from headrace.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("headrace.pool", "headrace.worker.lease"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def logged(message: str, level: int = logging.INFO, *, form: str = "json", terminal: bool = False, **extra: Any) -> str:
    stream = Terminal() if terminal else io.StringIO()
    setup_logs(load_settings({"log_format": form}, environ={}, dotenv=None), stream=stream)
    logging.getLogger("headrace.sample").log(level, message, extra=extra)
    return stream.getvalue()


def test_a_json_line_holds_the_phrase_and_the_fields() -> None:
    line = json.loads(logged("lease lost", logging.WARNING, queue="mail", jobs=12, late_ms=0.5, when=None))

    assert line["level"] == "WARNING"
    assert line["logger"] == "headrace.sample"
    assert line["message"] == "lease lost"
    assert (line["queue"], line["jobs"], line["late_ms"], line["when"]) == ("mail", 12, 0.5, None)
    assert line["time"].endswith("+00:00")


def test_a_console_line_shows_fields_as_names_and_values() -> None:
    line = logged("worker started", form="console", worker="w1", queues="a b", jobs=3)

    assert line.endswith('headrace.sample: worker started worker=w1 queues="a b" jobs=3\n')
    assert "INFO" in line
    assert "\x1b" not in line


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_value_with_line_ends_stays_on_one_line(form: str) -> None:
    assert len(logged("refused", form=form, reason="a\nb").splitlines()) == 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_is_printed(form: str) -> None:
    text = logged(
        "cannot reach redis://u:s3cret@host:1/0", form=form, reason="at rediss://:s3cret@h, sorry", api_key="s3cret"
    )

    assert "s3cret" not in text
    assert "redis://u:***@host:1/0" in text


def test_a_secret_in_a_traceback_is_masked() -> None:
    stream = io.StringIO()
    setup_logs(load_settings({"log_format": "json"}, environ={}, dotenv=None), stream=stream)

    try:
        raise ValueError("redis://u:s3cret@host:1/0")  # noqa: TRY301 - the traceback is what is looked at
    except ValueError:
        logging.getLogger("headrace.sample").exception("task failed")

    assert "ValueError: redis://u:***@host:1/0" in json.loads(stream.getvalue())["exception"]


def test_auto_is_console_on_a_terminal_and_json_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)

    assert "\x1b[33mWARNING\x1b[0m" in logged("late", logging.WARNING, form="auto", terminal=True)
    assert json.loads(logged("late", form="auto"))["message"] == "late"


def test_no_colour_is_used_when_the_user_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert "\x1b" not in logged("late", logging.WARNING, form="auto", terminal=True)


def test_lines_below_the_level_are_left_out() -> None:
    assert logged("detail", logging.DEBUG) == ""


def test_a_field_named_like_a_part_of_the_line_keeps_both() -> None:
    line = json.loads(logged("odd", level_=1, time="noon", value=float("nan")))

    assert line["time_"] == "noon"
    assert line["level"] == "INFO"
    assert line["value"] == "nan"


def test_a_python_warning_becomes_a_line() -> None:
    stream = io.StringIO()
    setup_logs(load_settings({"log_format": "json"}, environ={}, dotenv=None), stream=stream)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)

    assert "old thing" in json.loads(stream.getvalue())["message"]


@pytest.mark.parametrize("secret", ["s3'cret", 's3"cret', "s3@cret", "s3/cret"])
@pytest.mark.parametrize("text", ["redis://app:{}@h:1/0", "see 'redis://:{}@h'", "redis://h/0?password={}&db=1"])
def test_a_secret_with_quotes_is_masked_to_its_end(secret: str, text: str) -> None:
    cleaned = clean_text(text.format(secret))

    assert "***" in cleaned
    assert "ret" not in cleaned


def test_text_without_an_address_is_left_alone() -> None:
    assert clean_text("a@b and c:d") == "a@b and c:d"


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def setup(**settings: Any) -> io.StringIO:
    stream = io.StringIO()
    setup_logs(load_settings({"log_format": "json", **settings}, environ={}, dotenv=None), stream=stream)
    return stream


@pytest.mark.parametrize("form", ["json", "console"])
def test_arguments_and_results_of_jobs_are_not_printed(form: str) -> None:
    text = logged("job failed", form=form, arguments=("s3cret",), kwargs={"to": "s3cret"}, result="s3cret", job="j1")

    assert "s3cret" not in text
    assert "j1" in text


def test_a_part_may_have_a_level_of_its_own_and_lose_it_again() -> None:
    stream = setup(log_levels={"pool": "DEBUG", "worker.lease": "ERROR"})
    pool, lease = logging.getLogger("headrace.pool.sample"), logging.getLogger("headrace.worker.lease")

    pool.debug("one")
    lease.warning("two")
    logging.getLogger("headrace.worker.slots").debug("three")
    change_logs(load_settings({"log_levels": {}, "log_level": "ERROR"}, environ={}, dotenv=None))
    pool.debug("four")
    lease.warning("five")
    lease.error("six")

    assert [line["message"] for line in lines_of(stream)] == ["one", "six"]


def test_a_repeated_line_is_folded_and_its_count_comes_at_the_end() -> None:
    stream = setup()

    for _ in range(100):
        logging.getLogger("headrace.sample").warning("server away", extra={"where": "h:1"})
    handler = find_handler()
    assert handler is not None
    handler.close()

    assert [(line["message"], line["where"], line.get("repeated")) for line in lines_of(stream)] == [
        ("server away", "h:1", None),
        ("server away", "h:1", 99),
    ]


def test_a_folded_line_is_reported_when_its_interval_has_passed() -> None:
    stream = setup(log_fold=0.001)
    waits: list[float] = []
    handler = find_handler()
    assert handler is not None
    handler.waits = waits.append

    handler.fold.interval = 60.0
    for _ in range(3):
        logging.getLogger("headrace.sample").warning("server away")
    handler.fold.interval = 0.0001
    time.sleep(0.001)
    following = handler.report()

    assert waits == [60.0]
    assert following is None
    assert lines_of(stream)[-1]["repeated"] == 2


def test_a_program_that_sets_up_logging_itself_is_left_alone() -> None:
    root = logging.getLogger()
    root.handlers[:] = [logging.NullHandler()]
    root.setLevel(logging.WARNING)

    change_logs(load_settings({"log_level": "DEBUG", "log_levels": {"pool": "DEBUG"}}, environ={}, dotenv=None))

    assert root.level == logging.WARNING
    assert logging.getLogger("headrace.pool").level == logging.NOTSET
