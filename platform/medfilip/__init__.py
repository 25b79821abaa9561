"""MedFILIP Platform: from raw radiology reports and chest X-rays to a served zero-shot diagnosis model.

The library never imports Ray or vLLM; the jobs in ``pipelines`` and the application in ``serve`` do.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medfilip._version import __version__
from medfilip.core.errors import ErrorCode, MedfilipError

if TYPE_CHECKING:
    from medfilip.client import Client
    from medfilip.model.zero_shot import ZeroShotModel

__all__ = ["Client", "ErrorCode", "MedfilipError", "__version__", "load"]


def load(place: str | Path | None = None, device: str = "cpu") -> ZeroShotModel:
    """Load a trained model: ``medfilip.load("runs").diagnose("image.dcm", ["pneumothorax"])``.

    Parameters
    ----------
    place
        Folder of a checkpoint, of the run of a pretrain job, or a folder of such runs, of which the newest is taken;
        local or ``s3://bucket/key``. Without it the small checkpoint of the package, trained on synthetic studies: it
        shows how things work, and is worthless for patients.
    device
        As torch names it: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Returns
    -------
    ZeroShotModel
        With ``encode_image``, ``encode_text`` and ``diagnose``.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND`` if there is no finished checkpoint, ``CHECKPOINT_INVALID`` naming a file that is missing,
        changed or of another version, ``CONFIG_INVALID`` for a device that is not there.
    """
    # torch takes seconds to import; whoever only calls an endpoint shall not wait for it.
    from medfilip.model.zero_shot import ZeroShotModel

    return ZeroShotModel.load(place, device)


def __getattr__(name: str) -> type[Client]:
    # The client brings an HTTP library that most users of the package do not need.
    if name == "Client":
        from medfilip.client import Client

        return Client
    raise AttributeError(f"module 'medfilip' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
