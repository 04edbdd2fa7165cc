"""Images in object stores, by pyarrow's file systems: s3:// and gs:// URLs."""

from __future__ import annotations

from ..errors import ImageError, ImageFetchError
from ..images.local_file import MAX_FILE_BYTES

_SCHEMES = ("s3://", "gs://")


def is_bucket_url(source: str) -> bool:
    """Whether a source is in an object store."""
    return source.lower().startswith(_SCHEMES)


def open_bucket_url(url: str) -> bytes:
    """A file's bytes. Credentials and endpoint are those of the environment. Raises ImageError, ImageFetchError."""
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    try:
        files, path = FileSystem.from_uri(url)
        with files.open_input_file(path) as file:
            if file.size() > MAX_FILE_BYTES:
                raise ImageError(f"{url} is larger than the {MAX_FILE_BYTES >> 20} MiB allowed; save it smaller")
            return bytes(file.read())
    except (OSError, ArrowException) as exc:
        raise ImageFetchError(f"{url} cannot be read ({exc}); check the name and the credentials") from exc
