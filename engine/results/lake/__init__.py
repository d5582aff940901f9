"""Where committed rows land beside the state folder: tables, topics and folders that other programs read."""
