"""The route template that served a request, read from the scope after the application ran.

Never the raw path as a stand-in, not even for a mount's parameters: a request that no route served
has no template, so the value stays of low cardinality (OpenTelemetry, `http.route`).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from typing import Any


def route_template(scope: MutableMapping[str, Any], outer_root_path: str) -> str | None:
    """Return the template with the prefixes of mounts, or None when no route matched.

    Args:
        scope: The ASGI scope, as the application left it.
        outer_root_path: The `root_path` that the server gave, which is no part of the template.
    """
    template = _included_template(scope) if "fastapi" in scope else None
    if template is None:
        route = scope.get("route") or _route_of_endpoint(scope)
        # Litestar keeps the template itself in the scope.
        template = scope.get("path_template") if route is None else _own_template(route)
    if not isinstance(template, str):
        return None
    # What the server gave, kept here by Starlette's outermost mount.
    server_root_path = scope.get("app_root_path")
    if server_root_path is not None:
        prefix = _mount_template(scope, server_root_path)
        return None if prefix is None else prefix + template
    root_path = scope.get("root_path") or ""
    # The second is FastAPI(root_path=...), which stands for what a proxy takes away.
    if root_path == outer_root_path or root_path == getattr(scope.get("app"), "root_path", None):
        return template
    return str(root_path).removeprefix(outer_root_path) + template


def _included_template(scope: Mapping[str, Any]) -> str | None:
    """FastAPI 0.137 and later: the route itself lacks the prefixes of included routers."""
    fastapi = scope["fastapi"]
    context = fastapi.get("effective_route_context") if isinstance(fastapi, dict) else None
    route = getattr(context, "starlette_route", None) or context
    # Further in than an included mount, an application of its own decides.
    return None if hasattr(route, "routes") else getattr(route, "path_format", None) or None


def _route_of_endpoint(scope: Mapping[str, Any]) -> Any:
    """FastAPI names the routes that are its own, but no mounts and routes of Starlette's."""
    endpoint = scope.get("endpoint")
    if endpoint is None:
        return None
    path = scope["path"].removeprefix(scope.get("app_root_path", scope.get("root_path") or ""))
    for route in _expand(getattr(scope.get("router"), "routes", ())):
        # One endpoint may serve several routes.
        own = getattr(route, "endpoint", getattr(route, "app", None))
        if own is endpoint and route.path_regex.match(path):
            return route
    return None


def _own_template(route: Any) -> Any:
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    if not hasattr(route, "routes"):
        return template
    # A mount: either no route further in matched, or it holds an application without routes
    # (static files), whose prefix is in `root_path` already.
    return None if route.routes else "/{path}"


def _mount_template(scope: Mapping[str, Any], server_root_path: str) -> str | None:
    """Return the templates of the mounts on the way; None rather than a value of a parameter."""
    prefix = str(scope.get("root_path") or "").removeprefix(server_root_path)
    parameters = scope.get("path_params")
    if not parameters:
        return prefix
    return _walk(getattr(scope.get("router"), "routes", ()), prefix, parameters)


def _walk(routes: Iterable[Any], prefix: str, parameters: Collection[str]) -> str | None:
    """Match mounts against the prefix that they made, as the router did on the way in."""
    if not prefix:
        return ""
    for mount in _expand(routes):
        inner = getattr(mount, "routes", None)
        if inner is None:
            continue
        regex = getattr(mount, "path_regex", None)
        # One that has none is a Host, which takes nothing off the path.
        found = regex.match(f"{prefix}/") if regex else None
        if found and found.groupdict().keys() - {"path"} <= set(parameters):
            rest = found["path"].rstrip("/")
            template = _walk(inner, f"/{rest}" if rest else "", parameters)
            if template is not None:
                return str(mount.path_format).removesuffix("/{path}") + template
        elif regex is None and (template := _walk(inner, prefix, parameters)) is not None:
            return template
    return None


def _expand(routes: Iterable[Any]) -> Iterator[Any]:
    """Look into FastAPI's included routers, which make routes with their prefix."""
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            yield route
        else:
            yield from (context.starlette_route for context in contexts())
