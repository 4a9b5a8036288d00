"""Reports of finished jobs, as HTML, PDF, CSV and JSON."""
