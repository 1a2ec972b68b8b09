"""The report: one self-contained HTML page with the answer, its evidence and every case."""
