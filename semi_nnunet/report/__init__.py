"""One self-contained HTML page: does it help, how sure, and where."""
