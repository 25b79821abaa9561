import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging import isolation
from medfilip.imaging.dicom import read_dicom
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits

RLE = "1.2.840.10008.1.2.5"


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def start_script(script: str):
    """A worker that says it is ready and then runs ``script`` instead of decoding."""
    ready = "import sys,struct,time,os; sys.stdout.buffer.write(struct.pack('>IQ', 2, 0) + b'{}');"
    ready += "sys.stdout.buffer.flush();"

    def start(_: ImageLimits) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", ready + script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.read(14)
        return process

    return start


def test_one_worker_serves_many_images() -> None:
    pixels = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    with IsolatedDecoder(ImageLimits()) as decoder:
        assert decoder.pid is None
        assert np.array_equal(decoder.decode_raster(png(pixels)), pixels)
        first = decoder.pid
        assert np.array_equal(decoder.decode_raster(png(pixels.T.copy())), pixels.T)
        assert decoder.pid == first
    assert decoder.pid is None


def test_a_killed_worker_is_replaced(decoder) -> None:
    image = png(np.zeros((4, 4), np.uint8))
    decoder.decode_raster(image)
    first = decoder.pid
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert decoder.decode_raster(image).shape == (4, 4)
    assert decoder.pid != first


def test_a_crash_is_undecodable_and_the_next_image_works(monkeypatch) -> None:
    image = png(np.zeros((4, 4), np.uint8))
    with IsolatedDecoder(ImageLimits()) as decoder:
        with monkeypatch.context() as patch:
            patch.setattr(isolation, "_start", start_script("sys.stdin.buffer.read(20); os.abort()"))
            with pytest.raises(MedfilipError) as caught:
                decoder.decode_raster(image)
        assert caught.value.code == ErrorCode.IMAGE_UNDECODABLE
        assert decoder.decode_raster(image).shape == (4, 4)


def test_a_hanging_decoder_is_killed(monkeypatch) -> None:
    monkeypatch.setattr(isolation, "_start", start_script("time.sleep(600)"))
    with IsolatedDecoder(ImageLimits(decode_timeout_s=0.2)) as decoder:
        with pytest.raises(MedfilipError) as caught:
            decoder.decode_raster(png(np.zeros((4, 4), np.uint8)))
        assert caught.value.code == ErrorCode.IMAGE_DECODE_TIMEOUT and "decode_timeout_s" in caught.value.message
        assert decoder.pid is None


def test_a_timeout_also_ends_a_worker_that_does_not_read(monkeypatch) -> None:
    monkeypatch.setattr(isolation, "_start", start_script("time.sleep(600)"))
    with IsolatedDecoder(ImageLimits(decode_timeout_s=0.2)) as decoder, pytest.raises(MedfilipError) as caught:
        decoder.decode_raster(bytes(5_000_000))  # more than a pipe holds
    assert caught.value.code == ErrorCode.IMAGE_DECODE_TIMEOUT


def test_an_answer_larger_than_any_image_is_not_read(monkeypatch) -> None:
    script = (
        "sys.stdout.buffer.write(struct.pack('>IQ', 2, 1 << 60) + b'{}'); sys.stdout.buffer.flush(); time.sleep(600)"
    )
    monkeypatch.setattr(isolation, "_start", start_script(script))
    with IsolatedDecoder(ImageLimits()) as decoder, pytest.raises(MedfilipError) as caught:
        decoder.decode_raster(b"x")
    assert caught.value.code == ErrorCode.IMAGE_UNDECODABLE


def test_memory_is_limited() -> None:
    wide = png(np.zeros((6000, 6000), np.uint8))  # 36 MB of pixels from a file of some 40 kB
    with IsolatedDecoder(ImageLimits(decode_memory_bytes=20 * 2**20)) as decoder:
        with pytest.raises(MedfilipError) as caught:
            decoder.decode_raster(wide)
        assert caught.value.code == ErrorCode.IMAGE_UNDECODABLE
        assert decoder.decode_raster(png(np.zeros((4, 4), np.uint8))).shape == (4, 4)


def test_a_codestream_of_another_size_than_the_header_is_refused(dicom, limits, decoder) -> None:
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    data = dicom(pixels, syntax="1.2.840.10008.1.2.4.90").replace(
        b"\x28\x00\x10\x00US\x02\x00\x40\x00", b"\x28\x00\x10\x00US\x02\x00\x20\x00"
    )
    with pytest.raises(MedfilipError) as caught:
        read_dicom(data, limits, decoder)
    assert caught.value.code == ErrorCode.IMAGE_UNDECODABLE


def test_threads_share_a_decoder(decoder) -> None:
    images = [np.full((8, 8), value, np.uint8) for value in range(12)]
    results: dict[int, int] = {}

    def work(value: int) -> None:
        results[value] = int(decoder.decode_raster(png(images[value]))[0, 0])

    threads = [threading.Thread(target=work, args=(value,)) for value in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {value: value for value in range(12)}


def test_the_worker_gets_no_secrets(monkeypatch, decoder) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    with IsolatedDecoder(ImageLimits()) as fresh:
        fresh.decode_raster(png(np.zeros((4, 4), np.uint8)))
        assert b"canary" not in Path(f"/proc/{fresh.pid}/environ").read_bytes()


def test_rle_decodes_without_a_shared_decoder(dicom, limits, ramp) -> None:
    assert read_dicom(dicom(ramp, syntax=RLE), limits).pixels.shape == ramp.shape
