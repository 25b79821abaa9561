"""Transfer: what a pre-trained image tower is worth with few labels, beside other initialisations at equal steps."""
