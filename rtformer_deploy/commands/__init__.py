"""What each command does with files, one file a command, named as the command."""
