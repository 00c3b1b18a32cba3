"""Runs over more pictures than one sitting holds: shards that survive a crash."""
