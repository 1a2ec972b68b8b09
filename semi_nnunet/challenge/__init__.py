"""Package models as challenge submissions, such as for FLARE, and measure their cost."""
