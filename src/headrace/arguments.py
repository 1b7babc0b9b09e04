"""Fit the arguments of a task to its signature: checked before a job is written, decoded into the annotated types.

Parameters whose default is `resource()` are no arguments: the worker fills them from the app's lifespan.
"""

from __future__ import annotations

import inspect
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.errors import ArgumentError, EncodingError, OptionError, RecordCorrupt
from headrace.record import decode_other

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Positional arguments of one job at most.
MAX_ARGUMENTS: Final = 1_000

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class ResourceName:
    """Marks a parameter that the worker fills from the lifespan; None stands for the parameter's own name."""

    name: str | None


def resource(name: str | None = None) -> Any:
    """Return a default value that says: the worker fills this parameter with a resource of the app's lifespan.

    Args:
        name: Name of the resource; without one, the name of the parameter.
    """
    return ResourceName(name)


class Signature:
    """What a task takes and returns.

    Args:
        function: The function behind the task.
        task: Name of the task, for errors.

    Raises:
        OptionError: The function has no signature that can be read.
    """

    def __init__(self, function: Callable[..., Any], task: str) -> None:
        self.task = task
        self._function = function
        try:
            full = inspect.signature(function)
        except (TypeError, ValueError) as error:
            text = f"task '{task}': the signature of {function!r} cannot be read. Wrap it in a Python function."
            raise OptionError(text) from error
        self.resources: dict[str, str] = {
            name: parameter.default.name or name
            for name, parameter in full.parameters.items()
            if isinstance(parameter.default, ResourceName)
        }
        kept = [parameter for name, parameter in full.parameters.items() if name not in self.resources]
        self._signature = full.replace(parameters=kept)
        self._shown = _show(self._signature)
        self._positional = [parameter for parameter in kept if parameter.kind in _POSITIONAL]
        self._rest = next((p for p in kept if p.kind is inspect.Parameter.VAR_POSITIONAL), None)
        self._open_keywords = next((p for p in kept if p.kind is inspect.Parameter.VAR_KEYWORD), None)
        required = [p for p in kept if p.default is inspect.Parameter.empty]
        self._fewest = sum(1 for p in required if p.kind in _POSITIONAL)
        needs_keyword = any(p.kind is inspect.Parameter.KEYWORD_ONLY for p in required)
        # The range of lengths for which positional arguments alone are known to fit.
        self._most = -1 if needs_keyword else MAX_ARGUMENTS if self._rest else len(self._positional)
        self._decoders: dict[int, msgspec.msgpack.Decoder[Any]] = {}
        self._keyword_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {}
        self._result_decoder: msgspec.msgpack.Decoder[Any] | None = None

    def check_call(self, arguments: Sequence[object], keywords: Mapping[str, object]) -> None:
        """Refuse arguments that do not fit the signature.

        Raises:
            ArgumentError: An argument is missing, unknown or given twice.
        """
        if not keywords and self._fewest <= len(arguments) <= self._most:
            return
        try:
            self._signature.bind(*arguments, **keywords)
        except TypeError as error:
            raise ArgumentError(f"task '{self.task}': {error}. It takes {self._shown}.") from error
        if len(arguments) > MAX_ARGUMENTS:
            text = f"task '{self.task}': {len(arguments)} positional arguments; at most {MAX_ARGUMENTS} are taken"
            raise ArgumentError(text + ". Pass one list.")

    def check_types(self, payload: bytes) -> None:
        """Refuse encoded positional arguments that the worker could not decode; raises ArgumentError."""
        try:
            self.decode_arguments(payload)
        except RecordCorrupt as error:
            raise ArgumentError(str(error)) from error.__cause__

    def decode_arguments(self, payload: bytes) -> Any:
        """Return the positional arguments as a tuple, in the annotated types.

        Raises:
            RecordCorrupt: They do not fit the annotations.
        """
        count = _array_length(payload)
        decoder = self._decoders.get(count)
        if decoder is None:
            decoder = self._decoder(count)
        try:
            return decoder.decode(payload)
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            raise RecordCorrupt(
                f"task '{self.task}': {self._name_place(str(error))}. It takes {self._shown}."
            ) from error

    def decode_keywords(self, keywords: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
        """Return the keyword arguments in the annotated types; raises RecordCorrupt."""
        values: dict[str, Any] = {}
        for name, raw in keywords.items():
            decoder = self._keyword_decoders.get(name)
            if decoder is None:
                decoder = self._keyword_decoder(name)
            try:
                values[name] = decoder.decode(raw)
            except (msgspec.DecodeError, ValueError, TypeError) as error:
                raise RecordCorrupt(f"task '{self.task}': argument '{name}': {error}.") from error
        return values

    def decode_result(self, payload: bytes | msgspec.Raw) -> Any:
        """Return a result in the annotated type; raises RecordCorrupt."""
        if self._result_decoder is None:
            self._result_decoder = _make_decoder(self._hint("return", Any), f"task '{self.task}', its result")
        try:
            return self._result_decoder.decode(payload)
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            raise RecordCorrupt(f"result of task '{self.task}': {error}.") from error

    def _decoder(self, count: int) -> msgspec.msgpack.Decoder[Any]:
        if count > MAX_ARGUMENTS or (count > len(self._positional) and self._rest is None):
            text = f"task '{self.task}': {count} positional arguments; it takes {self._shown}"
            raise RecordCorrupt(text + ". Give the new signature a new task name, or defaults.")
        hints = [self._hint(parameter.name, Any) for parameter in self._positional[:count]]
        if self._rest is not None:
            hints += [self._hint(self._rest.name, Any)] * (count - len(hints))
        decoder = _make_decoder(types.GenericAlias(tuple, tuple(hints)) if hints else tuple[()], f"task '{self.task}'")
        if len(self._decoders) < 64:  # noqa: PLR2004 - numbers of arguments remembered
            self._decoders[count] = decoder
        return decoder

    def _keyword_decoder(self, name: str) -> msgspec.msgpack.Decoder[Any]:
        parameter = self._signature.parameters.get(name) or self._open_keywords
        if parameter is None:
            text = f"task '{self.task}' takes no argument '{name}': it takes {self._shown}"
            raise RecordCorrupt(text + ". Give the new signature a new task name.")
        decoder = _make_decoder(self._hint(parameter.name, Any), f"task '{self.task}', argument '{name}'")
        if len(self._keyword_decoders) < 256:  # noqa: PLR2004 - keyword names remembered
            self._keyword_decoders[name] = decoder
        return decoder

    def _hint(self, name: str, otherwise: Any) -> Any:
        annotations = getattr(self._function, "__annotations__", {})
        if name not in annotations:
            return otherwise
        # Why: each annotation is resolved on its own, so that one that exists for type checkers only harms no other.
        holder = types.SimpleNamespace(__annotations__={name: annotations[name]})
        scope = getattr(inspect.unwrap(self._function), "__globals__", {})
        try:
            return typing.get_type_hints(holder, scope, include_extras=True)[name]
        except NameError as error:
            if name == "return":
                return otherwise
            text = f"task '{self.task}': the annotation of '{name}' cannot be resolved: {error}"
            raise OptionError(text + ". Import the type at run time, not only for type checking.") from error

    def _name_place(self, message: str) -> str:
        text, _, place = message.partition(" - at `$[")
        digits, _, inner = place.partition("]")
        if not digits.isdigit():
            return message
        index = int(digits)
        name = self._positional[index].name if index < len(self._positional) else f"number {index + 1}"
        return f"argument '{name}'{inner.rstrip('`')}: {text}"


class _Bare:
    """An annotation that is a text, as its author wrote it: without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _show(signature: inspect.Signature) -> str:
    def bare(annotation: Any) -> Any:
        return _Bare(annotation) if isinstance(annotation, str) else annotation

    parameters = [one.replace(annotation=bare(one.annotation)) for one in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=bare(signature.return_annotation)))


def _make_decoder(hint: Any, where: str) -> msgspec.msgpack.Decoder[Any]:
    try:
        return msgspec.msgpack.Decoder(hint, dec_hook=decode_other)
    except TypeError as error:
        text = f"{where}: the annotation {hint!r} cannot be read from a record: {error}"
        raise OptionError(text + ". Annotate with plain types, dataclasses, structs or models.") from error


def _array_length(payload: bytes) -> int:
    head = payload[0] if payload else 0
    if 0x90 <= head <= 0x9F:  # noqa: PLR2004 - fixarray of the msgpack specification
        return head & 0x0F
    if head == 0xDC:  # noqa: PLR2004 - array 16
        return int.from_bytes(payload[1:3], "big")
    if head == 0xDD:  # noqa: PLR2004 - array 32
        return int.from_bytes(payload[1:5], "big")
    raise RecordCorrupt(f"arguments start with byte {head:#x}: expected an array. Something else wrote to this key.")


def keyword_payloads(
    task: str, keywords: Mapping[str, object], encode: Callable[[object], bytes]
) -> dict[str, msgspec.Raw]:
    """Encode keyword arguments one by one, naming the one that cannot be written.

    Raises:
        EncodingError: An argument has a type that cannot be written.
    """
    payloads: dict[str, msgspec.Raw] = {}
    for name, value in keywords.items():
        try:
            payloads[name] = msgspec.Raw(encode(value))
        except EncodingError as error:
            raise EncodingError(f"task '{task}': argument '{name}': {error}") from error
    return payloads
