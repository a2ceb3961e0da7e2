"""Raw files to feature files: one HDF5 file a patient and feature set."""
