"""Serves ASGI applications by uvicorn on penstock loops. Extra `serve`."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.integrations.uvicorn.serving import Binding, serve
    from penstock.integrations.uvicorn.tls import Tls

__all__ = ["Binding", "Tls", "serve"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "penstock.integrations.uvicorn.serving": ("Binding", "serve"),
            "penstock.integrations.uvicorn.tls": ("Tls",),
        },
    )
