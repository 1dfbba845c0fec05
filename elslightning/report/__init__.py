"""What people look at: figures, and reports from run directories."""
