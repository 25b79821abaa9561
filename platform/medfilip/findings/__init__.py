"""What a finding is: its slots, the ontology of categories and sites, integer codes, and report-level resolution."""
