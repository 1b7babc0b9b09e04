"""Hooks around jobs, and resources that live as long as a worker."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from headrace.errors import JobCancelled, OptionError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from headrace.context import CurrentJob

    Lifespan: TypeAlias = Callable[[], AsyncGenerator[dict[str, Any], None]]

logger = logging.getLogger(__name__)

_METHODS: Final = ("before", "after", "error")
#: Middlewares and lifespans of one app at most, each.
MAX_HOOKS: Final = 100


class Middleware(Protocol):
    """Hooks around each attempt of a job, like the layers of an onion: the first one added is the outermost.

    Each method may be left out, and may be a plain function or a coroutine function. A middleware whose `before` ran
    gets exactly one of the two others, unless the process dies.
    """

    async def before(self, job: CurrentJob) -> None:
        """Run before the task; an exception fails the attempt, and the task does not run."""

    async def after(self, job: CurrentJob, result: object) -> None:
        """Run after the task returned, before its completion is recorded; an exception fails the attempt."""

    async def error(self, job: CurrentJob, error: Exception) -> None:
        """Run after the task, or a hook further in, raised; for an attempt that was told to stop with JobCancelled.

        The exception goes on whatever this does; what this raises is noted on it.
        """


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
        """Run an attempt inside the middlewares: `before` from the first to the last, the others from the last on."""
        inside: list[Any] = []
        try:
            for middleware in self._middlewares:
                await _invoke(middleware, "before", job)
                inside.append(middleware)
            result = await call
            while inside:
                await _invoke(inside.pop(), "after", job, result)
        except Exception as error:
            await _tell(inside, job, error, error)
            raise
        except asyncio.CancelledError as error:
            text = f"the attempt of '{job.task}' was told to stop: it was cancelled, or its worker ends"
            await _tell(inside, job, JobCancelled(text + "."), error)
            raise
        finally:
            # A task that never began would be reported as never awaited.
            call.close()
        return result

    @contextlib.asynccontextmanager
    async def resources(self) -> AsyncGenerator[dict[str, Any], None]:
        """Start all lifespans and return their resources by name; shut them down in reverse order.

        A lifespan is resumed behind its `yield` however the block ends, so that it needs no try and finally.

        Raises:
            OptionError: A lifespan yields nothing, something else than a dict, more than once, or a name that another
                one yields.
        """
        found: dict[str, Any] = {}
        async with contextlib.AsyncExitStack() as stack:
            for lifespan in self._lifespans:
                generator = lifespan()
                made: object = await anext(generator, None)
                stack.push_async_callback(_shut_down, lifespan, generator)
                if not isinstance(made, dict):
                    text = f"lifespan {lifespan!r} yielded {type(made).__name__}: expected a dict of resources"
                    raise OptionError(text + ". Yield {} when it has none.")
                twice = sorted(found.keys() & made.keys())
                if twice:
                    raise OptionError(f"lifespan {lifespan!r} yields {twice} again. Rename the resource.")
                found.update(made)
            yield found


async def _shut_down(lifespan: Lifespan, generator: AsyncGenerator[dict[str, Any], None]) -> None:
    end = object()
    if await anext(generator, end) is not end:
        await generator.aclose()
        raise OptionError(f"lifespan {lifespan!r} yields more than once. Yield one dict with all resources.")


async def _tell(inside: list[Any], job: CurrentJob, told: Exception, error: BaseException) -> None:
    """Run the error hooks of those whose `before` ran, from the innermost on; what they raise is noted on the error."""
    for middleware in reversed(inside):
        try:
            await _invoke(middleware, "error", job, told)
        except Exception as broken:
            error.add_note(f"The error hook of {type(middleware).__qualname__} raised as well: {broken!r:.500}")
            extra = {"middleware": type(middleware).__qualname__, "task": job.task, "job": job.id}
            logger.warning("error hook failed", exc_info=broken, extra=extra)


async def _invoke(middleware: object, method: str, *arguments: object) -> None:
    function = getattr(middleware, method, None)
    if function is not None:
        answer = function(*arguments)
        if inspect.isawaitable(answer):
            await answer
