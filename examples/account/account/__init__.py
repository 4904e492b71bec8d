"""An account in three versions: the example of changing code while it runs."""
