"""Encoders, dual encoder, objectives, checkpoint folder and calibration."""
