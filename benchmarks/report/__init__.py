"""The reports of a run: tables as text and Markdown, charts as SVG, and the raw samples as JSON."""
