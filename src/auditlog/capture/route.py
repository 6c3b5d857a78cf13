"""The route template that served a request, read from the scope after the application ran.

Never the raw path as a stand-in: a request that no route served has no template, so the value
stays of low cardinality (OpenTelemetry, `http.route`).
"""

from collections.abc import Mapping, MutableMapping
from typing import Any


def route_template(scope: MutableMapping[str, Any], outer_root_path: str) -> str | None:
    """Return the template with the prefixes of mounts, or None when no route matched.

    Args:
        scope: The ASGI scope, as the application left it.
        outer_root_path: The `root_path` that the server gave, which is no part of the template.
    """
    template = _included_route(scope) if "fastapi" in scope else None
    if template is None:
        route = scope.get("route")
        # Litestar keeps the template itself in the scope.
        template = scope.get("path_template") if route is None else _own_template(route)
    if not isinstance(template, str):
        return None
    root_path = scope.get("root_path") or ""
    if root_path == outer_root_path:
        return template
    prefix = root_path.removeprefix(outer_root_path)
    return _with_parameters(prefix, template, scope.get("path_params")) + template


def _included_route(scope: Mapping[str, Any]) -> Any:
    """FastAPI 0.137 and later: `route.path` lacks the prefixes of included routers."""
    fastapi = scope["fastapi"]
    context = fastapi.get("effective_route_context") if isinstance(fastapi, dict) else None
    return getattr(context, "path", None)


def _own_template(route: Any) -> Any:
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    if not hasattr(route, "routes"):
        return template
    # A mount: either no route further in matched, or it holds an application without routes
    # (static files), whose prefix is in `root_path` already.
    return None if route.routes else "/{path}"


def _with_parameters(prefix: str, template: str, parameters: object) -> str:
    """Put the names back where a mount's path has parameters: `/acme` was `/{tenant}`."""
    if not isinstance(parameters, Mapping):
        return prefix
    segments = prefix.split("/")
    for name, value in parameters.items():
        if f"{{{name}}}" not in template and str(value) in segments:
            segments[segments.index(str(value))] = f"{{{name}}}"
    return "/".join(segments)
