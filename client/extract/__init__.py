"""Feature extraction from raw files: one HDF5 file per patient and feature set."""
