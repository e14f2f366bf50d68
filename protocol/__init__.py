"""What the processes agree on: messages, limits, files and signals. Imports neither `frontend` nor `engine`."""
