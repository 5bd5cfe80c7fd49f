"""Every public exception of penstock, named for the situation the caller is in.

asyncio's own exceptions are used wherever asyncio specifies one; these are for what asyncio has no word for.
Knows nothing of the rest of the package.
"""

from __future__ import annotations

__all__ = ["ConfigError", "InternalError", "PenstockError", "PolicyRemovedError", "ReferenceNotFoundError"]


class PenstockError(Exception):
    """The base of every exception that penstock defines."""


class ConfigError(PenstockError, ValueError):
    """A config key or value that cannot be used.

    `key` is the dotted key (`loop.spin_us`), `value` what was given, `source` where it came from (a file, a variable,
    an option, a call) and `allowed` what would have been right. The message says all four in one line.
    """

    def __init__(
        self, message: str, *, key: str = "", value: object = None, source: str = "", allowed: str = ""
    ) -> None:
        super().__init__(message)
        self.key = key
        self.value = value
        self.source = source
        self.allowed = allowed

    @classmethod
    def bad_value(cls, key: str, value: object, source: str, allowed: str) -> ConfigError:
        """The error for a known key with an impossible value."""
        message = f"{key} = {value!r} ({source}): allowed is {allowed}"
        return cls(message, key=key, value=value, source=source, allowed=allowed)


class ReferenceNotFoundError(ConfigError):
    """A `module:name` reference whose module cannot be imported, or has no such name."""


class PolicyRemovedError(PenstockError, RuntimeError):
    """`EventLoopPolicy` was asked for on a Python whose asyncio has no policies any more (3.16 and later)."""


class InternalError(PenstockError):
    """A bug of penstock itself: please report it."""
