"""Serves ASGI applications by uvicorn on penstock loops. Extra `serve`."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.integrations.uvicorn.serving import Binding, Tls, export, serve

__all__ = ["Binding", "Tls", "export", "serve"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "penstock.integrations.uvicorn.serving": (
                "Binding",
                "Tls",
                "export",
                "serve",
            )
        },
    )
