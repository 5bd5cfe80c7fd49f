"""A worker class for gunicorn: `-k penstock.integrations.gunicorn.PenstockWorker`. Extra `gunicorn`."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.integrations.gunicorn.worker import PenstockWorker

__all__ = ["PenstockWorker"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, {"penstock.integrations.gunicorn.worker": ("PenstockWorker",)})
