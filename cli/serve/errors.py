"""What a client is told when something is wrong: OpenAI's error object, or Ollama's, with a status."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

from phi3v.errors import (
    ContextLengthError,
    ImageError,
    MissingDependencyError,
    ModelProcessError,
    OptionError,
    Phi3VError,
    PromptError,
)

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


class ApiError(Exception):
    """A request that is answered with an error. `param` names the field that is to blame."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    def content(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        if self.status == 429:
            kind = "rate_limit_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Headers that tell a client when to try again, or not to."""
        if self.retry_after_s is not None:
            return {"retry-after": str(max(1, math.ceil(self.retry_after_s)))}
        return {"x-should-retry": "false"}

    def response(self, path: str) -> JSONResponse:
        """The response to a request for `path`."""
        content = {"error": self.message} if path.startswith("/api/") else self.content()
        headers = self.headers() | ({"www-authenticate": "Bearer"} if self.status == 401 else {})
        return JSONResponse(content, self.status, headers)


def as_api_error(error: Phi3VError) -> ApiError:
    """What one of our own errors means to a client."""
    if isinstance(error, ContextLengthError):
        return ApiError(400, str(error), param="messages", code="context_length_exceeded")
    if isinstance(error, ImageError):
        return ApiError(400, str(error), param="messages", code="invalid_image")
    if isinstance(error, PromptError):
        return ApiError(400, str(error), param="messages")
    if isinstance(error, OptionError):
        return ApiError(400, str(error), param=_option_named(str(error)))
    if isinstance(error, MissingDependencyError):
        return ApiError(501, str(error))
    if isinstance(error, ModelProcessError):
        return ApiError(503, str(error), code="model_restarting", retry_after_s=2)
    return ApiError(500, str(error))


def as_param_error(error: ValidationError) -> ApiError:
    """The first thing that is wrong with a body, and where."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # Names of union members, which pydantic puts between, are no part of what the client has sent.
    where = ".".join(str(part) for part in found["loc"] if isinstance(part, int) or str(part).islower())
    if found["type"] == "extra_forbidden":
        return ApiError(400, f"{where} is not supported; leave it out", param=where, code="unsupported_parameter")
    return ApiError(400, f"{where or 'the body'}: {found['msg']}", param=where or None)


def _option_named(message: str) -> str | None:
    """Our messages about an option begin with its name."""
    first = message.split(" ", 1)[0]
    names = {"answer_format": "response_format", "max_new_tokens": "max_tokens"}
    return names.get(first, first) if first.isidentifier() and first.islower() else None


async def handle_api_error(request: Request, error: Exception) -> JSONResponse:
    """Starlette's handler for ApiError."""
    assert isinstance(error, ApiError)
    return error.response(request.url.path)


async def handle_our_error(request: Request, error: Exception) -> JSONResponse:
    """Starlette's handler for Phi3VError."""
    assert isinstance(error, Phi3VError)
    return as_api_error(error).response(request.url.path)
