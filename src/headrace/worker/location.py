"""Find a task's function again in another process: by module and name, or by running the script that defines it.

A function of an imported module is found by importing it. One of the script that was started (`__main__`) is found as
the `multiprocessing` module of Python does for its spawned processes: the file is run under another name,
`__mp_main__`, so that whatever stands under `if __name__ == "__main__":` does not run.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import OptionError, UnknownTask, UsageError
from headrace.task import Task
from headrace.worker.frames import Location

if TYPE_CHECKING:
    from collections.abc import Callable

MAIN: Final = "__main__"
MAIN_ELSEWHERE: Final = "__mp_main__"

# Bound: scripts do not nest.
_scripts_running: list[str] = []
# Bound: one child serves one script.
_scripts_failed: dict[str, BaseException] = {}


def locate(task: Task[Any, Any, Any]) -> Location:
    """Return where the function of a task is found.

    Raises:
        OptionError: Another process could not find it there.
    """
    function = task.function
    module = str(getattr(function, "__module__", None) or "")
    qualname = str(getattr(function, "__qualname__", None) or "")
    where = f"task '{task.name}' with process=True: {function!r}"
    if not module or not qualname or "<" in qualname:
        text = f"{where} has no name that a child process could import"
        raise OptionError(text + ". Define the function with `def` at the top level of a module.")
    location = Location(module, qualname)
    if module == MAIN:
        location = _locate_in_script(where, qualname)
    try:
        found = _look_up(sys.modules[module], qualname)
    except (KeyError, AttributeError):
        found = None
    if found is not function:
        text = f"{where} is not what '{module}.{qualname}' names"
        raise OptionError(text + ". A child process imports it by that name: keep the function, or the task, there.")
    return location


def _locate_in_script(where: str, qualname: str) -> Location:
    main = sys.modules[MAIN]
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None and name != MAIN:
        # The script was started as `python -m name`.
        return Location(name, qualname)
    script = getattr(main, "__file__", None)
    if script is None:
        raise OptionError(f"{where} was typed in or given with -c. Put it in a file, which a child process can run.")
    return Location(MAIN, qualname, str(Path(script).resolve()))


def resolve(location: Location, task: str) -> Callable[..., Any]:
    """Return the function at a location, importing its module or running its script; whatever that raises is raised.

    Args:
        location: As `locate` returned it in another process.
        task: Name of the task, for errors.

    Raises:
        UnknownTask: There is no such function.
    """
    module = _load_script(location.script) if location.script else importlib.import_module(location.module)
    try:
        return _look_up(module, location.qualname)
    except AttributeError as error:
        text = f"task '{task}': '{location.module}' has no '{location.qualname}' in the child process that runs the job"
        raise UnknownTask(text + ". Define it whenever the module is imported, not only in the worker.") from error


def check_no_script_runs(what: str) -> None:
    """Refuse what a script does by itself whenever it is run, where it is only run for the functions in it.

    Args:
        what: What the script does, for the error.

    Raises:
        UsageError: This process is a child that is running its worker's script.
    """
    if _scripts_running:
        text = f"the script {_scripts_running[0]} {what} whenever it is run, also in the child process of a worker"
        raise UsageError(text + ' that needs a task in it. Put that under `if __name__ == "__main__":`.')


def _look_up(module: Any, qualname: str) -> Callable[..., Any]:
    found = module
    for name in qualname.split("."):
        found = getattr(found, name)
    # What a decorator above `@app.task` made still leads to the task by `__wrapped__`.
    inner = found
    while inner is not None and not isinstance(inner, Task):
        inner = getattr(inner, "__wrapped__", None)
    function: Callable[..., Any] = found if inner is None else inner.function
    return function


def _load_script(path: str) -> Any:
    known = sys.modules.get(MAIN_ELSEWHERE)
    if known is not None:
        return known
    if path in _scripts_failed:
        # Why: nobody knows what a script does before it fails; it is done once.
        raise _scripts_failed[path]
    loader = SourceFileLoader(MAIN_ELSEWHERE, path)
    spec = importlib.util.spec_from_file_location(MAIN_ELSEWHERE, path, loader=loader)
    if spec is None:
        raise UnknownTask(f"the script {path} cannot be run in the child process. Name it with the ending .py.")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules[MAIN]
    sys.modules[MAIN_ELSEWHERE] = sys.modules[MAIN] = module
    _scripts_running.append(path)
    try:
        loader.exec_module(module)
    except BaseException as error:
        _scripts_failed[path] = error
        del sys.modules[MAIN_ELSEWHERE]
        sys.modules[MAIN] = before
        raise
    finally:
        _scripts_running.pop()
    return module
