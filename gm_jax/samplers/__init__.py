"""Noise schedules and scanned reverse processes; they take a denoiser, never a trainer."""
