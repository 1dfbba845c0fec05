"""The words of the field: shapes, schedules, the denoiser's interface, noise, the reverse process."""
