"""How bytes arrive and leave: the embedded MQTT broker, rate limits, and the ingest of terminal messages."""
