"""What people look at: plots, contact sheets, the HTML page."""
