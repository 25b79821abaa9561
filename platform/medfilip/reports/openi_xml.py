"""One report of the Indiana University collection from its XML file, parsed without entities or network."""

from __future__ import annotations

from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from medfilip.core.errors import ErrorCode
from medfilip.reports.corpora import RawReport, RejectedReport, check_report
from medfilip.reports.sections import join_sections
from medfilip.storage.location import Location

_LABELS = ("INDICATION", "COMPARISON", "FINDINGS", "IMPRESSION")


def read_xml_report(file: Location) -> RawReport | RejectedReport:
    """Read ``<AbstractText Label="FINDINGS">`` and its siblings; the id is ``CXR<uId>`` as in the collection."""
    name = file.name.removesuffix(".xml")
    try:
        root = fromstring(file.read_bytes().decode("utf-8", errors="replace"))
    except (ParseError, DefusedXmlException) as error:
        message = f"The file is not well-formed XML ({type(error).__name__})."
        return RejectedReport(name, ErrorCode.REPORT_UNREADABLE, message)
    uid = root.find(".//uId")
    report_id = uid.get("id", name) if uid is not None else name
    parts = {node.get("Label", ""): node.text for node in root.iter("AbstractText")}
    text, sections = join_sections({label.lower(): parts.get(label) for label in _LABELS})
    return check_report(RawReport(report_id, report_id, None, text, sections, "openi", public_ids=True))
