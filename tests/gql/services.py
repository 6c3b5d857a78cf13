"""The services that the scenarios run on, by name."""

from typing import Any

import ariadne_app
import strawberry_app

STRAWBERRY, FASTAPI, ARIADNE, EXTENSION = (
    "strawberry",
    "strawberry-fastapi",
    "ariadne",
    "ariadne-extension",
)
SERVICES: dict[str, Any] = {
    STRAWBERRY: strawberry_app.graphql_app,
    FASTAPI: strawberry_app.fastapi_app,
    ARIADNE: ariadne_app.graphql_app,
    EXTENSION: ariadne_app.extension_app,
}
