"""Report text: corpus readers, sections and sentences."""
