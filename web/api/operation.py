"""A view of the API together with its description, from which the OpenAPI document is generated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Response, jsonify
from pydantic import BaseModel

View = Callable[..., Any]


@dataclass(slots=True)
class Operation:
    """Calls the view and serializes the model that it returns, so that responses cannot differ from the document.

    A view returns a model, a model and a status, or a Response. `responses` maps each status to its model, None for a
    file; the first status is the default. `errors` maps further statuses to descriptions. `scope` is what the API key
    of a request must have, unless the operation is public.
    """

    view: View
    summary: str
    responses: Mapping[int, type[BaseModel] | None]
    errors: Mapping[int, str] = field(default_factory=dict)
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    scope: str = "read"
    public: bool = False
    __name__: str = ""

    def __call__(self, **path: str) -> Response:
        result = self.view(**path)
        if isinstance(result, Response):
            return result
        model, status = result if isinstance(result, tuple) else (result, next(iter(self.responses)))
        response = jsonify(model.model_dump(exclude_unset=True))
        response.status_code = status
        return response


def operation(
    summary: str, responses: Mapping[int, type[BaseModel] | None] | type[BaseModel], **more: Any
) -> Callable[[View], Operation]:
    """Decorates a view; a model alone means status 200. `more`: the other fields of Operation."""
    described = responses if isinstance(responses, Mapping) else {200: responses}
    return lambda view: Operation(view, summary, described, **more, __name__=view.__name__)
