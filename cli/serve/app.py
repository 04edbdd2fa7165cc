"""The ASGI application: which path is answered by what."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from phi3v.errors import Phi3VError
from phi3v.models.folder import ModelDir

from . import ollama
from .chat import complete_chat
from .errors import ApiError, handle_api_error, handle_our_error
from .guard import Guard
from .images import ImageReader
from .metrics import CONTENT_TYPE
from .openapi import make_openapi
from .page.routes import page_routes
from .responses import respond
from .service import Service
from .settings import Settings
from .sse import ClientGoneError


def make_app(settings: Settings, folder: ModelDir) -> Starlette:
    """The application that serves one model folder; it loads the model as it starts."""
    service = Service(settings, folder)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loading = service.begin_loading()
        loading.add_done_callback(lambda task: task.cancelled() or task.exception())  # /health tells it
        try:
            yield
        finally:
            await service.close()

    routes = [
        *page_routes(),
        Route("/health", _health),
        Route("/metrics", _metrics),
        Route("/openapi.json", _openapi),
        Route("/v1/models", _models),
        Route("/v1/models/{name:path}", _model),
        Route("/v1/chat/completions", complete_chat, methods=["POST"]),
        Route("/v1/responses", respond, methods=["POST"]),
        Route("/api/version", ollama.version),
        Route("/api/tags", ollama.tags),
        Route("/api/ps", ollama.ps),
        Route("/api/show", ollama.show, methods=["POST"]),
        Route("/api/chat", ollama.chat, methods=["POST"]),
        Route("/api/generate", ollama.generate, methods=["POST"]),
    ]
    middleware = [Middleware(Guard, settings.api_key, settings.hosts, settings.cors_origins)]
    if settings.cors_origins:
        cors = Middleware(
            CORSMiddleware, allow_origins=list(settings.cors_origins), allow_methods=["*"], allow_headers=["*"]
        )
        middleware.insert(0, cors)
    app = Starlette(
        routes=routes,
        middleware=middleware,
        lifespan=lifespan,
        exception_handlers={
            ApiError: handle_api_error,
            Phi3VError: handle_our_error,
            ClientGoneError: _handle_gone,
            Exception: _handle_fault,
            404: _handle_unknown,
            405: _handle_method,
        },
    )
    app.state.service = service
    app.state.images = ImageReader(settings.media_domains)
    return app


async def _health(request: Request) -> Response:
    service: Service = request.app.state.service
    if service.loaded or (service.engine is None and service.idle):
        return JSONResponse({"status": "ok", "model": service.name})
    reason = "the model is being loaded" if service.failure is None else str(service.failure)
    return ApiError(503, reason, retry_after_s=2).response("/health")


async def _metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


async def _openapi(request: Request) -> Response:
    return JSONResponse(make_openapi())


async def _models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_describe(request.app.state.service)]})


async def _model(request: Request) -> Response:
    service: Service = request.app.state.service
    service.check_model(request.path_params["name"])
    return JSONResponse(_describe(service))


def _describe(service: Service) -> dict[str, object]:
    return {"id": service.name, "object": "model", "created": service.started_at, "owned_by": "phi3v"}


async def _handle_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _handle_fault(request: Request, error: Exception) -> Response:
    """What nobody foresaw; the log has it."""
    return ApiError(500, "the server has a fault; its log says more").response(request.url.path)


async def _handle_unknown(request: Request, error: Exception) -> Response:
    message = f"there is no {request.url.path[:100]} here; /openapi.json lists what there is"
    return ApiError(404, message).response(request.url.path)


async def _handle_method(request: Request, error: Exception) -> Response:
    return ApiError(405, f"{request.method} is not allowed for {request.url.path[:100]}").response(request.url.path)
