"""What every sub-command does with an error: one clear sentence with its code, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from medfilip.core.errors import ErrorCode, MedfilipError

_USAGE_ERRORS = frozenset({ErrorCode.CONFIG_INVALID, ErrorCode.CONFIG_UNKNOWN_KEY, ErrorCode.CONFIG_FILE_UNREADABLE})


def guarded(work: Callable[[], object], *, debug: bool) -> None:
    """Run ``work``; an error becomes one sentence with its code on standard error, and an exit code.

    2 stands for wrong settings, 1 for everything else. The message of an unexpected exception is not shown: it may
    quote what it choked on.
    """
    try:
        work()
    except MedfilipError as error:
        if debug:
            raise
        _print_error(error.code, str(error))
        sys.exit(2 if error.code in _USAGE_ERRORS else 1)
    except KeyboardInterrupt:
        _print_error("interrupted", "Stopped. A job resumes when it is started again, without --new-run.")
        sys.exit(130)
    except OSError as error:
        if debug:
            raise
        from pipelines.runtime import reason

        place = f": {error.filename}" if isinstance(error.filename, str) else ""
        _print_error(ErrorCode.STORAGE_FAILED, f"Cannot read or write ({reason(error)}{place}). Check paths and space.")
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        _print_error(ErrorCode.INTERNAL, f"Unexpected {type(error).__name__}. Run with --debug to see where.")
        sys.exit(1)


def _print_error(code: str, message: str) -> None:
    Console(stderr=True, highlight=False).print(f"[bold red]error[/] [dim]\\[{code}][/] {escape(message)}")
