"""The Prefect server that a command works with: the one that is named, or one of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from tasks.contracts.failures import ServerError
from tasks.gateways.temporary_server import TemporaryServer, server_fault


def find_server() -> Callable[[], None]:
    """Start a temporary server where none is named, and return what waits until it answers. Raises ServerError where one is named that cannot be used."""
    from prefect.settings import Settings, get_current_settings

    loaded = "prefect.context" in sys.modules  # it takes a second to import: the server should start before
    api = (get_current_settings() if loaded else Settings()).api
    if api.url is None:
        server = TemporaryServer()
        os.environ.update(server.environment)
        if loaded:
            from prefect.context import refresh_global_settings_context

            refresh_global_settings_context()
        return server.wait
    secret = api.auth_string.get_secret_value() if api.auth_string else None
    if api.key is None and (fault := server_fault(api.url, secret=secret)) is not None:  # (a key is for Prefect Cloud, which is not asked like this)
        raise ServerError(f"no Prefect server can be used at {api.url} ({fault}): start one (`make up`), or unset PREFECT_API_URL for a temporary one")
    return lambda: None
