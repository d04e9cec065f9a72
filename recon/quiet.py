"""Chatter of C libraries on stderr, left out by what it says; all else they say comes through."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_lines(*starts: bytes) -> Iterator[None]:
    """Lines on the process's stderr that begin so are dropped; others appear when the block ends.

    Works on the file descriptor, because a C library knows no other; keeps them in memory, so a full disk
    is no trouble. Where there is no stderr, or no memory file (outside Linux), nothing is changed.
    """
    try:
        kept, caught = os.dup(2), os.memfd_create("stderr")
    except (OSError, AttributeError):
        yield
        return
    try:
        os.dup2(caught, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.lseek(caught, 0, os.SEEK_SET)
            with os.fdopen(os.dup(caught), "rb") as file:
                lines = [line for line in file if not line.lstrip(b"\t ").startswith(starts)]
            if lines:
                os.write(2, b"".join(lines))
    finally:
        os.close(kept)
        os.close(caught)
