"""The tools, on one model that is loaded while the first call may come already."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field

from phi3v import AsyncEngine, GenerationRequest, GenerationResult, JsonSchema, __version__
from phi3v.errors import Phi3VError
from phi3v.models.folder import ModelDir
from phi3v.structured.field_syntax import parse_fields

from .root import Root

_PROGRESS_S = 2.0
"""So often a client hears that the model still works; many give up after 60 s of silence."""

_COMPARE = "What is the difference between these two images?"

Images = Annotated[list[str], Field(description="Paths of images under the root folder", min_length=1, max_length=20)]
Image = Annotated[str, Field(description="Path of an image under the root folder")]
Crops = Annotated[
    int | None,
    Field(
        description="Most crops of an image, 1 (coarse and fast) to 16 (small print); null: the model's own",
        ge=1,
        le=16,
    ),
]


def make_server(folder: ModelDir, device: Any, root: Path) -> MCPServer[None]:
    """A server of the Model Context Protocol. Its tools raise ToolError, whose message the agent's model reads."""
    tools = _Tools(AsyncEngine(folder.path, device), folder, Root.of(root))
    about = f" {folder.name} {folder.about}." if folder.about else ""
    meaning = " It has random weights: its answers mean nothing." if folder.synthetic else ""
    server = MCPServer[None](
        "phi3v",
        version=__version__,
        instructions=f"Answers questions about images in {tools.root.path} with {folder.name}.{about}{meaning}",
        lifespan=tools.running,
        log_level="WARNING",
    )
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    for tool in (tools.look, tools.extract, tools.compare):
        server.tool(annotations=reads)(tool)
    return server


@dataclass(slots=True)
class _Tools:
    engine: AsyncEngine
    folder: ModelDir
    root: Root
    loading: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def running(self, _: MCPServer[None]) -> AsyncIterator[None]:
        """Load the model in the background, and end it with the server."""
        self.loading = asyncio.create_task(self.engine.start())
        try:
            yield
        finally:
            self.loading.cancel()
            await asyncio.gather(self.loading, return_exceptions=True)
            await self.engine.close()

    async def look(
        self,
        images: Images,
        question: Annotated[str, Field(description="What to find out, such as 'What is the title?'", min_length=1)],
        context: Context[Any, Any],
        num_crops: Crops = None,
    ) -> str:
        """Answer a question about one or several images: read text, explain a chart, describe a picture."""
        return _text(await self._ask(context, images, question, num_crops))

    async def extract(
        self,
        images: Images,
        fields: Annotated[
            str, Field(description="Fields as 'title, author, year int?', or a JSON schema", min_length=1)
        ],
        context: Context[Any, Any],
        question: Annotated[str, Field(description="What the fields are about")] = "Read these fields off the image.",
        num_crops: Crops = None,
    ) -> dict[str, Any]:
        """Read typed fields off images. The form is always kept; whether the values are true is up to the model."""
        try:
            wanted = JsonSchema(fields) if fields.lstrip().startswith("{") else parse_fields(fields)
            result = await self._ask(context, images, question, num_crops, wanted)
            value = wanted.read(result.text)
        except Phi3VError as exc:
            raise ToolError(str(exc)) from exc
        return value if isinstance(value, dict) else {"value": value}

    async def compare(
        self,
        first: Image,
        second: Image,
        context: Context[Any, Any],
        question: Annotated[str, Field(description="What to compare", min_length=1)] = _COMPARE,
        num_crops: Crops = None,
    ) -> str:
        """Say what differs between two images, or answer a question about both."""
        return _text(await self._ask(context, [first, second], question, num_crops))

    async def _ask(
        self,
        context: Context[Any, Any],
        images: Sequence[str],
        question: str,
        num_crops: int | None,
        answer_format: JsonSchema | None = None,
    ) -> GenerationResult:
        """One answer, told of while it comes. A call that is cancelled cancels it. Raises ToolError."""
        began = time.monotonic()
        ticking = asyncio.create_task(_tell_progress(context, began))
        try:
            sources = [self.root.find(image) for image in images]
            request = GenerationRequest(question, sources, answer_format=answer_format, num_crops=num_crops)
            assert self.loading is not None
            await asyncio.shield(self.loading)
            return await self.engine.stream_request(request).drain()
        except Phi3VError as exc:
            raise ToolError(str(exc)) from exc
        finally:
            ticking.cancel()


async def _tell_progress(context: Context[Any, Any], began: float) -> None:
    """Tell the client that the model works; one that did not ask for it hears nothing."""
    while True:
        await asyncio.sleep(_PROGRESS_S)
        with contextlib.suppress(Exception):  # the client is gone, which the call itself finds out
            spent = time.monotonic() - began
            await context.report_progress(spent, message=f"the model has worked for {spent:.0f} s")


def _text(result: GenerationResult) -> str:
    """The answer, and what its reader should know."""
    cut = ["the answer was cut off at its most tokens"] if result.finish_reason == "length" else []
    return "\n".join([result.text, *(f"(Note: {note})" for note in [*result.notes, *cut])])
