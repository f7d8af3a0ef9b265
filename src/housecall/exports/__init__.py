"""A run out of its folder and in again: as a zip, for Ollama, for Hugging Face."""
