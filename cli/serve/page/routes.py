"""What the page asks: which model answers, what an image costs, the schema behind a list of fields, the examples."""

from __future__ import annotations

import asyncio
import base64
import importlib.resources
import io
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from phi3v.answer_format import JsonSchema
from phi3v.hd import HdPlan, plan
from phi3v.images.cropped import MAX_CROPS
from phi3v.images.load import read_image
from phi3v.images.source import HeldFile
from phi3v.structured.field_syntax import parse_fields

from ..body import read_body, read_bytes
from ..errors import ApiError
from ..service import Service
from ..wire import Strict
from .document import home

EXAMPLES = (
    ("Explain this chart.", ("chart.png",)),
    ("Help me get the title and author information of this book?", ("cover.png",)),
    ("What is difference in this two images?", ("before.png", "after.webp")),
)
"""The questions of the reference document, and the images of examples/ that they are about."""

_PREVIEW_PIXELS = 320
_READING = 2
"""Images that are decoded at a time: one of 100 megapixels takes 0.6 GB meanwhile."""

_MOST_NAME = 200


class Fields(Strict):
    """`fields`: a list as of `phi3v ask --schema`, or a JSON schema."""

    fields: str


def page_routes() -> list[Route]:
    """The page and what it asks."""
    reading = asyncio.Semaphore(_READING)

    async def describe_image(request: Request) -> Response:
        service: Service = request.app.state.service
        data = await read_bytes(request, service.settings.body_timeout_s)
        name = request.query_params.get("name", "")[:_MOST_NAME] or "the image"
        async with reading:
            return JSONResponse(await asyncio.to_thread(_describe_image, data, name))

    return [
        Route("/", home),
        Route("/page/model", _describe_model),
        Route("/page/examples/{name}", _send_example),
        Route("/page/image", describe_image, methods=["POST"]),
        Route("/page/schema", _read_schema, methods=["POST"]),
    ]


async def _describe_model(request: Request) -> Response:
    service: Service = request.app.state.service
    folder = service.folder
    return JSONResponse(
        {
            "name": service.name,
            "precision": folder.precision or "published build",
            "device": service.engine.device if service.engine is not None else None,
            "about": folder.about,
            "synthetic": folder.synthetic,
            "needs_image": folder.needs_image,
            "knows_formats": folder.knows_formats,
            "num_crops": folder.num_crops,
            "context_length": folder.context_length,
            "loaded": service.loaded,
            "examples": [{"question": question, "images": images} for question, images in EXAMPLES],
        }
    )


async def _send_example(request: Request) -> Response:
    name = request.path_params["name"]
    if not any(name in images for _, images in EXAMPLES):
        raise ApiError(404, f"there is no example {name[:100]!r}")
    data = importlib.resources.files("phi3v.examples").joinpath(name).read_bytes()
    return Response(data, media_type=f"image/{name.rpartition('.')[2]}")


def _describe_image(data: bytes, name: str) -> dict[str, Any]:
    """Size, notes, a small JPEG, and for each number of crops what it costs. Raises ImageError."""
    loaded = read_image(HeldFile(name, lambda: data))
    width, height = loaded.image.size
    plans = {str(crops): _cost(plan(width, height, crops)) for crops in range(1, MAX_CROPS + 1)}
    plans["auto"] = _cost(plan(width, height, "auto"))
    loaded.image.thumbnail((_PREVIEW_PIXELS, _PREVIEW_PIXELS))
    preview = io.BytesIO()
    loaded.image.save(preview, "JPEG", quality=80)
    shown = f"data:image/jpeg;base64,{base64.b64encode(preview.getvalue()).decode()}"
    return {"width": width, "height": height, "plans": plans, "notes": loaded.notes, "preview": shown}


def _cost(layout: HdPlan) -> dict[str, int]:
    return {"crops": layout.crops, "tokens": layout.image_tokens}


async def _read_schema(request: Request) -> Response:
    service: Service = request.app.state.service
    body = await read_body(request, Fields, service.settings.body_timeout_s)
    given = body.fields.strip()
    wanted = JsonSchema(given) if given.startswith("{") else parse_fields(given)
    return JSONResponse({"schema": json.loads(wanted.schema)})
