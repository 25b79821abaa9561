"""Category → visual attributes → training text and prompts."""
