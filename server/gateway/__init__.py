"""The streaming port: from a TCP connection to a session that speaks the protocol, and its end."""
