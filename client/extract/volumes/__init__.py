"""Features of CT and MRI volumes."""
