"""The one place that states the version; packaging, manifests and answers read it from here."""

__version__ = "0.1.0"
