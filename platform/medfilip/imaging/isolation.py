"""Decoding of untrusted compressed images in a subprocess that can be killed.

Image codecs are C code that reads attacker-controlled input. Here they run in a worker with a time limit, a memory
limit and an environment without secrets; whatever happens to it is a coded error for one image, and the next image
gets a new worker. The worker is an ordinary ``subprocess``: daemonic processes (Ray actors, pool workers) may not
have ``multiprocessing`` children, but may have these.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from functools import lru_cache
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging._decode_worker import FRAME, read_frame, write_frame
from medfilip.imaging.limits import ImageLimits

_START_TIMEOUT_S = 60.0  # importing numpy and pydicom from a cold network disk
_MAX_HEADER_BYTES = 64 * 1024
_PIPE_BYTES = 1 << 20
_DTYPES = frozenset({"|u1", "|i1", "<u2", "<i2"})
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")


class IsolatedDecoder:
    """A reusable decoding worker; use it as a context manager and for as many images as there are.

    The worker starts with the first image, is replaced after a crash or a timeout, and ends with the context. One
    decoder handles one image at a time (calls from several threads queue); make one per thread to decode in parallel.

    Parameters
    ----------
    limits
        Time and memory of one decoding, and the largest image.
    """

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the running worker; ``None`` before the first image and after a failure."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End the worker; a later call starts a new one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                _close_quietly(stream)
        process.wait()

    def decode_dicom(
        self, data: bytes, transfer_syntax: str, options: dict[str, Any], shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """Decode encapsulated pixel data to its stored values.

        Parameters
        ----------
        data
            Value of Pixel Data (7FE0,0010).
        transfer_syntax
            UID of the compression.
        options
            Image Pixel attributes as `pydicom.pixels.Decoder.as_array` takes them (``rows``, ``columns``, …).
        shape
            Shape that the header claims: ``[frames,] rows, columns[, samples]``.

        Returns
        -------
        ndarray
            8 or 16 bit integers of ``shape``.

        Raises
        ------
        MedfilipError
            ``IMAGE_UNDECODABLE`` or ``IMAGE_DECODE_TIMEOUT``.
        """
        request = {"kind": "dicom", "transfer_syntax": transfer_syntax, "options": options}
        pixels = self._exchange(request, data)
        if pixels.shape != shape:
            raise _undecodable("its size differs from Rows, Columns, Samples per Pixel and Number of Frames")
        return pixels

    def decode_raster(self, data: bytes) -> NDArray[Any]:
        """Decode a PNG or JPEG file to ``uint8`` or ``uint16`` ``[H, W]``.

        Raises
        ------
        MedfilipError
            ``IMAGE_TOO_LARGE``, ``IMAGE_UNSUPPORTED`` (colour, animation), ``IMAGE_UNDECODABLE`` or
            ``IMAGE_DECODE_TIMEOUT``.
        """
        pixels = self._exchange({"kind": "raster", "max_pixels": self._limits.max_pixels}, data)
        if pixels.ndim != 2:
            raise _undecodable("it is not one greyscale frame")
        return pixels

    def _exchange(self, request: dict[str, Any], payload: bytes) -> NDArray[Any]:
        with self._lock:
            process = self._running()
            expired = threading.Event()
            timer = threading.Timer(self._limits.decode_timeout_s, _kill, (process, expired))
            timer.start()
            try:
                reply = self._converse(process, request, payload)
            except (OSError, ValueError) as error:
                self.close()
                if expired.is_set():
                    raise _timed_out(self._limits.decode_timeout_s) from error
                raise _undecodable("the decoder crashed") from error
            finally:
                timer.cancel()
        return _pixels_of(*reply)

    def _converse(
        self, process: subprocess.Popen[bytes], request: dict[str, Any], payload: bytes
    ) -> tuple[dict[str, Any], bytes]:
        """Send one request and read its answer; anything but a complete, bounded answer is an `OSError`."""
        assert process.stdin is not None and process.stdout is not None
        write_frame(process.stdin, request, payload)
        head = process.stdout.read(FRAME.size)
        if len(head) < FRAME.size:
            raise WorkerLost("the worker ended")
        header_bytes, payload_bytes = FRAME.unpack(head)
        if header_bytes > _MAX_HEADER_BYTES or payload_bytes > self._limits.max_inflated_bytes:
            raise WorkerLost("the answer is larger than any allowed image")
        header = process.stdout.read(header_bytes)
        pixels = process.stdout.read(payload_bytes)
        if len(header) < header_bytes or len(pixels) < payload_bytes:
            raise WorkerLost("the worker ended in the middle of its answer")
        reply = json.loads(header)
        if not isinstance(reply, dict):
            raise WorkerLost("the answer is no object")
        return reply, pixels

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        self._process = _start(self._limits)
        return self._process


@lru_cache(maxsize=4)
def shared_decoder(limits: ImageLimits) -> IsolatedDecoder:
    """Return this process's decoder for some limits: its worker starts once and ends with the process."""
    return IsolatedDecoder(limits)


class WorkerLost(OSError):  # noqa: N818
    """The worker ended or answered nonsense."""


def _start(limits: ImageLimits) -> subprocess.Popen[bytes]:
    """Start a worker and wait until it is ready, so that the time limit of an image holds no imports."""
    environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    # The worker must find medfilip however the parent did (editable install, Ray's py_modules, pytest's pythonpath).
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    environment["OPENBLAS_NUM_THREADS"] = environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "medfilip.imaging._decode_worker"]
    command += [str(limits.decode_memory_bytes), str(limits.decode_timeout_s)]
    process = subprocess.Popen(  # noqa: S603 - a fixed command line
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    timer = threading.Timer(_START_TIMEOUT_S, process.kill)
    timer.start()
    try:
        assert process.stdin is not None and process.stdout is not None
        _widen(process.stdin, process.stdout)
        ready = read_frame(process.stdout)
    finally:
        timer.cancel()
    if ready is None:
        process.kill()
        process.communicate()
        raise MedfilipError(
            ErrorCode.INTERNAL,
            "The image decoding worker does not start.",
            fix="Run 'python -m medfilip.imaging._decode_worker 1000000000 10' and read its error.",
        )
    return process


def _widen(*pipes: IO[bytes]) -> None:
    """Let pipes hold a megabyte where the system can: an image then passes in a few turns instead of a hundred."""
    try:
        import fcntl

        for pipe in pipes:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except (ImportError, AttributeError, OSError):
        return  # a speed-up that only Linux has, and only within the user's share of pipe memory


def _kill(process: subprocess.Popen[bytes], expired: threading.Event) -> None:
    expired.set()
    process.kill()


def _close_quietly(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except OSError:
        return  # closing flushes what a dead worker never read


def _pixels_of(reply: dict[str, Any], payload: bytes) -> NDArray[Any]:
    if "code" in reply:
        if "message" in reply:
            raise MedfilipError(ErrorCode(reply["code"]), str(reply["message"]), fix=str(reply["fix"]))
        raise _undecodable(str(reply["reason"]))
    shape, dtype = reply.get("shape"), reply.get("dtype")
    if not isinstance(shape, list) or not 2 <= len(shape) <= 4 or dtype not in _DTYPES:
        raise _undecodable("its values have not 8 or 16 bits")
    values = np.frombuffer(payload, dtype=np.dtype(dtype))
    if values.size != math.prod(shape):
        raise _undecodable("its pixels are incomplete")
    return values.astype(values.dtype.newbyteorder("="), copy=False).reshape(shape)


def _undecodable(reason: str) -> MedfilipError:
    return MedfilipError(
        ErrorCode.IMAGE_UNDECODABLE,
        f"The compressed pixels of the image cannot be decoded: {reason}.",
        fix="Export the image again, without compression if possible.",
    )


def _timed_out(limit_s: float) -> MedfilipError:
    return MedfilipError(
        ErrorCode.IMAGE_DECODE_TIMEOUT,
        f"The image took longer to decode than decode_timeout_s = {limit_s:g} s.",
        fix="Export the image again, or raise decode_timeout_s if the machine is slow.",
    )
