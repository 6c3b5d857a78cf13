"""The interceptor under test, for each server."""

from importlib import import_module
from typing import Any

MODULES = {"aio": "auditlog.capture.grpc_aio", "threaded": "auditlog.capture.grpc_sync"}


def interceptor(server: str, audit: Any, **options: Any) -> Any:
    return import_module(MODULES[server]).AuditInterceptor(audit, **options)
