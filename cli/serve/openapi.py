"""/openapi.json, made of the same models that read requests and write responses."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from phi3v import __version__

from .chat_wire import ChatCompletion, ChatRequest
from .ollama_wire import OllamaChat, OllamaGenerate, OllamaShow
from .page.routes import Fields
from .responses_wire import ResponsesRequest

_POSTS: tuple[tuple[str, str, type[BaseModel], type[BaseModel] | None], ...] = (
    ("/v1/chat/completions", "Answer a conversation", ChatRequest, ChatCompletion),
    ("/v1/responses", "Answer a conversation, as the Responses API", ResponsesRequest, None),
    ("/api/chat", "Answer a conversation, as Ollama", OllamaChat, None),
    ("/api/generate", "Answer a prompt, as Ollama", OllamaGenerate, None),
    ("/api/show", "Describe the model, as Ollama", OllamaShow, None),
    ("/page/schema", "The JSON schema behind a list of fields", Fields, None),
)
_GETS = (
    ("/v1/models", "The models: one"),
    ("/v1/models/{id}", "The model"),
    ("/health", "Whether the model is loaded"),
    ("/metrics", "Numbers for Prometheus"),
    ("/api/version", "The version of Ollama's API"),
    ("/api/tags", "The models, as Ollama"),
    ("/api/ps", "The models that are loaded, as Ollama"),
    ("/page/model", "What the page says about the model"),
)
_ERRORS = {
    "400": "A field is wrong or not supported",
    "401": "The API key is missing or wrong",
    "403": "A foreign Host or Origin",
    "404": "There is no such model",
    "408": "The request came too slowly",
    "413": "The request is too large",
    "429": "Too many requests wait",
    "500": "The model failed",
    "503": "The model is being loaded",
}


def make_openapi() -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    kinds: list[type[BaseModel]] = [kind for _, _, *pair in _POSTS for kind in pair if kind is not None]
    inputs: list[Any] = [(kind, "validation") for kind in kinds]
    names, definitions = models_json_schema(inputs, ref_template="#/components/schemas/{model}")
    paths: dict[str, Any] = {}
    for path, summary, body, answer in _POSTS:
        content = {"application/json": {"schema": {} if answer is None else names[(answer, "validation")]}}
        paths[path] = {
            "post": {
                "summary": summary,
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": names[(body, "validation")]}},
                },
                "responses": {"200": {"description": "The answer, or a stream of it", "content": content}} | _errors(),
            }
        }
    for path, summary in _GETS:
        parameters = (
            [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}] if "{id}" in path else []
        )
        paths[path] = {
            "get": {
                "summary": summary,
                "parameters": parameters,
                "responses": {"200": {"description": "OK"}} | _errors(),
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "phi3v", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _errors() -> dict[str, Any]:
    return {status: {"description": text} for status, text in _ERRORS.items()}
