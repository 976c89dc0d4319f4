"""Logging from the log's threads and leaders: a handler that fails must not stop them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress


def tell(log: Callable[..., object], message: str, *args: object, **more: object) -> None:
    """Call a method of a logger; what its handlers raise goes no further."""
    with suppress(Exception):
        log(message, *args, **more)
