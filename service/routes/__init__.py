"""The routes, one noun a file. They convert and delegate."""
