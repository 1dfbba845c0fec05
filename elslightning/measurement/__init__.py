"""How far a theory goes: tensors in, tensors out, no files."""
