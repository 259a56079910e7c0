"""Write a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["write_aside"]


def write_aside(path: str | os.PathLike[str], text: str) -> None:
    """Write text beside its destination and rename it into place, so that no reader ever sees half a file.

    Args:
        path: Where the text goes; an existing file is replaced.
        text: What to write, as UTF-8.

    Raises:
        OSError: The folder does not exist or cannot be written; the old file, if any, is untouched.
    """
    destination = Path(path)
    if destination.is_dir():
        raise IsADirectoryError(f"{destination} is a folder; expected the name of a file")
    handle, aside = tempfile.mkstemp(prefix=f".{destination.name}.", dir=destination.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        umask = os.umask(0)
        os.umask(umask)
        Path(aside).chmod(0o666 & ~umask)
        Path(aside).replace(destination)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
