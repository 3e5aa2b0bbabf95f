"""What a folder is and what is wrong with it, in seconds: `python -m drives.inspect PATH`."""
