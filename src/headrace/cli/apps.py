"""Import the app that a command line names as `module:attribute`, or say in one sentence why that is not possible."""

from __future__ import annotations

import difflib
import importlib
import logging
import pkgutil
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headrace.app import Headrace
from headrace.errors import OptionError

if TYPE_CHECKING:
    from types import ModuleType

logger = logging.getLogger(__name__)

_PACKAGE: Final = Path(__file__).parent.parent


def load_app(place: str) -> Headrace:
    """Import an app, with the current folder in front of the path.

    Args:
        place: `module:attribute`, such as `shop.jobs:app`; the attribute may be dotted.

    Raises:
        OptionError: There is no such module or attribute, it is not an app, or importing the module failed.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module_name, colon, attribute = place.partition(":")
    if not colon or not module_name or not attribute:
        raise OptionError(f"'{place}': expected module:attribute, such as {_guess_place(module_name)}.")
    if module_name.endswith(".py") or not all(part.isidentifier() for part in module_name.split(".")):
        raise OptionError(f"'{place}': '{module_name}' is no name of a module. Write {_guess_place(module_name)}.")
    module = _import(module_name)
    found: object = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise OptionError(f"'{place}': module '{module_name}' has no '{name}'.{_offer(module, attribute)}")
        found = getattr(found, name)
    if not isinstance(found, Headrace):
        kind = type(found).__name__
        raise OptionError(f"'{place}': expected a Headrace app, found a value of type {kind}.{_offer(module, '')}")
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise OptionError(
                f"there is no module '{error.name}' in {Path.cwd()} or on sys.path.{_near(error.name)}"
            ) from error
        raise _failed(name, error) from error
    # The edge of a command: whatever the user's module raises is reported.
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> OptionError:
    logger.debug("import failed", exc_info=error, extra={"module_name": name})
    text = str(error).replace("\n", " ")
    return OptionError(
        f"importing '{name}' failed: {type(error).__name__}: {text}{_where(error)}. Correct the module; "
        "HEADRACE_LOG_LEVEL=DEBUG shows the traceback."
    )


def _where(error: BaseException) -> str:
    """Name the innermost line of the user's own code: outside the import machinery, Headrace and installed packages."""
    if isinstance(error, SyntaxError):
        # Its text names the place already.
        return ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    frames = [frame for frame in frames if not Path(frame.filename).is_relative_to(_PACKAGE)]
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _guess_place(text: str) -> str:
    """Turn what may be the path of a file into what was meant.

    Example:
        >>> [_guess_place(text) for text in ("shop/jobs.py", "./jobs.py", "jobs", "")]
        ['shop.jobs:app', 'jobs:app', 'jobs:app', 'shop.jobs:app']
    """
    dotted = re.sub(r"\.py$", "", text.strip()).replace("\\", "/").strip("./").replace("/", ".")
    valid = all(part.isidentifier() for part in dotted.split("."))
    return f"{dotted if valid else 'shop.jobs'}:app"


def _near(name: str) -> str:
    """Offer modules of the current folder, or of the package named in front of the last dot, that are named alike."""
    package, _, last = name.rpartition(".")
    paths = getattr(sys.modules.get(package), "__path__", None) if package else [str(Path.cwd())]
    known = [module.name for module in pkgutil.iter_modules(paths or [])]
    matches = difflib.get_close_matches(last, known, n=1)
    if matches:
        return f" Did you mean '{package}.{matches[0]}'?" if package else f" Did you mean '{matches[0]}'?"
    return " Run the command in the folder that holds it, or set PYTHONPATH."


def _offer(module: ModuleType, attribute: str) -> str:
    """Name the apps of a module, the one that is named most alike first."""
    apps = [name for name, value in vars(module).items() if isinstance(value, Headrace)]
    if not apps:
        return f" Write `{attribute or 'app'} = Headrace()` there, or name the module that does."
    apps = difflib.get_close_matches(attribute, apps, n=1, cutoff=0.0) or apps
    return f" Did you mean {module.__name__}:{apps[0]}?"
