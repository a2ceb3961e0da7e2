"""Consortium folder of the coordinator: provisioning, certificates, kits, roster, bundle."""
