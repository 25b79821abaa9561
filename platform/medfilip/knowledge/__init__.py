"""Category → visual attributes → training texts and zero-shot prompts."""
