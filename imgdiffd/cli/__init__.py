"""The imgdiffd command and everything that it shows in a terminal."""
