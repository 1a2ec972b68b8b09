"""Raw data, its checks and its preprocessing."""
