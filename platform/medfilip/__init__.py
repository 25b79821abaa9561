"""MedFILIP Platform: from raw radiology reports and chest X-rays to a served zero-shot diagnosis model.

The library never imports Ray or vLLM; the jobs in ``pipelines`` and the application in ``serve`` do.
"""

from medfilip._version import __version__
from medfilip.core.errors import ErrorCode, MedfilipError

__all__ = ["ErrorCode", "MedfilipError", "__version__"]
