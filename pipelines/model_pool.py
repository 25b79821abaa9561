"""A model kept by a pool of actors of Ray Data, as the endpoint's encoders keep it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.model.locate import local_copy
from medfilip.storage.location import Location

if TYPE_CHECKING:
    from serve.encoding import EncoderService

_CHUNK_IMAGES = 64
_CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class ModelPool:
    """The model, and the actors that keep it.

    Attributes
    ----------
    checkpoint
        Its folder.
    image_size
        Side of its input.
    unfamiliar_from
        Unfamiliarity from which nothing is decided.
    device
        ``cpu`` or ``cuda``.
    max_batch_size
        Images embedded together.
    replicas
        The least and the largest number of actors.
    num_cpus, num_gpus
        What an actor holds.
    """

    checkpoint: Location
    image_size: int
    unfamiliar_from: float
    device: str
    max_batch_size: int
    replicas: tuple[int, int]
    num_cpus: float
    num_gpus: float

    @property
    def chunk_images(self) -> int:
        """Images that are read, and travel to an actor, together; whatever the batches are, so that a job resumes."""
        return max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // (4 * self.image_size**2)))

    def service(self) -> EncoderService:
        """Return the model as the endpoint has it, loaded once for each process."""
        return _service(self.checkpoint, self.device, self.unfamiliar_from)

    def check_gpus(self) -> None:
        """Refuse a GPU that a single machine does not have: Ray would wait for it without a word.

        Raises
        ------
        MedfilipError
            ``CONFIG_INVALID``.
        """
        import ray

        there = ray.cluster_resources()
        # A cluster of several machines, or of a head that computes nothing, may grow.
        if len(ray.nodes()) == 1 and there.get("CPU", 0) and there.get("GPU", 0) < self.num_gpus:
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                f"encoder.num_gpus is {self.num_gpus:g}; Ray sees {there.get('GPU', 0):g} GPUs on this machine.",
                fix="Leave encoder.device and encoder.num_gpus out to run on the CPU.",
            )

    def resources(self) -> dict[str, Any]:
        """Return what a stage of Ray Data is told about its actors."""
        from ray.data import ActorPoolStrategy

        least, most = self.replicas
        gpus = {"num_gpus": self.num_gpus} if self.num_gpus else {}
        return {"compute": ActorPoolStrategy(min_size=least, max_size=most), "num_cpus": self.num_cpus, **gpus}


@lru_cache(maxsize=1)
def _service(checkpoint: Location, device: str, unfamiliar_from: float) -> EncoderService:
    from serve.encoding import EncoderService  # brings torch, which tasks that read images do without

    return EncoderService(local_copy(checkpoint), device=device, unfamiliar_from=unfamiliar_from)
