"""Where things lie: delivery readers, vector tables, IO managers."""
