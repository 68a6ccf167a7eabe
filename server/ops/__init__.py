"""What operators see: the second port's HTTP application, metrics, logs."""
