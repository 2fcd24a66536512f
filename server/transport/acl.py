"""Who may say what where: a terminal owns ``o/<site>/<its id>/...`` and hears its site and itself."""

from __future__ import annotations

OPS = "op"
HELLO = "hello"
STATE = "state"


def own_topic(site: str, device: str, topic: str) -> str | None:
    """The part of a topic after ``o/<site>/<device>/``, or None when the device may not publish there."""
    prefix = f"o/{site}/{device}/"
    return topic[len(prefix) :] if topic.startswith(prefix) and len(topic) > len(prefix) else None


def may_subscribe(site: str, device: str, topic_filter: str) -> bool:
    """Whether a device may subscribe to a filter: only below ``s/<site>`` and ``d/<site>/<device>``, never
    ``$share``.
    """
    for root in (f"s/{site}", f"d/{site}/{device}"):
        if topic_filter in (root, f"{root}/#"):
            return True
        if topic_filter.startswith(root + "/"):
            return True
    return False


def may_receive(site: str, device: str, topic: str) -> bool:
    """Whether a topic is one this device may be sent (a second line behind the subscriptions)."""
    return topic.startswith((f"s/{site}/", f"d/{site}/{device}/"))
