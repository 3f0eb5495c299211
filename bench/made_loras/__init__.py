"""LoRAs made to measure, whose truth is known: which matrices tell their class, and how clearly."""
