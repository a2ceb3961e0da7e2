"""Who is who: signatures, rosters, certificates, provenance and signed audit logs."""
