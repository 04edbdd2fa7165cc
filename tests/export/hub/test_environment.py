"""The variables that the hub's library reads are checked before it does, each by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import PATIENCE_S

from phi3v.errors import ModelFetchError
from phi3v.export.hub.environment import check_environment
from phi3v.models.local import hub_cache

GOOD = {
    "HF_HUB_DOWNLOAD_TIMEOUT": ["10", " 10 ", ""],
    "HF_ENDPOINT": ["https://huggingface.co", "http://localhost:8080/hub", ""],
    "HTTPS_PROXY": ["http://proxy:3128", "proxy:3128", "http://user:pass@proxy:3128", ""],
    "HF_TOKEN": ["hf_abc", " hf_abc\n", ""],
    "SSL_CERT_DIR": ["/", ""],
}
BAD = {
    "HF_HUB_DOWNLOAD_TIMEOUT": ["60s", "1.5", "-1", "ten"],
    "HF_HUB_ETAG_TIMEOUT": ["1.5"],
    "HF_ENDPOINT": ["huggingface.co", "http://[bad", "ftp://host", "http://host:port", "http://"],
    "HTTPS_PROXY": ["http://", "::::", "gopher://proxy", "http://proxy:99999"],
    "https_proxy": ["http://proxy:0"],
    "HF_TOKEN": ["töken", "hf\x00abc", "a\nb"],
    "SSL_CERT_FILE": ["/nope", "/", os.devnull],
    "SSL_CERT_DIR": ["/nope"],
}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name in (*GOOD, *BAD) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_what_works_passes(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    check_environment()


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values if "\0" not in value]
)
def test_what_fails_later_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ModelFetchError, match=f"^{name} .*unset {name}`"):
        check_environment()


def test_a_proxys_password_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks4://user:secret@proxy:1")
    with pytest.raises(ModelFetchError) as caught:
        check_environment()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"HF_HOME": "/somewhere/hf"},
        {"HF_HOME": "~/$PLACE/hf", "PLACE": "there"},
        {"HF_HUB_CACHE": "/somewhere/cache"},
        {"HUGGINGFACE_HUB_CACHE": "/older/cache"},
        {"HF_HUB_CACHE": "~/cache", "HF_HOME": "/other"},
        {"XDG_CACHE_HOME": "/caches"},
    ],
    ids=str,
)
def test_the_cache_is_where_the_hubs_library_has_it(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    program = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert hub_cache() == Path(done.stdout.strip())
