"""What each command does with files. There is one module for each command, with the same name."""
