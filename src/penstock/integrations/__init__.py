"""Integrations with other packages: each is imported only when its package is used."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.integrations import admission, aiohttp, anyio, grpc, health, metrics, streams

__all__ = ["admission", "aiohttp", "anyio", "grpc", "health", "metrics", "streams"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, {}, tuple(__all__))
