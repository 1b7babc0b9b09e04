"""Kinds of settings, and the two places outside the program that they are read from.

A kind turns text into a value, checks a value handed over by the program, and says what it allows. It refuses with a
bare `ValueError`; `headrace.settings` knows the variable and the source, and makes the error that people see.
"""

from __future__ import annotations

import io
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

from headrace.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")
Shown: TypeAlias = str | int | float | None
"""A value as people and JSON see it, in the unit of its variable and without secrets."""

DOTENV_LIMIT_BYTES: Final = 1_048_576
URL_LIMIT_CHARACTERS: Final = 4_096
SHOWN_LIMIT_CHARACTERS: Final = 80
URL_SCHEMES: Final = ("redis", "rediss", "unix")
SENTINEL_SCHEMES: Final = ("redis+sentinel", "rediss+sentinel")
SENTINEL_PORT: Final = 26_379
MAX_SENTINELS: Final = 16
CLUSTER_SCHEMES: Final = ("redis+cluster", "rediss+cluster")
CLUSTER_PORT: Final = 6_379
MAX_SEEDS: Final = 64

# The digits are ASCII on purpose: int() and float() also take "1_000" and the digits of other scripts.
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)
_SENTINEL_URL = re.compile(
    r"rediss?\+sentinel://([^/?#]*@)?(?P<hosts>[^/?#@]+)/(?P<service>[^/?#]+)(/(?P<database>[0-9]{0,4}))?(\?[^#]*)?",
    re.ASCII,
)
_CLUSTER_URL = re.compile(r"rediss?\+cluster://([^/?#]*@)?(?P<hosts>[^/?#@]+)(/0?)?(\?[^#]*)?", re.ASCII)
_SENTINEL_HOST = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]:]+)(:(?P<port>[0-9]{1,5}))?", re.ASCII)


class Kind(ABC, Generic[T]):
    """One way to write a setting.

    Attributes:
        unit: Unit of the text in the environment, empty for none.
        bounds: What is allowed, for a table: `1..10000`.
        expected: What is allowed as text, for a sentence: `a whole number from 1 to 10000`.
        expected_value: The same for a value that the program hands over, where its unit may differ.
    """

    unit: str = ""
    bounds: str
    expected: str
    expected_value: str

    @abstractmethod
    def parse(self, text: str) -> T:
        """Turn stripped, non-empty text into a value; a ValueError refuses it."""

    @abstractmethod
    def check(self, value: object) -> T:
        """Return the value with its exact type; a ValueError refuses it."""

    @abstractmethod
    def show(self, value: T) -> Shown:
        """Give the value as people may see it."""

    def conceal(self, given: object) -> str:
        """Give a refused value for an error message: shortened, without secrets."""
        text = repr(given)
        return text if len(text) <= SHOWN_LIMIT_CHARACTERS else text[:SHOWN_LIMIT_CHARACTERS] + "..."


class Whole(Kind[int]):
    """A whole number between two bounds, or 0 where that means never."""

    def __init__(self, low: int, high: int, *, unit: str = "", or_zero: bool = False) -> None:
        self.low, self.high, self.unit, self.or_zero = low, high, unit, or_zero
        self.bounds = f"{low}..{high}" + (" or 0" if or_zero else "")
        self.expected = f"a whole number from {low} to {high}" + (", or 0 for never" if or_zero else "")
        self.expected_value = self.expected

    def parse(self, text: str) -> int:
        """Turn digits into a number within the bounds."""
        return self.check(_whole(text))

    def check(self, value: object) -> int:
        """Accept an int within the bounds; True and 5.0 are none."""
        if isinstance(value, int) and not isinstance(value, bool) and self._within(value):
            return value
        raise ValueError

    def show(self, value: int) -> Shown:
        """Give the number itself."""
        return value

    def _within(self, value: int) -> bool:
        return self.low <= value <= self.high or (self.or_zero and value == 0)


class Seconds(Kind[float]):
    """A duration in seconds, as text and as value."""

    unit = "s"

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.bounds = f"{_plain(low)}..{_plain(high)}"
        self.expected = f"a number of seconds from {_plain(low)} to {_plain(high)}"
        self.expected_value = self.expected

    def parse(self, text: str) -> float:
        """Turn a decimal number into seconds."""
        if not _DECIMAL.fullmatch(text):
            raise ValueError
        return self.check(float(text))

    def check(self, value: object) -> float:
        """Accept an int or float within the bounds; NaN lies within none."""
        if isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high:
            return float(value)
        raise ValueError

    def show(self, value: float) -> Shown:
        """Give the number itself."""
        return value


class Milliseconds(Kind[float]):
    """A duration that its variable holds in whole milliseconds and its field in seconds."""

    unit = "ms"

    def __init__(self, low_ms: int, high_ms: int) -> None:
        self._seconds = Seconds(low_ms / 1000, high_ms / 1000)
        self.bounds = f"{low_ms}..{high_ms}"
        self.expected = f"a whole number of milliseconds from {low_ms} to {high_ms}"
        self.expected_value = self._seconds.expected

    def parse(self, text: str) -> float:
        """Turn whole milliseconds into seconds."""
        return self._seconds.check(_whole(text) / 1000)

    def check(self, value: object) -> float:
        """Accept seconds within the bounds."""
        return self._seconds.check(value)

    def show(self, value: float) -> Shown:
        """Give the milliseconds."""
        milliseconds = round(value * 1000, 3)
        return int(milliseconds) if milliseconds.is_integer() else milliseconds


class Choice(Kind[str]):
    """One of a few words, in upper or lower case."""

    def __init__(self, *words: str) -> None:
        self._words = {word.lower(): word for word in words}
        self.bounds = "|".join(words)
        self.expected = self.expected_value = f"one of {', '.join(words)}"

    def parse(self, text: str) -> str:
        """Find the word whatever its case."""
        return self.check(text)

    def check(self, value: object) -> str:
        """Find the word whatever its case."""
        word = self._words.get(value.lower()) if isinstance(value, str) else None
        if word is None:
            raise ValueError
        return word

    def show(self, value: str) -> Shown:
        """Give the word itself."""
        return value


class Pattern(Kind[str]):
    """Text of certain characters."""

    def __init__(self, pattern: str, bounds: str, expected: str) -> None:
        self._pattern = re.compile(pattern, re.ASCII)
        self.bounds = bounds
        self.expected = self.expected_value = expected

    def parse(self, text: str) -> str:
        """Accept text that matches from end to end."""
        return self.check(text)

    def check(self, value: object) -> str:
        """Accept text that matches from end to end."""
        if isinstance(value, str) and self._pattern.fullmatch(value):
            return value
        raise ValueError

    def show(self, value: str) -> Shown:
        """Give the text itself."""
        return value


class Folder(Kind[Path]):
    """A path of a folder, which need not exist yet; `~` stands for the home folder."""

    bounds = "a path"
    expected = "the path of a folder"
    expected_value = expected

    def parse(self, text: str) -> Path:
        """Turn text into a path."""
        return self.check(text)

    def check(self, value: object) -> Path:
        """Accept a path or its text."""
        if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
            raise ValueError
        try:
            return Path(value).expanduser()
        except RuntimeError as error:
            raise ValueError from error

    def show(self, value: Path) -> Shown:
        """Give the path as text."""
        return str(value)


class Url(Kind["str | None"]):
    """Address of a Redis or Valkey server, or None for the default server."""

    bounds = "redis://, rediss://, unix://, redis+sentinel://, redis+cluster://, or these with rediss for TLS"
    expected = (
        "redis://[user:password@]host[:port][/database], rediss://..., unix://[user:password@]/path,"
        " redis+sentinel://[user:password@]host[:port],host[:port].../name[/database] or"
        " redis+cluster://[user:password@]host[:port],host[:port].../"
    )
    expected_value = expected

    def parse(self, text: str) -> str | None:
        """Accept an address whose scheme, port and database can be right."""
        return self.check(text)

    def check(self, value: object) -> str | None:
        """Accept an address whose scheme, port and database can be right."""
        if value is None:
            return None
        if not isinstance(value, str) or len(value) > URL_LIMIT_CHARACTERS or not value.isprintable() or " " in value:
            raise ValueError
        scheme = value.partition("://")[0]
        if scheme in {*SENTINEL_SCHEMES, *CLUSTER_SCHEMES}:
            _ = split_cluster_url(value) if scheme in CLUSTER_SCHEMES else split_sentinel_url(value)
            return value
        parts = urlsplit(value)
        if parts.scheme not in URL_SCHEMES or "://" not in value:
            raise ValueError
        if parts.scheme == "unix":
            if len(parts.path) <= 1:
                raise ValueError
        elif parts.port == 0 or not re.fullmatch(r"(/[0-9]{0,4})?", parts.path, re.ASCII):
            # Why: reading `port` makes urlsplit refuse a port that is no number up to 65535.
            raise ValueError
        return value

    def show(self, value: str | None) -> Shown:
        """Give the address with its password masked."""
        return None if value is None else mask_url(value)

    def conceal(self, given: object) -> str:
        """Give the address with its password masked, even where it is malformed."""
        return super().conceal(mask_url(given) if isinstance(given, str) else given)


def split_sentinel_url(url: str) -> tuple[tuple[tuple[str, int], ...], str, int]:
    """Return the sentinels as host and port, the name of the primary, and the database of a Sentinel URL.

    Raises:
        ValueError: The URL is malformed, or names more than `MAX_SENTINELS`.

    Example:
        >>> split_sentinel_url("redis+sentinel://app:s3cret@10.0.0.5,[::1]:26380/mymaster/2")
        ((('10.0.0.5', 26379), ('::1', 26380)), 'mymaster', 2)
    """
    found = _SENTINEL_URL.fullmatch(url)
    if found is None:
        raise ValueError("expected redis+sentinel://host:port,host:port/name-of-the-primary/database")
    sentinels = _split_hosts(found["hosts"], SENTINEL_PORT, MAX_SENTINELS, "sentinel")
    return sentinels, unquote(found["service"]), int(found["database"] or 0)


def split_cluster_url(url: str) -> tuple[tuple[str, int], ...]:
    """Return the nodes as host and port of a cluster URL; a cluster has database 0 alone.

    Raises:
        ValueError: The URL is malformed, or names more than `MAX_SEEDS`.

    Example:
        >>> split_cluster_url("redis+cluster://app:s3cret@10.0.0.5:7000,[::1]/")
        (('10.0.0.5', 7000), ('::1', 6379))
    """
    found = _CLUSTER_URL.fullmatch(url)
    if found is None:
        raise ValueError("expected redis+cluster://host:port,host:port/ with database 0 or none")
    return _split_hosts(found["hosts"], CLUSTER_PORT, MAX_SEEDS, "node")


def _split_hosts(hosts: str, usual_port: int, most: int, what: str) -> tuple[tuple[str, int], ...]:
    places: list[tuple[str, int]] = []
    for text in hosts.split(","):
        place = _SENTINEL_HOST.fullmatch(text)
        port = int(place["port"] or usual_port) if place is not None else 0
        if place is None or not 0 < port < 65_536:  # noqa: PLR2004 - the ports there are
            raise ValueError(f"'{text}' is no host and port of a {what}")
        places.append((place["host"].strip("[]"), port))
    if len(places) > most:
        raise ValueError(f"{len(places)} {what}s are more than {most}")
    return tuple(places)


def mask_url(url: str) -> str:
    """Replace what may be a secret in a URL by `***`, also in a malformed one.

    Example:
        >>> mask_url("redis://app:s3cret@10.0.0.5:6379/0?password=again&db=1")
        'redis://app:***@10.0.0.5:6379/0?password=***&db=1'
        >>> mask_url("redis://token@host"), mask_url("redis://:p@ss/w@host:6379")
        ('redis://***@host', 'redis://:***@host:6379')
        >>> mask_url("redis+sentinel://:s3cret@one:1,two:2/main/0?sentinel_password=again")
        'redis+sentinel://:***@one:1,two:2/main/0?sentinel_password=***'
    """
    head, separator, rest = url.partition("://")
    if not separator:
        head, rest = "", url
    # Why first: a secret in the query may hold an @, which would pass for the end of a password in front of the host.
    rest = re.sub(r"([?&][^=&]*(?:password|token|secret)[^=&]*=)[^&#]*", r"\1***", rest, flags=re.IGNORECASE)
    secret, at, rest = rest.rpartition("@")
    if at:
        user, colon, _ = secret.partition(":")
        secret = f"{user}:***" if colon else "***"
    elif not re.match(r"[^:/?#,]*(:[0-9]*)?(,[^:/?#,]*(:[0-9]*)?)*([/?#]|$)|\[", rest):
        # What follows the colon is no port, so it may be a password whose host is missing.
        rest = re.sub(r":.*", ":***", rest, count=1, flags=re.DOTALL)
    return f"{head}{separator}{secret}{at}{rest}"


def read_dotenv(path: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Read a .env file without touching the environment.

    `${NAME}` in a value stands for the variable of the environment or else of the file. A file that does not exist, a
    folder of that name, and names without a value count as nothing.

    Args:
        path: The file, at most 1 MiB, UTF-8; None for none.
        environ: Variables that references in the file may name.

    Raises:
        SettingError: The file exists and cannot be read.
    """
    try:
        if path is None or not path.is_file():
            return {}
        with path.open("rb") as file:
            content = file.read(DOTENV_LIMIT_BYTES + 1)
        if len(content) > DOTENV_LIMIT_BYTES:
            raise SettingError(
                f"{path}: larger than {DOTENV_LIMIT_BYTES} bytes. Keep only NAME=value lines in it.", source=".env"
            )
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise SettingError(
            f"{path}: cannot be read ({error.strerror}). Make it readable, or remove it.", source=".env"
        ) from error
    except UnicodeDecodeError as error:
        raise SettingError(
            f"{path}: byte {error.start} is no UTF-8. Save the file as UTF-8, or remove it.", source=".env"
        ) from error
    # Only who has such a file needs the parser.
    from dotenv import dotenv_values  # noqa: PLC0415  # As above.
    from dotenv.variables import parse_variables  # noqa: PLC0415  # As above.

    values: dict[str, str] = {}
    for name, value in dotenv_values(stream=io.StringIO(text), interpolate=False).items():
        if value is not None:
            known = {**values, **environ}
            values[name] = "".join(atom.resolve(known) for atom in parse_variables(value))
    return values


def _whole(text: str) -> int:
    if _WHOLE.fullmatch(text):
        return int(text)
    raise ValueError


def _plain(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else str(number)
