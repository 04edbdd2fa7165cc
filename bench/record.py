"""A benchmark's record: a JSON file that stands alone.

Every record names its format and version, and says when it was begun (under the format's own key), on what `machine`,
with which `packages`, from which `source` (version and commit), and of which `model` or `models` (name, hash, bytes,
whether the weights are random). What follows is the format's own. A "phi3v-bench" record has `settings`, `cases` and
every raw sample: {"subject", "case", "round", "warmup", metrics}. Summaries are not stored: readers derive them.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..machine.cuda import gpus, installed
from ..machine.memory import total_memory
from ..models.fingerprint import hash_contents
from ..models.manifest import Manifest

METRICS = (
    *("image_decode_s", "preprocess_s", "prepare_s", "prefill_s", "ttft_s", "tpot_s", "total_s"),
    *("load_s", "cold_start_s", "rss_peak_bytes", "gpu_used_bytes"),
)
"""What a "phi3v-bench" sample holds; smaller is better. prepare_s is image decode plus preprocessing, tpot_s the time
per token after the first."""

_PACKAGES = (
    *("onnxruntime-genai", "onnxruntime-genai-cuda", "onnxruntime", "onnxruntime-gpu"),
    *("openvino", "openvino-genai", "nvidia-cudnn-cu13", "nvidia-cublas"),
    *("torch", "transformers", "numpy", "pillow", "tokenizers"),
)


SOURCE_FILE = "source.json"
"""Where a package that was packed from a working copy says what `describe_source` said there."""


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of record: its name and version, the key that holds when it was begun, and the command that makes one."""

    name: str
    version: int
    time_key: str
    command: str


# The first three have a time_key each because records of theirs are published.
SUBJECTS_FORMAT = Format("phi3v-bench", 1, "created", "phi3v bench run")
SESSION_FORMAT = Format("phi3v-session-speed", 1, "started", "phi3v bench session")
BATCH_FORMAT = Format("phi3v-batch-speed", 1, "time", "phi3v bench batch")
GROWTH_FORMAT = Format("phi3v-growth", 1, "started", "phi3v bench growth")
LOAD_FORMAT = Format("phi3v-serve-load", 1, "started", "phi3v bench load")
RAY_FORMAT = Format("phi3v-ray-scaling", 1, "started", "phi3v bench ray")
HEARTBEAT_FORMAT = Format("phi3v-heartbeat", 1, "started", "phi3v bench heartbeat")


@dataclass(frozen=True)
class Record:
    """A record in memory: `content` is the JSON, `out` the file that is rewritten as the record grows, if any."""

    content: dict[str, Any]
    out: Path | None = None

    @classmethod
    def begin(cls, kind: Format, models: Path | Mapping[str, Path], *, out: Path | None = None, **own: Any) -> Record:
        """Begin a record of `models`, one folder or several by label. `own` holds the format's own fields."""
        measured = (
            {"model": describe_model(models)}
            if isinstance(models, Path)
            else {"models": {label: describe_model(folder) for label, folder in models.items()}}
        )
        return cls(
            {
                "format": kind.name,
                "version": kind.version,
                kind.time_key: datetime.now(UTC).isoformat(timespec="seconds"),
                "source": describe_source(),
                "machine": describe_machine(),
                "packages": describe_packages(),
                **measured,
                **own,
            },
            out,
        )

    @classmethod
    def read(cls, path: Path, kind: Format = SUBJECTS_FORMAT) -> Record:
        """Read a record of this kind. Raises OptionError for any other file and for another version."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = content["format"], content["version"]
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise OptionError(f"{path} is not a benchmark record ({exc}); make one with `{kind.command}`") from exc
        if found != (kind.name, kind.version):
            raise OptionError(f"{path} is {found[0]} version {found[1]}; this reads {kind.name} {kind.version}")
        return cls(content)

    def add(self, field: str, entry: Any) -> None:
        """Append to one of the record's lists, and rewrite `out`: a run that ends early leaves what it measured."""
        self.content[field].append(entry)
        self._save()

    def set(self, field: str, value: Any) -> None:
        """Set a field, and rewrite `out`."""
        self.content[field] = value
        self._save()

    def _save(self) -> None:
        if self.out is not None:
            self.write(self.out)

    def write(self, path: Path) -> None:
        """Write the JSON file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")

    @property
    def subjects(self) -> list[str]:
        """The labels of what was measured, in order."""
        return list(self.content["models"])

    @property
    def cases(self) -> list[str]:
        """The cases, in order."""
        return list(self.content["cases"])

    def values(self, subject: str, case: str, metric: str) -> dict[int, float]:
        """Samples of one metric by round, without the warm-up."""
        return {
            sample["round"]: sample[metric]
            for sample in self.content["samples"]
            if (sample["subject"], sample["case"]) == (subject, case)
            and not sample["warmup"]
            and sample.get(metric) is not None
        }


def describe_machine() -> dict[str, Any]:
    """Describe hardware, system and driver."""
    return {
        "cpu": _read_cpu_model(),
        "cpus": os.cpu_count(),
        "ram_bytes": total_memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "gpus": [{"name": g.name, "memory_bytes": g.memory_bytes, "driver_cuda": g.driver_cuda} for g in gpus()],
        "nvidia_driver": _read_nvidia_driver(),
    }


def describe_packages() -> dict[str, str]:
    """List the installed versions of every package that could change a number."""
    return {name: version for name in _PACKAGES if (version := installed(name))}


def describe_source() -> dict[str, Any]:
    """Give our version, and the commit if this runs from a working copy or was packed from one (cuda_kit.py)."""
    from .. import __version__

    root = Path(__file__).resolve().parent.parent
    if (packed := root / SOURCE_FILE).is_file():
        found: dict[str, Any] = json.loads(packed.read_text(encoding="utf-8"))
        return found
    commit = _run_git(root, "rev-parse", "HEAD")
    return {"version": __version__, "commit": commit, "dirty": bool(commit and _run_git(root, "status", "--porcelain"))}


def describe_model(folder: Path) -> dict[str, Any]:
    """A model or checkpoint folder: its name, its bytes, a hash of its contents, and whether its weights are random."""
    return {
        "name": folder.resolve().name,
        "bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        "hash": hash_contents(folder),
        "synthetic": _has_random_weights(folder),
    }


def _has_random_weights(folder: Path) -> bool:
    manifest, config = Manifest.find(folder), folder / "config.json"
    if manifest is not None and manifest.synthetic:
        return True
    return config.is_file() and bool(json.loads(config.read_text(encoding="utf-8")).get("phi3v_synthetic"))


def _read_nvidia_driver() -> str | None:
    """Read the line in which the kernel module names its version; None without the module."""
    try:
        lines = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return lines[0].partition(":")[2].strip() if lines else None


def _read_cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _run_git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
