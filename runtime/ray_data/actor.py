"""The class that Ray Data calls with batches of rows, in an actor that holds a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from ..engine import load
from ..errors import OptionError, Phi3VError
from ..machine.threads import THREADS_VARIABLE
from ..options import make_request
from ..process.process_engine import ProcessAnswerer
from ..structured.python_types import answer_type
from .rows import Rows, read_rows
from .table import TableMaker

if TYPE_CHECKING:
    import pyarrow

    from ..batch import Outcome
    from ..machine.device_table import DeviceName
    from ..options import GenerationOptions


class Phi3Vision:
    """Answers questions about the images of a dataset's rows.

        ds.map_batches(
            Phi3Vision,
            fn_constructor_kwargs={"model": "phi-3-vision", "question": "Title and author?", "schema": Book},
            compute=ActorPoolStrategy(size=4), num_gpus=1, batch_size=16,
        )

    Rows have a column `image` (bytes, a path, an http(s), s3:// or gs:// URL, or uint8 [H, W, 3]) or `images` (a list
    of them), and may have `question`, which stands in place of the argument. Added are `answer`, or a typed column for
    each field of `schema` (what `Engine.extract` takes), `finish_reason` and `error`; a row that fails has an `error`
    and no answer. Other columns travel along, as `input_NAME` where a name is taken; images do so with `keep_images`,
    and paths and URLs always. The model is loaded once, from the node's own files, in a process beside the actor,
    which is replaced if it ends. Raises Phi3VError for a model or an option that is wrong; that ends the job.
    """

    def __init__(
        self,
        model: str | None = None,
        question: str | None = None,
        *,
        schema: Any = None,
        device: DeviceName | None = None,
        threads: int | None = None,
        keep_images: bool = False,
        max_memory: int | None = None,
        **options: Unpack[GenerationOptions],
    ) -> None:
        if schema is not None:
            if options.get("answer_format") is not None:
                raise OptionError("schema and answer_format are both given; give one of them")
            options["answer_format"] = answer_type(schema).format
        make_request(question or "", (), **options)  # refuses what is wrong before the model is loaded
        self._question = question
        self._options = options
        self._keep_images = keep_images
        self._max_memory = max_memory
        self._table = TableMaker(options.get("answer_format"))
        engine = load(model, device, threads=threads or _assigned_cpus(), process=True, max_memory=max_memory)
        assert isinstance(engine.answerer, ProcessAnswerer)
        self._answerer = engine.answerer

    def __call__(self, batch: Mapping[str, Any] | pyarrow.Table) -> pyarrow.Table:
        """Answer the rows of a batch, in any of Ray's formats."""
        rows = read_rows(batch)
        return self._table.make(rows, self._answer(rows), keep_images=self._keep_images)

    def close(self) -> None:
        """End the process that holds the model. An actor that ends does that by itself."""
        self._answerer.close()

    def _answer(self, rows: Rows) -> list[Outcome]:
        """The outcome of every row. Questions about the same images are asked one after the other."""
        outcomes: dict[int, Outcome] = {}
        requests = {}
        for number in rows.siblings_together():
            try:
                question = rows.question(number) or self._question
                if not question:
                    raise OptionError("there is no question: fill the column `question`, or give Phi3Vision one")
                requests[number] = make_request(question, rows.images(number), **self._options)
            except Phi3VError as exc:
                outcomes[number] = exc
        numbers, size = list(requests), max(1, min(len(requests), 32))
        for place, outcome in self._answerer.answer(
            requests.values(), batch_size=size, ahead=size, max_memory=self._max_memory
        ):
            outcomes[numbers[place]] = outcome
        return [outcomes[number] for number in range(len(rows))]


def _assigned_cpus() -> int | None:
    """The CPUs that Ray gave this actor, as threads; None where nothing was said, or outside Ray."""
    if os.environ.get(THREADS_VARIABLE):
        return None
    try:
        import ray
    except ImportError:
        return None
    if not ray.is_initialized():
        return None
    context: Any = ray.get_runtime_context()
    cpus = context.get_assigned_resources().get("CPU", 0)
    return max(1, int(cpus)) if cpus else None
