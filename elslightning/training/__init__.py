"""Everything that is Lightning: the task, the comparison as a callback, loggers, resuming."""
