"""Everything that is drawn: SVG, PNG and HTML."""
