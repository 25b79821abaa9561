"""One report of the Indiana University collection from its XML file, parsed without entities or network."""

from __future__ import annotations

from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from medfilip.core.errors import ErrorCode
from medfilip.reports.encoding import clean_text, decode_text
from medfilip.reports.report import RawReport, RejectedReport, Source, make_report
from medfilip.reports.sections import join_sections
from medfilip.reports.text_files import MAX_FILE_BYTES
from medfilip.storage.location import Location

_LABELS = ("INDICATION", "COMPARISON", "FINDINGS", "IMPRESSION")


def read_xml_report(file: Location, accept: frozenset[str] = frozenset()) -> RawReport | RejectedReport:
    """Read ``<AbstractText Label="FINDINGS">`` and its siblings; the id is ``CXR<uId>`` as in the collection."""
    name = file.name.removesuffix(".xml")
    if file.size() > MAX_FILE_BYTES:
        message = f"The file has {file.size()} bytes; the limit is {MAX_FILE_BYTES}."
        return RejectedReport(name, ErrorCode.REPORT_TOO_LONG, message)
    decoded = decode_text(file.read_bytes())
    try:
        root = fromstring(decoded.text if decoded else "")
    except (ParseError, DefusedXmlException, ValueError) as error:
        message = f"The file is not well-formed XML ({type(error).__name__})."
        return RejectedReport(name, ErrorCode.REPORT_UNREADABLE, message)
    uid = root.find(".//uId")
    report_id = uid.get("id", name) if uid is not None else name
    parts = {node.get("Label", ""): node.text for node in root.iter("AbstractText")}
    text, _ = join_sections({label.lower(): parts.get(label) for label in _LABELS})
    return make_report(Source(report_id, report_id, None, "openi", public_ids=True), clean_text(text), accept=accept)
