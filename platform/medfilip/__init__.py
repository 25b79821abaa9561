"""MedFILIP Platform: from raw radiology reports and chest X-rays to a served zero-shot diagnosis model.

The library never imports Ray or vLLM; the jobs in ``pipelines`` and the application in ``serve`` do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medfilip._version import __version__
from medfilip.core.errors import ErrorCode, MedfilipError

if TYPE_CHECKING:
    from medfilip.client import Client

__all__ = ["Client", "ErrorCode", "MedfilipError", "__version__"]


def __getattr__(name: str) -> type[Client]:
    # The client brings an HTTP library that most users of the package do not need.
    if name == "Client":
        from medfilip.client import Client

        return Client
    raise AttributeError(f"module 'medfilip' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
