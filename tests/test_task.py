"""Tasks: what `@app.task` takes, what a function gets of a call, and what is refused before it is written."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Fixed, Headrace, Priority, current_job, resource
from headrace.errors import ArgumentError, EncodingError, JobFailed, OptionError, RecordTooLarge
from headrace.options import MAX_ATTEMPTS, MAX_KEY_CHARACTERS, MAX_SECONDS
from headrace.resp import pack_command
from tests.live import DEADLINE, opened, sibling, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path, PurePath


SHOP = """
from headrace import Headrace

app = Headrace()

@app.task
def work() -> None: ...

print(work.name)
"""


@dataclasses.dataclass
class Order:
    number: int


@dataclasses.dataclass
class OtherOrder:
    text: str


@pytest.fixture
async def app(make_app: Callable[..., Headrace]) -> AsyncIterator[Headrace]:
    async with opened(make_app()) as app:
        yield app


@pytest.fixture
def closed() -> Headrace:
    # For what needs no server, and would fail if it asked one.
    return Headrace("unix:///nonexistent/server.sock")


async def keys_of(app: Headrace) -> list[bytes]:
    (keys,) = await app.control.roundtrip(pack_command("KEYS", f"{app.settings.prefix}:*"), 1)
    # An app that opens claims its connections in the budget of the fleet.
    return [key for key in keys if not key.endswith(b":budget")]


# A task is still its function


async def test_a_direct_call_runs_the_function_here_and_now(closed: Headrace) -> None:
    @closed.task
    async def coroutine(number: int) -> int:
        return number + 1

    @closed.task
    def plain(number: int) -> int:
        return number + 1

    assert await coroutine(1) == 2
    assert plain(1) == 2


def test_a_task_looks_like_its_function(closed: Headrace) -> None:
    @closed.task
    def documented(number: int, *, twice: bool = False) -> int:
        """Say what it does."""
        return number * (1 + twice)

    assert documented.__doc__ == "Say what it does."
    assert documented.__name__ == "documented"  # type: ignore[attr-defined]  # copied from the function
    assert inspect.signature(documented) == inspect.signature(documented.function)
    assert documented.name == f"{__name__}.test_a_task_looks_like_its_function.<locals>.documented"
    assert repr(documented) == f"<Task {documented.name} on default>"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["shop.py"], "shop.work"),
        (["-m", "shop"], "shop.work"),
        (["-c", "import shop; print(shop.work.name)"], "shop.work"),
        (["-m", "shops.mail"], "shops.mail.work"),
        (["-m", "shops"], "shops.__main__.work"),
        (["-c", SHOP], "work"),
    ],
    ids=" ".join,
)
def test_a_task_of_a_script_is_named_as_the_worker_that_imports_it_names_it(
    tmp_path: Path, command: list[str], name: str
) -> None:
    (tmp_path / "shops").mkdir()
    for path in ("shop.py", "shops/mail.py", "shops/__main__.py"):
        (tmp_path / path).write_text(SHOP)

    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stdout.splitlines()[-1] == name


def test_the_same_function_may_be_registered_again(closed: Headrace) -> None:
    def work() -> None: ...

    first = closed.task(name="work")(work)
    second = closed.task(name="work", attempts=7)(work)

    assert first.name == second.name == "work"
    assert closed.tasks.names() == ["work"]
    assert closed.tasks.get("work") is second


def test_two_functions_of_one_name_are_refused(closed: Headrace) -> None:
    @closed.task(name="work")
    def first() -> None: ...

    with pytest.raises(OptionError, match=r"task 'work' is registered twice: .*first.*second.*Give one of them"):

        @closed.task(name="work")
        def second() -> None: ...

    assert closed.tasks.get("work") is first


# Shapes of signatures


def _shapes() -> dict[str, tuple[Callable[..., Any], list[tuple[tuple[Any, ...], dict[str, Any]]]]]:
    def defaults(a: int, b: str = "b", *, c: float = 1.5) -> list[Any]:
        return [a, b, c]

    def rest(a: int, *rest: float, **named: bytes) -> list[Any]:
        return [a, list(rest), named]

    def positional_only(a: int, b: int = 2, /, c: int = 3) -> list[Any]:
        return [a, b, c]

    def same_name(a: int, /, **named: int) -> list[Any]:
        return [a, named]

    def keyword_only(*, a: int, b: int = 2) -> list[Any]:
        return [a, b]

    def unannotated(a, b=2, *c, d, **e):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003, ANN202 - the subject
        return [a, b, list(c), d, e]

    def nothing() -> None:
        return None

    return {
        "defaults": (defaults, [((1,), {}), ((1, "x"), {"c": 2.5}), ((), {"a": 1, "b": "y"}), ((1,), {"c": 3.0})]),
        "rest": (rest, [((1,), {}), ((1, 2.0, 3.0), {}), ((1,), {"x": b"1", "y": b"2"}), ((1, 2.0), {"z": b""})]),
        "positional only": (positional_only, [((1,), {}), ((1, 5), {"c": 6}), ((1, 5, 6), {})]),
        "same name": (same_name, [((1,), {"a": 2, "b": 3}), ((1,), {})]),
        "keyword only": (keyword_only, [((), {"a": 1}), ((), {"a": 1, "b": 5})]),
        "unannotated": (unannotated, [((1,), {"d": 4}), ((1, 2, [3], "4"), {"d": None, "f": {"g": 1}})]),
        "nothing": (nothing, [((), {})]),
    }


@pytest.mark.parametrize("shape", list(_shapes()))
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_job_gets_the_arguments_that_a_direct_call_gets(app: Headrace, shape: str, kind: str) -> None:
    function, calls = _shapes()[shape]

    @functools.wraps(function)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    task = app.task(name="task")(function if kind == "plain" else coroutine)
    async with working(app):
        single = [await task.enqueue(*args, **kwargs) for args, kwargs in calls]
        many = await task.enqueue_many(calls)

        expected = [function(*args, **kwargs) for args, kwargs in calls]
        assert [await job.result(DEADLINE) for job in single] == expected
        assert [await job.result(DEADLINE) for job in many] == expected


@pytest.mark.parametrize(
    ("shape", "args", "kwargs", "complaint"),
    [
        ("defaults", (), {}, "missing a required argument: 'a'"),
        ("defaults", (1, "b", 2.0), {}, "too many positional arguments"),
        ("defaults", (1,), {"a": 2}, "multiple values for argument 'a'"),
        ("defaults", (1,), {"z": 2}, "unexpected keyword argument 'z'"),
        ("defaults", ("one",), {}, "argument 'a': Expected `int`, got `str`"),
        ("defaults", (1, 2), {}, "argument 'b': Expected `str`, got `int`"),
        ("defaults", (1,), {"c": "far"}, "argument 'c': Expected `float`, got `str`"),
        ("rest", (1, 2.0, "three"), {}, "argument 'number 3': Expected `float`"),
        ("rest", (1,), {"x": 5}, "argument 'x': Expected `bytes`"),
        ("positional only", (), {"a": 1}, "positional.only"),
        ("keyword only", (1,), {}, "too many positional arguments"),
        ("keyword only", (), {}, "missing a required (keyword-only )?argument: 'a'"),
        ("nothing", (1,), {}, "too many positional arguments"),
        ("unannotated", (1, 2), {}, "missing a required argument: 'd'"),
    ],
)
async def test_wrong_arguments_are_a_type_error_before_anything_is_written(
    app: Headrace, shape: str, args: tuple[Any, ...], kwargs: dict[str, Any], complaint: str
) -> None:
    task = app.task(name="work")(_shapes()[shape][0])

    for enqueue in (task.enqueue, task.using(delay=1.0).enqueue):
        with pytest.raises(TypeError, match=complaint) as caught:
            await enqueue(*args, **kwargs)
        assert isinstance(caught.value, ArgumentError)
        assert "task 'work'" in str(caught.value)
    with pytest.raises(ArgumentError, match=complaint):
        task.enqueue_sync(*args, **kwargs)
    with pytest.raises(ArgumentError, match=complaint):
        await task.enqueue_many([(args, kwargs)])

    assert await keys_of(app) == []
    assert not app._sync.is_open


async def test_one_wrong_call_of_many_writes_none(app: Headrace) -> None:
    @app.task(name="work")
    async def work(number: int) -> None: ...

    with pytest.raises(ArgumentError, match="Expected `int`"):
        await work.enqueue_many([((1,),), ((2,),), (("three",),)])

    assert await keys_of(app) == []


@pytest.mark.parametrize(
    "call", [1, "text", (), (1,), ((1,), {}, 3), ((1,), []), {"number": 1}, (("number", 1), 2), b"ab"]
)
async def test_a_malformed_call_of_many_is_named_with_its_place_and_an_example(closed: Headrace, call: Any) -> None:
    @closed.task(name="work")
    async def work(number: int) -> None: ...

    with pytest.raises(ArgumentError, match=r"task 'work': call 1 of enqueue_many is .*such as \(\('a',\), "):
        await work.enqueue_many([((1,),), call])


async def test_no_calls_are_no_jobs(app: Headrace) -> None:
    @app.task(name="work")
    async def work(number: int) -> None: ...

    assert await work.enqueue_many([]) == []
    assert await work.enqueue_many(iter(())) == []


async def test_more_arguments_than_are_taken_are_refused(closed: Headrace) -> None:
    @closed.task(name="work")
    async def work(*numbers: int) -> None: ...

    with pytest.raises(ArgumentError, match=r"1001 positional arguments; at most 1000 are taken\. Pass one list"):
        await work.enqueue(*range(1001))


async def test_a_value_that_cannot_be_written_is_named(closed: Headrace) -> None:
    @closed.task(name="work")
    async def work(first: Any, *, second: Any = None) -> None: ...

    with pytest.raises(EncodingError, match=r"a value of type builtins\.object cannot be written"):
        await work.enqueue(object())
    with pytest.raises(EncodingError, match=r"task 'work': argument 'second': a value of type _thread\.lock"):
        await work.enqueue(1, second=__import__("threading").Lock())


async def test_a_record_above_the_limit_is_refused_with_both_sizes(make_app: Callable[..., Headrace]) -> None:
    app = make_app(record_limit_bytes=2_048, compress_over_bytes=0)

    @app.task(name="work")
    async def work(text: str) -> None: ...

    async with opened(app):
        with pytest.raises(RecordTooLarge, match=r"takes 3\d\d\d bytes: the limit is 2048\. Store the data elsewhere"):
            await work.enqueue("x" * 3_000)
        assert await keys_of(app) == []


# Annotations


async def test_an_annotation_for_type_checking_only_is_named_when_a_job_is_enqueued(app: Headrace) -> None:
    @app.task(name="work")
    async def work(number: int, path: PurePath | None = None) -> None: ...

    with pytest.raises(OptionError, match=r"task 'work': the annotation of 'path' cannot be resolved: .*'PurePath'"):
        await work.enqueue(1, None)
    with pytest.raises(OptionError, match="Import the type at run time, not only for type checking"):
        await work.enqueue(1, path=None)

    assert await keys_of(app) == []


async def test_an_annotation_that_cannot_be_resolved_harms_no_other(app: Headrace) -> None:
    @app.task(name="work")
    async def work(number: int, path: PurePath | None = None) -> PurePath | int:
        return number if path is None else path

    async with working(app):
        assert await (await work.enqueue(1)).result(DEADLINE) == 1


async def test_a_resource_may_be_annotated_for_type_checking_only(app: Headrace) -> None:
    @app.lifespan
    async def paths() -> Any:
        yield {"path": "here"}

    @app.task(name="work")
    async def work(number: int, path: PurePath = resource()) -> str:
        return f"{number} {path}"

    async with working(app):
        assert await (await work.enqueue(1)).result(DEADLINE) == "1 here"


class Opaque:
    """Neither msgspec nor pydantic knows how to build one."""


async def test_an_annotation_that_no_record_can_hold_is_named(closed: Headrace) -> None:
    @closed.task(name="opaque")
    async def opaque(value: Opaque) -> None: ...

    @closed.task(name="either")
    async def either(*, value: Order | OtherOrder) -> None: ...

    with pytest.raises(ArgumentError, match=r"test_task\.Opaque cannot be read from a record\. Annotate the parameter"):
        await opaque.enqueue(5)  # type: ignore[arg-type]  # any value would do
    with pytest.raises(OptionError, match=r"task 'either', argument 'value': the annotation .* cannot be read"):
        await either.enqueue(value=Order(1))


async def test_what_only_the_worker_cannot_read_makes_the_job_dead_and_the_worker_go_on(app: Headrace) -> None:
    other = sibling(app)

    @app.task(name="work", attempts=1)
    async def work_here(value: Any) -> None: ...

    @other.task(name="work", attempts=1)
    async def work_there(value: PurePath) -> None: ...

    @other.task(name="fine")
    async def fine() -> str:
        return "fine"

    async with opened(other), working(other):
        bad = await work_here.enqueue("x")
        good = await fine.enqueue()

        assert await good.result(DEADLINE) == "fine"
        with pytest.raises(JobFailed, match="the annotation of 'value' cannot be resolved"):
            await bad.result(DEADLINE)


async def test_a_model_that_refuses_its_value_in_the_worker_makes_the_job_dead(app: Headrace) -> None:
    class Model:
        def __init__(self, number: int) -> None:
            self.number = number

        @classmethod
        def model_validate(cls, value: Any) -> Model:
            if value["number"] > 1:
                raise LookupError("no such number today")
            return cls(**value)

        def model_dump(self, **_: Any) -> dict[str, int]:
            return {"number": self.number}

    other = sibling(app)

    @app.task(name="work", attempts=1)
    async def work_here(value: Any) -> None: ...

    async def work_there(value: Any) -> int:
        return int(value.number)

    work_there.__annotations__["value"] = Model
    other.task(name="work", attempts=1)(work_there)

    @other.task(name="fine")
    async def fine() -> str:
        return "fine"

    async with opened(other), working(other):
        bad = await work_here.enqueue({"number": 2})
        good = await fine.enqueue()

        assert await good.result(DEADLINE) == "fine"
        with pytest.raises(JobFailed, match="no such number today"):
            await bad.result(DEADLINE)


# Options of a task

BAD_OPTIONS: list[tuple[str, Any, str]] = [
    ("attempts", 0, "whole number from 1 to 1000"),
    ("attempts", -1, "whole number from 1 to 1000"),
    ("attempts", MAX_ATTEMPTS + 1, "whole number from 1 to 1000"),
    ("attempts", 2.5, "whole number"),
    ("attempts", True, "whole number"),
    ("attempts", math.nan, "whole number"),
    ("attempts", "3", "whole number"),
    ("priority", 0, "whole number from 1 to 20"),
    ("priority", 21, "whole number from 1 to 20"),
    ("priority", None, "whole number"),
    ("timeout", 0, "seconds from 0.001"),
    ("timeout", -1.0, "seconds from"),
    ("timeout", math.nan, "seconds from"),
    ("timeout", math.inf, "seconds from"),
    ("timeout", MAX_SECONDS * 2, "seconds from"),
    ("timeout", "10", "seconds from"),
    ("hard_timeout", math.nan, "seconds from"),
    ("max_age", 0, "seconds from"),
    ("max_age", math.inf, "seconds from"),
    ("memory_limit_mb", 0, "a whole number from 1"),
    ("memory_limit_mb", 64, "needs a process of its own"),
    ("keep_result", -0.001, "seconds from 0"),
    ("keep_result", math.nan, "seconds from 0"),
    ("keep_result", 10**30, "seconds from 0"),
    ("backoff", 5, r"expected Fixed\(\.\.\.\)"),
    ("backoff", None, r"expected Fixed\(\.\.\.\)"),
    ("retry_on", ["ValueError"], "expected exception classes"),
    ("retry_on", (ValueError, "OSError"), "expected exception classes"),
    ("retry_on", BaseException, "expected exception classes"),
    ("queue", "", "queue name"),
    ("queue", "two words", "queue name"),
    ("queue", "a{b}", "queue name"),
    ("queue", "q" * 101, "queue name"),
    ("queue", 5, "queue name"),
    ("queue", None, "queue name"),
    ("dead_letter", "two words", "queue name"),
    ("dead_letter", "", "queue name"),
    ("name", "n" * 201, "task name"),
    ("name", 5, "task name"),
]


@pytest.mark.parametrize(("option", "value", "complaint"), BAD_OPTIONS)
def test_an_option_out_of_bounds_is_refused_with_its_name(
    closed: Headrace, option: str, value: Any, complaint: str
) -> None:
    def work() -> None: ...

    with pytest.raises(ValueError, match=complaint) as caught:
        closed.task(**{"name": "work", option: value})(work)

    assert isinstance(caught.value, OptionError)
    assert option in str(caught.value) or option == "name" or "queue name" in str(caught.value)
    assert closed.tasks.names() == []


def test_an_unknown_option_is_refused_with_its_name(closed: Headrace) -> None:
    def work() -> None: ...

    with pytest.raises(OptionError, match=r"task 'work': .*'tries'.*TaskOptions"):
        closed.task(name="work", tries=3)(work)  # type: ignore[call-overload]  # the mistake under test


def test_a_hard_timeout_comes_after_the_soft_one(closed: Headrace) -> None:
    def work() -> None: ...

    with pytest.raises(OptionError, match="hard_timeout=5 is shorter than timeout=10"):
        closed.task(timeout=10.0, hard_timeout=5.0)(work)
    assert closed.task(name="equal", timeout=5.0, hard_timeout=5.0)(work).options.hard_timeout == 5.0


def test_functions_that_cannot_be_tasks_are_refused(closed: Headrace) -> None:
    async def coroutine() -> None: ...
    def generator() -> Any:
        yield

    async def async_generator() -> Any:
        yield

    task: Any = closed.task
    with pytest.raises(OptionError, match="process=True needs a plain def"):
        task(process=True)(coroutine)
    for function in (generator, async_generator):
        with pytest.raises(OptionError, match="a generator cannot be a job"):
            task(function)
    with pytest.raises(OptionError, match=r"is no function\. Put @app\.task above a def"):
        task("send_mail")
    with pytest.raises(OptionError, match=r"is no function\. Put @app\.task above a def"):
        task(name="five")(5)
    assert closed.tasks.names() == []


async def test_objects_that_are_called_like_functions_are_tasks(app: Headrace) -> None:
    class Adder:
        def __init__(self, amount: int) -> None:
            self.amount = amount

        def __call__(self, number: int) -> int:
            return number + self.amount

        def method(self, number: int) -> int:
            return number - self.amount

    async def add(one: int, other: int) -> int:
        return one + other

    tasks: list[Any] = [
        app.task(name="object")(Adder(1)),
        app.task(name="method")(Adder(1).method),
        app.task(name="partial")(functools.partial(add, 1)),
        app.task(name="built-in")(math.floor),
    ]
    async with working(app):
        jobs = [await task.enqueue(5) for task in tasks]

        assert [await job.result(DEADLINE) for job in jobs] == [6, 4, 6, 5]


def test_an_object_without_a_name_has_to_be_given_one(closed: Headrace) -> None:
    with pytest.raises(OptionError, match=r"has no name of its own. Give it one: @app.task\(name="):
        closed.task(functools.partial(print, 1))


def test_a_function_whose_signature_cannot_be_read_is_refused(closed: Headrace) -> None:
    task: Any = closed.task
    with pytest.raises(OptionError, match=r"the signature of .* cannot be read\. Wrap it in a Python function"):
        task(name="max")(max)


# Options of a call


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("delay", -1, "seconds from 0"),
        ("delay", math.nan, "seconds from 0"),
        ("delay", math.inf, "seconds from 0"),
        ("delay", MAX_SECONDS + 1, "seconds from 0"),
        ("delay", "5", "seconds from 0"),
        ("delay", None, "seconds from 0"),
        ("priority", 0, "whole number from 1 to 20"),
        ("priority", 21, "whole number from 1 to 20"),
        ("priority", 5.0, "whole number from 1 to 20"),
        ("attempts", 0, "whole number from 1 to 1000"),
        ("attempts", 10**9, "whole number from 1 to 1000"),
        ("timeout", 0, "seconds from 0.001"),
        ("timeout", math.nan, "seconds from 0.001"),
        ("keep_result", -1, "seconds from 0"),
        ("key", "", "text of 1 to 500"),
        ("key", "k" * (MAX_KEY_CHARACTERS + 1), "text of 1 to 500"),
        ("key", 42, "text of 1 to 500"),
        ("queue", "two words", "queue name"),
        ("queue", "", "queue name"),
        ("queue", 7, "queue name"),
    ],
)
async def test_an_option_of_a_call_out_of_bounds_is_refused_at_once(
    app: Headrace, option: str, value: Any, complaint: str
) -> None:
    @app.task(name="work")
    async def work() -> None: ...

    with pytest.raises(OptionError, match=complaint):
        work.using(**{option: value})

    assert await keys_of(app) == []


async def test_a_key_is_for_one_job_only(closed: Headrace) -> None:
    @closed.task(name="work")
    async def work() -> None: ...

    with pytest.raises(OptionError, match=r"a key names one job\. Enqueue the jobs one by one"):
        await work.using(key="k").enqueue_many([((),)])


async def test_options_of_a_call_reach_the_job(app: Headrace) -> None:
    seen: list[tuple[int, str]] = []

    @app.task(name="work", attempts=9, backoff=Fixed(0.0))
    async def work(number: int, *, text: str) -> None:
        seen.append((current_job().attempt, current_job().queue))
        raise ValueError(f"{number} {text}")

    async with working(app, ["bulk"]):
        using = work.using(queue="bulk", priority=Priority.CRITICAL, attempts=2)
        job = await using.enqueue(1, text="one")
        with pytest.raises(JobFailed, match="dead after 2 attempts: ValueError: 1 one"):
            await job.result(DEADLINE)

    assert seen == [(1, "bulk"), (2, "bulk")]
    assert job.details is not None
    assert job.details.priority == 20


async def test_using_leaves_the_task_as_it_was(app: Headrace) -> None:
    @app.task(name="work", queue="calm")
    async def work() -> None: ...

    work.using(queue="bulk", delay=5.0)
    job = await work.enqueue()

    assert job.queue == "calm"
    assert (await app.queue("calm").stats()).waiting == 1


async def test_arguments_are_copies_once_they_are_enqueued(app: Headrace) -> None:
    entered = asyncio.Event()

    @app.task(name="work")
    async def work(order: Order) -> int:
        await entered.wait()
        return order.number

    order = Order(1)
    async with working(app):
        job = await work.enqueue(order)
        order.number = 2
        entered.set()

        assert await job.result(DEADLINE) == 1
