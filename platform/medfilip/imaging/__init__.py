"""DICOM / PNG / JPEG → pixels: guarded decoding, windowing, resizing."""
