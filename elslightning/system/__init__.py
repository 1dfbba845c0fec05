"""What the operating system gives and takes: files, locks, processes, progress, signals, errors."""
