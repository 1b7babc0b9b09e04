"""Settings: their sources, their bounds, what a wrong value says, and that no password is shown."""

from __future__ import annotations

import doctest
import logging
import os
import re
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from headrace import settings_env, settings_names
from headrace.errors import SettingError
from headrace.settings import SETTINGS, Settings, load_settings
from headrace.settings_env import mask_url
from headrace.settings_rows import describe

if TYPE_CHECKING:
    from pathlib import Path

VARIABLES = [setting.variable for setting in SETTINGS]
# "100" in digits of full width, which int() would take.
FULL_WIDTH = "\N{FULLWIDTH DIGIT ONE}" + "\N{FULLWIDTH DIGIT ZERO}" * 2
# What an environment can hold: no NUL, and no halves of surrogate pairs.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
numbers = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["nan", "inf", "-inf", "1e999", "1_000", "0x10", FULL_WIDTH, "5 0", "+5", "5.", "-0", "9" * 5_000]),
)


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(settings_env)

    assert result.attempted > 0
    assert result.failed == 0


def test_without_any_source_every_setting_has_its_default(tmp_path: Path) -> None:
    settings = load_settings(environ={}, dotenv=tmp_path / ".env")

    assert settings == Settings()
    assert {row.source for row in describe(settings)} == {"default"}
    assert (settings.lease, settings.redis_acquire_timeout, settings.loop_lag_warn) == (30.0, 10.0, 0.25)


def test_argument_comes_before_environment_before_dotenv_before_default(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("QUEUE_CONCURRENCY=1\nHEADRACE_THREADS=1\nHEADRACE_MAX_STALLED=1\n")
    environ = {"QUEUE_CONCURRENCY": "2", "HEADRACE_THREADS": "2"}

    settings = load_settings({"queue_concurrency": 3}, environ=environ, dotenv=dotenv)

    found = {row.field: (row.value, row.source) for row in describe(settings)}
    assert found["queue_concurrency"] == (3, "argument")
    assert found["threads"] == (2, "environment")
    assert found["max_stalled"] == (1, ".env")
    assert found["processes"] == (2, "default")


def test_only_the_value_that_counts_is_checked() -> None:
    settings = load_settings({"threads": 5}, environ={"HEADRACE_THREADS": "many"}, dotenv=None)

    assert settings.threads == 5


def test_empty_variables_and_none_arguments_count_as_not_given(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("QUEUE_CONCURRENCY=7\nHEADRACE_THREADS\nHEADRACE_PREFIX=\n")

    settings = load_settings({"threads": None}, environ={"QUEUE_CONCURRENCY": " "}, dotenv=dotenv)

    assert (settings.queue_concurrency, settings.threads, settings.prefix) == (7, 32, "headrace")


def test_dotenv_changes_no_environment_and_may_refer_to_it(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(
        "\ufeffHOST=inside\nREDIS_URL='redis://${HOST}:${PORT}/1'  # quoted\nexport HEADRACE_PREFIX=x:y\n"
    )
    before = dict(os.environ)

    settings = load_settings(environ={"PORT": "6380"}, dotenv=dotenv)

    assert settings.redis_url == "redis://inside:6380/1"
    assert settings.prefix == "x:y"
    assert dict(os.environ) == before


def test_a_folder_named_dotenv_is_no_settings_file(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()

    assert load_settings(environ={}, dotenv=tmp_path / ".env") == Settings()


@pytest.mark.parametrize(
    ("content", "remedy"), [(b"A=\xff\xfe", "Save the file as UTF-8"), (b"#" * 1_048_577, "larger than 1048576 bytes")]
)
def test_an_unreadable_dotenv_is_refused_by_name(tmp_path: Path, content: bytes, remedy: str) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(content)

    with pytest.raises(SettingError, match=remedy) as caught:
        load_settings(environ={}, dotenv=dotenv)

    assert str(dotenv) in str(caught.value)


def test_a_dotenv_without_permission_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("QUEUE_CONCURRENCY=7\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(dotenv), "open", refuse)
    with pytest.raises(SettingError, match=r"cannot be read \(Permission denied\)\. Make it readable") as caught:
        load_settings(environ={}, dotenv=dotenv)

    assert str(dotenv) in str(caught.value)


@pytest.mark.parametrize("folder", ["a\0b", "~no-such-user-here/data"])
def test_a_data_folder_that_cannot_be_one_is_refused(folder: str) -> None:
    with pytest.raises(SettingError, match="the path of a folder"):
        load_settings({"data_dir": folder}, environ={}, dotenv=None)


def test_a_data_folder_may_be_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/elsewhere")

    settings = load_settings(environ={"HEADRACE_DATA_DIR": "~/queues"}, dotenv=None)

    assert str(settings.data_dir) == "/elsewhere/queues"


def test_a_wrong_value_names_variable_value_bounds_source_and_remedy(tmp_path: Path) -> None:
    dotenv = tmp_path / "mine.env"
    dotenv.write_text("QUEUE_CONCURRENCY=fast\n")

    with pytest.raises(SettingError) as from_environment:
        load_settings(environ={"QUEUE_CONCURRENCY": "fast"}, dotenv=None)
    with pytest.raises(SettingError) as from_dotenv:
        load_settings(environ={}, dotenv=dotenv)
    with pytest.raises(SettingError) as from_argument:
        load_settings({"lease": 0.5}, environ={}, dotenv=None)

    assert str(from_environment.value) == (
        "QUEUE_CONCURRENCY='fast': expected a whole number from 1 to 10000. "
        "Correct it in the environment, or remove it there for the default of 100."
    )
    assert from_environment.value.source == "environment"
    assert f"Correct it in {dotenv}" in str(from_dotenv.value)
    assert from_dotenv.value.source == ".env"
    assert str(from_argument.value).startswith("lease=0.5: expected a number of seconds from 1 to 600.")
    assert from_argument.value.source == "argument"


@given(st.sampled_from(VARIABLES), st.one_of(texts, numbers))
@example("QUEUE_CONCURRENCY", FULL_WIDTH)
@example("HEADRACE_GRACE", "nan")
@example("HEADRACE_KEEP_DEAD", "1e999")
@example("HEADRACE_COMPRESS_OVER_BYTES", "0")
def test_any_text_gives_a_value_within_bounds_or_an_error_that_names_the_variable(variable: str, text: str) -> None:
    outcome = _load({variable: text})

    if isinstance(outcome, SettingError):
        assert variable in str(outcome)
        assert outcome.expected
        assert len(str(outcome)) < 500
    else:
        # Building the same values again checks them against their bounds.
        values = {setting.field: getattr(outcome, setting.field) for setting in SETTINGS}
        assert Settings(**values) == outcome


@given(st.integers(min_value=-5, max_value=11_000))
def test_whole_numbers_are_accepted_exactly_within_their_bounds(number: int) -> None:
    environ = {"QUEUE_CONCURRENCY": str(number)}

    if 1 <= number <= 10_000:
        assert load_settings(environ=environ, dotenv=None).queue_concurrency == number
    else:
        with pytest.raises(SettingError, match="from 1 to 10000"):
            load_settings(environ=environ, dotenv=None)


@given(st.integers(min_value=1_000, max_value=600_000))
def test_milliseconds_of_the_variable_survive_as_seconds_of_the_field(lease_ms: int) -> None:
    settings = load_settings(environ={"QUEUE_STALLED_INTERVAL": str(lease_ms)}, dotenv=None)

    assert settings.lease == lease_ms / 1000
    assert {row.name: row.value for row in describe(settings)}["QUEUE_STALLED_INTERVAL"] == lease_ms


@pytest.mark.parametrize("value", ["5", 5.0, True, b"5", [], 10**30, -1, float("nan")])
def test_arguments_have_the_type_of_their_field(value: object) -> None:
    with pytest.raises(SettingError, match="queue_concurrency"):
        load_settings({"queue_concurrency": value}, environ={}, dotenv=None)


@pytest.mark.parametrize("value", ["0", "255", "67108865"])
def test_compression_is_off_at_zero_and_bounded_otherwise(value: str) -> None:
    environ = {"HEADRACE_COMPRESS_OVER_BYTES": value}

    if value == "0":
        assert load_settings(environ=environ, dotenv=None).compress_over_bytes == 0
    else:
        with pytest.raises(SettingError, match="or 0 for never"):
            load_settings(environ=environ, dotenv=None)


def test_words_are_found_in_any_case() -> None:
    settings = load_settings(environ={"HEADRACE_LOG_LEVEL": "debug", "HEADRACE_LOG_FORMAT": "JSON"}, dotenv=None)

    assert (settings.log_level, settings.log_format) == ("DEBUG", "json")


@pytest.mark.parametrize("prefix", ["a{b}", "a b", "x" * 65, "é", "a\nb"])
def test_a_prefix_that_would_break_keys_is_refused(prefix: str) -> None:
    with pytest.raises(SettingError, match="letters, digits"):
        load_settings({"prefix": prefix}, environ={}, dotenv=None)


def test_the_pool_minimum_follows_a_lowered_maximum_unless_it_was_set() -> None:
    lowered = load_settings(environ={"REDIS_MAX_CONNECTIONS": "8"}, dotenv=None)
    raised = lowered.override({"redis_max_connections": 50})

    assert (lowered.redis_min_connections, raised.redis_min_connections) == (8, 20)
    with pytest.raises(SettingError, match="REDIS_MIN_CONNECTIONS=9: expected at most REDIS_MAX_CONNECTIONS=8"):
        load_settings(environ={"REDIS_MAX_CONNECTIONS": "8", "REDIS_MIN_CONNECTIONS": "9"}, dotenv=None)


def test_a_minimum_above_the_maximum_says_where_each_came_from() -> None:
    own = load_settings({"redis_max_connections": 8}, environ={"REDIS_MIN_CONNECTIONS": "5"}, dotenv=None)

    with pytest.raises(SettingError, match=r"the first from environment, the second from argument"):
        load_settings({"redis_max_connections": 8}, environ={"REDIS_MIN_CONNECTIONS": "9"}, dotenv=None)
    with pytest.raises(SettingError, match=r"the first from fleet, the second from default"):
        load_settings(environ={}, dotenv=None).with_fleet({"REDIS_MIN_CONNECTIONS": "101"}, place="the command")

    assert own.redis_min_connections == 5


def test_an_unknown_argument_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingError, match=r"queue_concurency: no such setting\. Did you mean queue_concurrency\?"):
        load_settings({"queue_concurency": 5}, environ={}, dotenv=None)


def test_an_unknown_variable_is_warned_of_once_with_the_nearest_name(caplog: pytest.LogCaptureFixture) -> None:
    settings_names.forget_warnings()
    environ = {"HEADRACE_THREAD": "5", "HEADRACE_QQQQ": "1", "OTHER": "x"}

    with caplog.at_level(logging.WARNING):
        load_settings(environ=environ, dotenv=None)
        load_settings(environ=environ, dotenv=None)

    assert [record.getMessage().split(" `")[0] for record in caplog.records] == [
        "unknown setting ignored: HEADRACE_THREAD. Did you mean HEADRACE_THREADS?",
        "unknown setting ignored: HEADRACE_QQQQ.",
    ]


ADDRESSES = """
redis://localhost
redis://
rediss://u:p@10.0.0.1:6380/15?ssl_cert_reqs=none
redis://[::1]:6379/0
unix:///tmp/x.sock?db=1
unix://user:pw@/tmp/x.sock
"""
NO_ADDRESSES = """
localhost:6379
http://localhost
redis:localhost
redis://h:port
redis://h:70000
redis://h:0
redis://h/zero
redis://h h
redis://[::1
unix://
unix:///
"""


@pytest.mark.parametrize("url", ADDRESSES.strip().splitlines())
def test_addresses_of_servers_are_accepted(url: str) -> None:
    assert load_settings(environ={"REDIS_URL": url}, dotenv=None).redis_url == url


@pytest.mark.parametrize("url", [*NO_ADDRESSES.strip().splitlines(), "redis://h\n", "redis://h/" + "1" * 5000])
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(SettingError, match="redis_url"):
        load_settings({"redis_url": url}, environ={}, dotenv=None)


secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).map(lambda s: f"S3cr{s}")


@given(secrets, st.sampled_from(["redis://u:{}@h:1", "redis://u:{}@h/0", "redis://:{}@[::1]:1", "unix://:{}@/tmp/x"]))
def test_a_password_is_never_shown(secret: str, shape: str) -> None:
    for written in (quote(secret, safe=""), secret):
        url = shape.format(written)

        outcome = _load({"REDIS_URL": url})

        assert "S3cr" not in mask_url(url)
        if isinstance(outcome, SettingError):
            assert "S3cr" not in str(outcome) + outcome.value
        else:
            assert "S3cr" not in repr(outcome) + repr(describe(outcome))


@given(secrets)
@example("S3cr:@")
def test_a_password_in_the_query_or_without_a_host_is_never_shown(secret: str) -> None:
    assume(not re.search("[&#]", secret))

    assert "S3cr" not in mask_url(f"redis://h/0?db=1&password={secret}")
    assert "S3cr" not in mask_url(f"redis://:{secret}")


def test_masking_keeps_what_helps_to_find_the_server() -> None:
    assert mask_url("redis://app:pw@10.0.0.5:6379/3") == "redis://app:***@10.0.0.5:6379/3"
    assert mask_url("redis://[::1]:6379/0") == "redis://[::1]:6379/0"
    assert mask_url("unix:///tmp/x.sock?db=1") == "unix:///tmp/x.sock?db=1"
    assert mask_url("localhost:6379") == "localhost:6379"


def test_settings_are_fixed_and_an_override_makes_a_checked_copy() -> None:
    settings = load_settings(environ={"HEADRACE_GRACE": "1.5"}, dotenv=None)

    changed = settings.override({"threads": 4, "grace": None})

    assert (changed.threads, changed.grace, settings.threads) == (4, 1.5, 32)
    assert {row.field: row.source for row in describe(changed)}["threads"] == "argument"
    assert {row.field: row.source for row in describe(changed)}["grace"] == "environment"
    with pytest.raises(SettingError, match="threads=0"):
        settings.override({"threads": 0})
    with pytest.raises(FrozenInstanceError):
        settings.threads = 5  # type: ignore[misc]  # The claim is that this is refused.


def test_every_setting_is_described_in_full() -> None:
    for row in describe(Settings()):
        assert row.name.isupper()
        assert row.bounds
        assert row.text.endswith(".")
    assert len(set(VARIABLES)) == len(VARIABLES)


def _load(environ: dict[str, str]) -> Settings | SettingError:
    try:
        return load_settings(environ=environ, dotenv=None)
    except SettingError as error:
        return error


# Settings of the fleet

PLACE = "the settings of the fleet"


def test_the_fleet_comes_behind_every_nearer_source_and_before_the_default() -> None:
    own = load_settings({"threads": 3}, environ={"HEADRACE_GRACE": "1"}, dotenv=None)
    stored = {"HEADRACE_THREADS": "7", "HEADRACE_GRACE": "7", "QUEUE_CONCURRENCY": "7"}

    settings = own.with_fleet(stored, place=PLACE)

    found = {row.field: (row.value, row.source) for row in describe(settings)}
    assert found["threads"] == (3, "argument")
    assert found["grace"] == (1, "environment")
    assert found["queue_concurrency"] == (7, "fleet")
    assert found["processes"] == (2, "default")


def test_what_the_fleet_does_not_store_any_more_has_its_default_again() -> None:
    own = load_settings({"threads": 3}, environ={}, dotenv=None)
    first = own.with_fleet({"QUEUE_CONCURRENCY": "7", "REDIS_MAX_CONNECTIONS": "8"}, place=PLACE)

    second = first.with_fleet({}, place=PLACE)

    assert (first.queue_concurrency, first.redis_min_connections) == (7, 8)
    assert second == own
    assert (second.queue_concurrency, second.redis_min_connections, second.threads) == (100, 20, 3)


def test_what_belongs_to_one_process_or_is_no_setting_is_left_out_of_the_fleet() -> None:
    stored = {"HEADRACE_PREFIX": "other", "REDIS_URL": "redis://elsewhere", "HEADRACE_NO_SUCH": "1"}

    assert load_settings(environ={}, dotenv=None).with_fleet(stored, place=PLACE) == Settings()


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (
            {"QUEUE_CONCURRENCY": "fast"},
            "QUEUE_CONCURRENCY='fast': expected a whole number from 1 to 10000. Correct it in",
        ),
        ({"REDIS_MIN_CONNECTIONS": "200"}, "REDIS_MIN_CONNECTIONS=200: expected at most REDIS_MAX_CONNECTIONS=100"),
    ],
)
def test_a_bad_setting_of_the_fleet_is_refused_whole_and_says_so(stored: dict[str, str], text: str) -> None:
    own = load_settings(environ={}, dotenv=None)

    with pytest.raises(SettingError, match="expected") as caught:
        own.with_fleet({"HEADRACE_THREADS": "7", **stored}, place=PLACE)

    assert text in str(caught.value)
    assert caught.value.source == "fleet"


# Names with values

limits = st.dictionaries(st.from_regex(r"[A-Za-z0-9_.:=-]{1,20}", fullmatch=True), st.integers(1, 10_000), max_size=5)


@given(limits)
def test_limits_of_queues_survive_as_text(given_limits: dict[str, int]) -> None:
    text = ", ".join(f"{name}={slots}" for name, slots in given_limits.items())

    settings = load_settings(environ={"HEADRACE_QUEUE_LIMITS": text}, dotenv=None)

    assert dict(settings.queue_limits) == given_limits
    assert load_settings({"queue_limits": given_limits}, environ={}, dotenv=None) == settings


@pytest.mark.parametrize(
    "text", ["mail", "mail=", "=3", "mail=0", "mail=10001", "mail=3,mail=4", "a b=3", "a{b}=3", "mail=+3", "mail=1e2"]
)
def test_a_limit_of_no_queue_or_of_no_number_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="such as mail=5,bulk=20"):
        load_settings(environ={"HEADRACE_QUEUE_LIMITS": text}, dotenv=None)


def test_levels_are_of_parts_that_exist() -> None:
    environ = {"HEADRACE_LOG_LEVELS": "pool=debug, headrace.worker.lease=WARNING"}

    settings = load_settings(environ=environ, dotenv=None)

    assert settings.log_levels == (("pool", "DEBUG"), ("worker.lease", "WARNING"))
    for text in ("wroker=DEBUG", "pool=LOUD", "pool", "..=DEBUG", "worker/lease=DEBUG"):
        with pytest.raises(SettingError, match="parts of headrace"):
            load_settings(environ={"HEADRACE_LOG_LEVELS": text}, dotenv=None)


@pytest.mark.parametrize(
    "value", [5, "mail=5", [1], {"mail": "5"}, {5: 5}, {"mail": True}, {f"q{n}": 1 for n in range(1_001)}]
)
def test_limits_as_an_argument_are_a_dict_of_whole_numbers(value: object) -> None:
    with pytest.raises(SettingError, match="queue_limits"):
        load_settings({"queue_limits": value}, environ={}, dotenv=None)


def test_a_name_kept_for_a_part_that_is_not_there_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    settings_names.forget_warnings()

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            settings_names.warn_of_others(["VISUALIZATION_ENABLED", "VISUALIZATION_OTHER", "PATH"], {})

    assert [record.getMessage().partition(" The part")[0] for record in caplog.records] == [
        "setting without effect: VISUALIZATION_ENABLED."
    ]
