# MQTT 3.1.1 for one device: Client is all the rest of the terminal uses.
#
# What the client is made of is imported here first, one after another: an import inside an import inside an
# import takes more C stack than a board has.
import terminal.mqtt.errors
import terminal.mqtt.fast
import terminal.mqtt.incoming
import terminal.mqtt.packets
import terminal.mqtt.protocol  # noqa: F401
from terminal.mqtt.client import Client as Client
from terminal.mqtt.errors import Full as Full
from terminal.mqtt.errors import MqttError as MqttError
