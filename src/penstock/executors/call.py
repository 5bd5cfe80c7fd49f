"""A call, as a lane receives it: the native class, or its Python source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core_source import chosen

if TYPE_CHECKING:
    from penstock._core.workers.call import Call, check_plain, function_name

__all__ = ["Call", "check_plain", "function_name"]

if not TYPE_CHECKING:
    _call = chosen("workers", "call")
    Call, check_plain, function_name = _call.Call, _call.check_plain, _call.function_name
