"""A recorded file opened so that it can be read twice from its start: plain, gzip, or out of a pipe.

Rule 1: memory does not grow with the file: what comes out of a pipe lies on disk past a bound.
"""

from __future__ import annotations

import contextlib
import gzip
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from policyd.adapters.errors import UnreadableInput

_GZIP = b"\x1f\x8b"
_MEMORY = 16 * 1024 * 1024  # bytes


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Raises OSError, or UnreadableInput where gzip is broken, also while it is read."""
    with path.open("rb") as file, tempfile.SpooledTemporaryFile(_MEMORY) as spool:
        whole: BinaryIO = file
        if not file.seekable():
            shutil.copyfileobj(file, spool)
            spool.seek(0)
            whole = cast(BinaryIO, spool)
        packed = whole.read(len(_GZIP)) == _GZIP
        whole.seek(0)
        try:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=whole)) if packed else whole
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UnreadableInput(path, f"broken gzip: {str(error).lower()}") from None
