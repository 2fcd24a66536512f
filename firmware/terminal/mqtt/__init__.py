# MQTT 3.1.1 for one device: Client is all the rest of the terminal uses.
from terminal.mqtt.client import Client as Client
from terminal.mqtt.errors import Full as Full
from terminal.mqtt.errors import MqttError as MqttError
