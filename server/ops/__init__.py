"""The parts that operators see: the HTTP ports with their application, metrics, health and logs."""
