"""Hooks around jobs, and resources that live as long as a worker."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from headrace.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from headrace.context import CurrentJob

    Lifespan: TypeAlias = Callable[[], AsyncGenerator[dict[str, Any], None]]

_METHODS: Final = ("before", "after", "error")
#: Middlewares and lifespans of one app at most, each.
MAX_HOOKS: Final = 100


class Middleware(Protocol):
    """Hooks around a job; each method may be left out, and may be a plain function or a coroutine function."""

    async def before(self, job: CurrentJob) -> None:
        """Run before the task; an exception fails the attempt."""

    async def after(self, job: CurrentJob, result: object) -> None:
        """Run after the task returned, before its completion is recorded; an exception fails the attempt."""

    async def error(self, job: CurrentJob, error: Exception) -> None:
        """Run after the task raised; the exception goes on."""


class Hooks:
    """The middlewares and lifespans of one app, in the order they were added."""

    def __init__(self) -> None:
        self._middlewares: list[Any] = []
        self._lifespans: list[Lifespan] = []

    def add_middleware(self, middleware: Middleware) -> None:
        """Add a middleware.

        Raises:
            OptionError: It has none of the three methods, or there are too many.
        """
        if not any(callable(getattr(middleware, name, None)) for name in _METHODS):
            text = f"middleware {middleware!r}: expected an object with a method before, after or error"
            raise OptionError(text + ". See headrace.middleware.Middleware.")
        if len(self._middlewares) >= MAX_HOOKS:
            raise OptionError(f"middleware {middleware!r}: {MAX_HOOKS} were added already. Add each one once.")
        self._middlewares.append(middleware)

    def add_lifespan(self, lifespan: Lifespan) -> None:
        """Add an async generator function that yields a dict of resources.

        Raises:
            OptionError: It is something else, or there are too many.
        """
        if not inspect.isasyncgenfunction(lifespan):
            text = f"lifespan {lifespan!r}: expected `async def` with one `yield` of a dict of resources"
            raise OptionError(text + ".")
        if len(self._lifespans) >= MAX_HOOKS:
            raise OptionError(f"lifespan {lifespan!r}: {MAX_HOOKS} were added already. Add each one once.")
        self._lifespans.append(lifespan)

    def __bool__(self) -> bool:
        """Tell whether there is any middleware."""
        return bool(self._middlewares)

    async def around(self, job: CurrentJob, call: Coroutine[Any, Any, Any]) -> Any:
        """Run a job inside the middlewares: `before` from the first to the last, the others the other way round."""
        try:
            for middleware in self._middlewares:
                await _invoke(middleware, "before", job)
        except BaseException:
            call.close()
            raise
        try:
            result = await call
        except Exception as error:
            for middleware in reversed(self._middlewares):
                await _invoke(middleware, "error", job, error)
            raise
        for middleware in reversed(self._middlewares):
            await _invoke(middleware, "after", job, result)
        return result

    @contextlib.asynccontextmanager
    async def resources(self) -> AsyncGenerator[dict[str, Any], None]:
        """Start all lifespans and return their resources by name; shut them down in reverse order.

        Raises:
            OptionError: A lifespan yields something else than a dict, or two yield the same name.
        """
        found: dict[str, Any] = {}
        async with contextlib.AsyncExitStack() as stack:
            for lifespan in self._lifespans:
                yielded = await stack.enter_async_context(contextlib.asynccontextmanager(lifespan)())
                made: object = yielded
                if not isinstance(made, dict):
                    text = f"lifespan {lifespan!r} yielded {type(made).__name__}: expected a dict of resources"
                    raise OptionError(text + ".")
                twice = found.keys() & yielded.keys()
                if twice:
                    raise OptionError(f"lifespan {lifespan!r} yields {sorted(twice)} again. Rename the resource.")
                found.update(yielded)
            yield found


async def _invoke(middleware: object, method: str, *arguments: object) -> None:
    function = getattr(middleware, method, None)
    if function is not None:
        answer = function(*arguments)
        if inspect.isawaitable(answer):
            await answer
