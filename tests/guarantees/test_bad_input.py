"""Bad input is refused with the name of what is wrong and what to do, before anything is written."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from headrace.errors import CallError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.apps.journal import JournalApp
    from tests.support.crew import Crew
    from tests.support.raw import Raw


def using(**options: Any) -> Callable[[JournalApp], Coroutine[Any, Any, Any]]:
    async def call(app: JournalApp) -> None:
        await app.step.using(**options).enqueue(1)

    return call


def enqueue(*arguments: Any, **keywords: Any) -> Callable[[JournalApp], Coroutine[Any, Any, Any]]:
    return lambda app: app.step.enqueue(*arguments, **keywords)


CALLS: dict[str, tuple[Callable[[JournalApp], Coroutine[Any, Any, Any]], str]] = {
    "no argument": (enqueue(), "missing a required argument: 'number'"),
    "too many": (enqueue(1, 2.0, 3), "too many positional arguments"),
    "unknown": (enqueue(1, pace=2), "unexpected keyword argument 'pace'"),
    "twice": (enqueue(1, number=2), "multiple values for argument 'number'"),
    "wrong type": (enqueue("one"), "argument 'number'"),
    "wrong type by name": (enqueue(1, seconds="long"), "argument 'seconds'"),
    "not to be written": (enqueue(1, seconds=object()), "argument 'seconds'"),
    "NaN": (using(delay=math.nan), "delay=nan"),
    "infinite": (using(timeout=math.inf), "timeout=inf"),
    "negative": (using(delay=-0.001), "delay=-0.001"),
    "huge": (using(keep_result=1e300), "keep_result=1e+300"),
    "text": (using(delay="5"), "delay='5'"),
    "a truth": (using(attempts=True), "attempts=True"),
    "no attempts": (using(attempts=0), "attempts=0"),
    "priority 21": (using(priority=21), "priority=21"),
    "half a priority": (using(priority=5.5), "priority=5.5"),
    "empty key": (using(key=""), "key=''"),
    "long key": (using(key="k" * 501), "key='kkk"),
    "brace": (using(queue="{mail}"), "queue name '{mail}'"),
    "white space": (using(queue="mail now"), "queue name 'mail now'"),
    "not a call": (lambda app: app.step.enqueue_many([((1,),), (2,)]), "call 1 of enqueue_many is (2,)"),
    "one bad of many": (lambda app: app.step.enqueue_many([((1,),), (("x",),)]), "argument 'number'"),
}


@pytest.mark.parametrize(("call", "named"), [pytest.param(*pair, id=name) for name, pair in CALLS.items()])
async def test_a_bad_call_names_the_field_and_the_remedy_and_writes_nothing(
    crew: Crew, raw: Raw, call: Callable[[JournalApp], Coroutine[Any, Any, Any]], named: str
) -> None:
    async with crew.app() as app:
        with pytest.raises(CallError) as caught:
            await call(app)

    text = str(caught.value)
    assert named in text
    assert any(word in text.lower() for word in ("expected", "it takes", "pass ", "rename"))
    assert text.endswith(".")
    assert raw.keys(f"{crew.prefix}:") == []

    # Red when: producer.py writes before everything is checked, or a check lets its value through.
