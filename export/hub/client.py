"""huggingface-hub, imported in one place: it reads the environment as it is imported, so that is checked first."""

from __future__ import annotations

from ...errors import ModelFetchError
from .environment import check_environment, describe_settings

check_environment()
try:
    from huggingface_hub import HfApi, constants, errors, get_session, hf_hub_url
    from huggingface_hub.hf_api import RepoSibling
    from huggingface_hub.utils import WeakFileLock, build_hf_headers, hf_raise_for_status, httpx
except ValueError as exc:
    raise ModelFetchError(f"huggingface-hub cannot start ({exc}); {describe_settings()}") from exc

__all__ = [
    "HfApi",
    "RepoSibling",
    "WeakFileLock",
    "build_hf_headers",
    "constants",
    "errors",
    "get_session",
    "hf_hub_url",
    "hf_raise_for_status",
    "httpx",
]
