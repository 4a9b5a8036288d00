"""The documents of a release: SBOMs, licences, vulnerabilities, provenance."""
