"""Chatter of C libraries on stderr, left out by what it says; all else they say comes through."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def _messages(text: bytes) -> list[bytes]:
    """Lines with the indented lines that follow each: `[WARNING] file (Line 7)`, function, what is wrong."""
    out: list[bytes] = []
    for line in text.splitlines(keepends=True):
        if out and line[:1] in b" \t":
            out[-1] += line
        else:
            out.append(line)
    return out


@contextmanager
def without_lines(*starts: bytes) -> Iterator[None]:
    """Messages on the process's stderr with a line that begins so are dropped; others appear at the end.

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
                said = [
                    message
                    for message in _messages(file.read())
                    if not any(line.lstrip().startswith(starts) for line in message.splitlines())
                ]
            if said:
                os.write(2, b"".join(said))
    finally:
        os.close(kept)
        os.close(caught)
