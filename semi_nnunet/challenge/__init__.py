"""What a challenge asks of a submission, such as FLARE."""
