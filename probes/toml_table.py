"""A table of a TOML file, read strictly: what is not known, or not of its type, is one line that names it."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fovcache.errors import UsageError, environment_failure, nearest

Made = TypeVar("Made")


class TomlTable:
    """Keys and values under `name`, which is empty for the top of the file. Every method raises UsageError."""

    def __init__(self, values: Mapping[str, Any], *, file: str, name: str = "", known: Sequence[str] | None) -> None:
        """`known` are the keys that there may be; None for names of the user's own choice."""
        self._values = values
        self._file = file
        self._name = name
        for key in values:
            if known is not None and key not in known:
                raise self.error(f"there is no key {key!r}{nearest(key, known)}")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    @property
    def keys(self) -> tuple[str, ...]:
        """In the file's order."""
        return tuple(self._values)

    @property
    def file(self) -> str:
        """The file's name, as errors begin."""
        return self._file

    def error(self, text: str) -> UsageError:
        """What is wrong, with the file and the table in front."""
        where = f"[{self._name}]: " if self._name else ""
        return UsageError(f"{self._file}: {where}{text}")

    def text(self, key: str, default: str | None = None, *, allowed: Sequence[str] = ()) -> str | None:
        """A text that is not empty."""
        value = self._get(key, default, "a text", lambda value: isinstance(value, str) and value.strip() != "")
        if allowed and value is not None and value not in allowed:
            raise self.error(f"{key} = {value!r} is not one of {', '.join(allowed)}{_close(value, allowed)}")
        return None if value is None else str(value)

    def required_text(self, key: str) -> str:
        """A text that must be there."""
        value = self.text(key)
        if value is None:
            raise self.error(f"there is no key {key!r}, which is required")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        return bool(self._get(key, default, "true or false", lambda value: isinstance(value, bool)))

    def optional_flag(self, key: str) -> bool | None:
        """true, false, or None where nothing is said."""
        return self.flag(key, False) if key in self else None

    def share(self, key: str) -> float | None:
        """A fraction between 0 and 1, exclusive."""
        value = self._get(key, None, "a fraction between 0 and 1", lambda value: is_number(value) and 0 < value < 1)
        return None if value is None else float(value)

    def number(self, key: str, default: float) -> float:
        """A finite number."""
        return float(self._get(key, default, "a number", is_number))

    def count(self, key: str, default: int | None) -> int | None:
        """A whole number, at least 1."""

        def fits(value: Any) -> bool:
            return isinstance(value, int) and not isinstance(value, bool) and value >= 1

        value = self._get(key, default, "a whole number, at least 1", fits)
        return None if value is None else int(value)

    def array(self, key: str, *, of: str) -> tuple[Any, ...] | None:
        """A list that is not empty; its items are for the caller to check."""
        expected = f"a list of {of}, at least one"
        value = self._get(key, None, expected, lambda value: isinstance(value, list) and len(value) > 0)
        return None if value is None else tuple(value)

    def texts(self, key: str, *, of: str = "texts") -> tuple[str, ...] | None:
        """A list of texts, none of them empty."""
        values = self.array(key, of=of)
        for value in values or ():
            if not isinstance(value, str) or not value.strip():
                raise self.error(f"{key} holds {value!r}, expected {of}")
        return values

    def table(self, key: str, known: Sequence[str] | None) -> TomlTable | None:
        """A table below this one, None where there is none."""
        value = self._get(key, None, "a table", lambda value: isinstance(value, dict))
        name = f"{self._name}.{key}" if self._name else key
        return None if value is None else TomlTable(value, file=self._file, name=name, known=known)

    def raw(self, key: str) -> Any:
        """A value as it is; None where there is none."""
        return self._values.get(key)

    def make(self, what: Callable[..., Made], **values: Any) -> Made:
        """`what(**values)`; what that refuses names this table."""
        try:
            return what(**values)
        except UsageError as error:
            raise self.error(str(error)) from None

    def _get(self, key: str, default: Any, expected: str, fits: Any) -> Any:
        if key not in self._values:
            return default
        value = self._values[key]
        if not fits(value):
            raise self.error(f"{key} = {value!r}, expected {expected}")
        return value


def read_toml(path: Path, known: Sequence[str]) -> TomlTable:
    """The top table of a TOML file. Raises UsageError when it is none, EnvironmentFailure when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no configuration file {path}") from None
    except IsADirectoryError:
        raise UsageError(f"configuration {path} is a folder, expected a TOML file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a TOML file: it is not UTF-8 ({error.reason})") from None
    except OSError as error:
        raise environment_failure(error, f"read {path}") from error
    return parse_toml(text, str(path), known)


def parse_toml(text: str, file: str, known: Sequence[str]) -> TomlTable:
    """The top table of the text of a TOML file. Raises UsageError when it is none."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is not a TOML file: {error}") from None
    return TomlTable(values, file=file, known=known)


def is_number(value: Any) -> bool:
    """Whether a TOML value is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _close(value: str, allowed: Sequence[str]) -> str:
    found = nearest(value, allowed)
    return found if found.startswith("; nearest") else ""
