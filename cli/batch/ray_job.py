"""`phi3v batch --ray`: the same job on a Ray cluster, from and to files that all nodes reach.

Rows that can be listed here become a table of paths in OUT.job/, which Ray reads; tables and archives that hold the
images themselves are read by Ray directly. What is done stands in OUT.job/done, so that a restarted job goes on.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import click

from phi3v.errors import InferenceError, MissingDependencyError, OptionError, Phi3VError
from phi3v.images.suffixes import IMAGE_SUFFIXES
from phi3v.machine.install import install_line
from phi3v.ray_data.buckets import is_bucket_url

from ..notices import is_quiet, say
from .item import Item
from .ray_files import JobFiles, list_bucket

if TYPE_CHECKING:
    from phi3v.machine.device_table import DeviceName
    from phi3v.options import GenerationOptions

    from .inputs import InputReader, Inputs

_BLOCKS_PER_WORKER = 8
"""Parts that each worker gets: so many that none idles at the end, so few that each is some batches."""

_MOST_ROWS_PER_BLOCK = 500
"""Rows that are written to one file, and that are answered again if a node dies before they are."""

_LEAST_CPUS = 2
_MOST_TRIES = 4
_PAUSE_S = 15.0
"""Seconds until a cluster has noticed that a node is gone."""

_ROWS_OF_UNKNOWN = 64
"""Rows of a block where nobody counted them before."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a job runs. `address` as of `ray.init`; "local" starts Ray here.

    `gpus`: of a worker; None: 1 where there are any. `batch_size`: rows that a worker gets at a time;
    `max_memory`: bytes for answering, beside the model's own, of each worker.
    """

    address: str
    workers: int
    gpus: float | None
    batch_size: int
    max_memory: int | None


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked, and where the answers go. `choose` picks the rows that are wanted of those that were listed."""

    reader: InputReader
    inputs: Sequence[str]
    questions: Sequence[str]
    choose: Callable[[Inputs], list[Item]]
    out: str

    def list_rows(self, held: Sequence[str]) -> list[Item]:
        """The rows of all inputs that can be listed here; none if one input holds its images itself.

        Raises click.UsageError for such an input beside others.
        """
        others = [given for given in self.inputs if given not in held]
        if held and (others or len(held) > 1):
            raise click.UsageError(f"{held[0]} holds its images itself; give it a job of its own, without other inputs")
        if held and len(self.questions) > 1:
            raise click.UsageError(f"{held[0]} holds its images itself; ask one --question, or fill a column question")
        listed = [image for given in others for image in (list_bucket(given) if is_bucket_url(given) else [given])]
        return [] if held else self.choose(self.reader.read(listed))


def run_on_ray(
    job: Job, model: str | None, device: DeviceName, cluster: Cluster, **options: Unpack[GenerationOptions]
) -> tuple[int, int]:
    """Answer a job's rows into the Parquet folder `job.out`. Returns how many rows it holds, and how many failed.

    Raises OptionError if the folder holds the answers of another model or of other options.
    """
    ray = _import_ray()
    from phi3v.ray_data import Phi3Vision

    from .run import hash_run, open_model

    if model is None:
        raise click.UsageError("--ray needs --model NAME: every node loads it from its own files")
    held = [given for given in job.inputs if _holds_images(given)]
    items = job.list_rows(held)
    files = JobFiles(job.out)
    question = job.questions[0] if held and job.questions else None
    files.check_run(json.dumps([hash_run(open_model(model, "auto"), **options), question]))
    _connect(ray, cluster.address)
    gpus = _check_gpus(ray, cluster)
    threads = None if gpus else _threads(ray, cluster.workers)
    _remember_done(ray, files, "__key__" if held and _is_archive(held[0]) else "id")
    files.write_rows(items)
    worker = {"device": device, "threads": threads, "max_memory": cluster.max_memory}

    def answer() -> None:
        rows = _read(ray, files, len(items), held, cluster.workers)
        answered = rows.map_batches(
            Phi3Vision,
            fn_constructor_kwargs={"model": model, "question": question, **worker, **options},
            compute=ray.data.ActorPoolStrategy(size=cluster.workers),
            batch_size=cluster.batch_size,
            num_gpus=gpus or None,
            num_cpus=0,  # workers that take the CPUs of a node leave none to what reads for them, and wait for ever
        )
        answered.write_parquet(files.url(files.out))

    _try_again(ray, answer)
    return files.count()


def _try_again(ray: Any, answer: Callable[[], None]) -> None:
    """Answer what is left, again if Ray gives up: a node that died is not known to be dead at once.

    Raises the Phi3VError that a worker raised, if that was the reason.
    """
    for left in reversed(range(_MOST_TRIES)):
        try:
            answer()
            return
        except ray.exceptions.RayError as exc:
            if (ours := _find_cause(exc)) is not None:
                raise ours from exc
            if not left:
                raise InferenceError(
                    f"Ray gave up ({str(exc).strip().splitlines()[-1]}); the same command goes on"
                ) from exc
            say(f"Ray gave up ({type(exc).__name__}); what is not written yet is asked again")
            time.sleep(_PAUSE_S)


def _find_cause(exc: BaseException | None) -> Phi3VError | None:
    """The error of ours behind one of Ray's."""
    while exc is not None and not isinstance(exc, Phi3VError):
        exc = getattr(exc, "cause", None) or exc.__cause__
    return exc


def _is_archive(given: str) -> bool:
    return given.lower().endswith(".tar")


def _holds_images(given: str) -> bool:
    """Whether an input is a .tar, or a .parquet with a column of bytes."""
    if _is_archive(given):
        return True
    if not given.lower().endswith(".parquet"):
        return False
    import pyarrow
    import pyarrow.dataset

    try:
        schema = pyarrow.dataset.dataset(given).schema
    except (OSError, pyarrow.ArrowException):
        return False  # what lists it says what is wrong
    kinds = [schema.field(name).type for name in ("image", "images") if name in schema.names]
    kinds = [kind.value_type if pyarrow.types.is_list(kind) else kind for kind in kinds]
    return any(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind) for kind in kinds)


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
        import ray.data.checkpoint
    except ImportError as exc:
        raise MissingDependencyError(f"--ray needs Ray ({exc}); run: {install_line('ray')}") from exc
    return ray


def _connect(ray: Any, address: str) -> None:
    if is_quiet():
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as exc:
        raise InferenceError(f"--ray {address}: {exc}; start Ray there (ray start --head), or give local") from exc


def _check_gpus(ray: Any, cluster: Cluster) -> float:
    """The GPUs of a worker. Raises OptionError if there are too few."""
    there = ray.cluster_resources().get("GPU", 0)
    gpus = (1.0 if there else 0.0) if cluster.gpus is None else cluster.gpus
    if gpus * cluster.workers > there:
        raise OptionError(
            f"{cluster.workers} workers with {gpus:g} GPUs each need {gpus * cluster.workers:g}, and the cluster has "
            f"{there:g}; lower --workers or --gpus-per-worker"
        )
    return gpus


def _threads(ray: Any, workers: int) -> int:
    """The threads of each worker where CPUs compute: Ray spreads the workers over the nodes.

    Raises OptionError for a cluster of nodes of one CPU, where Ray's own tasks wait for each other.
    """
    cpus = [node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"]]
    if max(cpus) < _LEAST_CPUS:
        raise OptionError(
            f"no node of the cluster has {_LEAST_CPUS} CPUs, which Ray's readers need; start one that has"
        )
    return max(1, int(min(cpus)) // -(-workers // len(cpus)))


def _remember_done(ray: Any, files: JobFiles, id_column: str) -> None:
    """Have Ray note which rows were written, by this column, and leave them out when the job is restarted."""
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = ray.data.checkpoint.CheckpointConfig(
        id_column, files.url(files.done), delete_checkpoint_on_success=False
    )


def _read(ray: Any, files: JobFiles, count: int, held: Sequence[str], workers: int) -> Any:
    """The rows as a dataset of several blocks for each worker: a single one would keep a single worker busy."""
    if not held:
        return _cut(ray.data.read_parquet(files.url(files.rows)), -(-count // (workers * _BLOCKS_PER_WORKER)))
    [given] = held
    if _is_archive(given):
        return _cut(ray.data.read_webdataset(given, decoder=None).map(_image_of_sample), _ROWS_OF_UNKNOWN)
    dataset = ray.data.read_parquet(given)
    if "id" not in dataset.schema().names:
        raise click.UsageError(f"{given} has no column id, by which a restarted job knows what is done; add one")
    return _cut(dataset, _ROWS_OF_UNKNOWN)


def _cut(dataset: Any, rows: int) -> Any:
    return dataset.repartition(target_num_rows_per_block=max(1, min(rows, _MOST_ROWS_PER_BLOCK)))


def _image_of_sample(sample: dict[str, Any]) -> dict[str, Any]:
    """A WebDataset's sample with its image under the name `image`."""
    name = next((name for name in sample if f".{name.lower()}".endswith(IMAGE_SUFFIXES)), None)
    return {"image": sample[name] if name else None, **{key: value for key, value in sample.items() if key != name}}
