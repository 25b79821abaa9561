"""Answers in the form of standards: FHIR, DICOM structured reports, captures and segmentations; and DICOMweb."""
