"""Write files so that no reader ever sees half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

__all__ = ["write_aside"]


def write_aside(path: str | os.PathLike[str], write: str | Callable[[BinaryIO], None]) -> None:
    """Write beside the destination and rename into place.

    Args:
        path: Where it goes; an existing file is replaced.
        write: The text, as UTF-8, or what writes the bytes.

    Raises:
        OSError: The folder does not exist or cannot be written; the old file, if any, is untouched.
    """
    destination = Path(path)
    if destination.is_dir():
        raise IsADirectoryError(f"{destination} is a folder; expected the name of a file")
    handle, aside = tempfile.mkstemp(prefix=f".{destination.name}.", dir=destination.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            if isinstance(write, str):
                stream.write(write.encode())
            else:
                write(stream)
        umask = os.umask(0)
        os.umask(umask)
        Path(aside).chmod(0o666 & ~umask)
        Path(aside).replace(destination)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
