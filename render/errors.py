"""Errors a user can act on: what was wrong, where, and what to do.

The command line prints the message on one line and exits with `exit_code`; the
HTTP API answers 4xx with it. Arguments are positional, so that the errors
survive pickling between processes.
"""

from __future__ import annotations


class MaquetteError(Exception):
    """Base of every error whose message is meant for the user."""

    exit_code = 1


class InputError(MaquetteError):
    """The request, a file or a setting is wrong, or the machine lacks what it needs. Never retried."""

    exit_code = 2


class CanceledError(MaquetteError):
    """The run was asked to stop; finished stages are kept."""

    exit_code = 130
