"""Pages about runs: their files to one self-contained HTML file."""
