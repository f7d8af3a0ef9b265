"""How fast, large and good each model of a run is on this machine, and how that is shown."""
